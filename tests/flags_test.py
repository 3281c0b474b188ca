"""The flagfiles: all parse, open with their command, and hold the paper's settings."""

import pathlib

import pytest

import main
from iterand_tf.training.config import Config

ROOT = pathlib.Path(__file__).parent.parent
FLAGFILES = {path.stem: path for path in sorted((ROOT / "flags").glob("*.flags"))}
METHODS = ("dense", "ku_edge_popup", "sc_edge_popup", "ku_iterand", "sc_iterand")


def config(name):
    return Config.from_values(main.parse(["main.py", f"--flagfile={FLAGFILES[name]}"]).flag_values_dict())


@pytest.mark.parametrize("name", FLAGFILES)
def test_opens_with_its_command_and_what_it_reached(name):
    lines = FLAGFILES[name].read_text().splitlines()
    assert lines[0].startswith(f"# python main.py --flagfile=flags/{name}.flags")
    assert "accuracy" in lines[1] or lines[1].startswith("# Never run in full")
    assert "x86-64 cores" in "".join(line for line in lines if line.startswith("#"))
    config(name)


@pytest.mark.parametrize("model", ["conv6", "resnet18"])
@pytest.mark.parametrize("method", METHODS)
def test_the_papers_settings(model, method):
    settings = config(f"cifar10_{model}_{method}")
    data, trained, chosen = settings.data, settings.training, settings.method
    assert (data.dataset, data.batch_size, data.validation_split) == ("cifar10", 128, 0.1)
    assert (settings.model.model, settings.model.width_factor) == (model, 1.0)
    assert (trained.epochs, trained.momentum, trained.lr_schedule, trained.warmup_epochs) == (100, 0.9, "cosine", 0)
    conv6_rate = 0.01 if method == "dense" else 0.3
    expected = {"conv6": (conv6_rate, 1e-4), "resnet18": (0.1, 5e-4)}[model]
    assert (trained.learning_rate, trained.weight_decay) == expected
    if method == "dense":
        assert chosen.method == "dense"
        return
    distribution, _, name = method.partition("_")
    assert chosen.method == name
    assert chosen.weight_distribution == {"ku": "kaiming_uniform", "sc": "signed_constant"}[distribution]
    assert chosen.sparsity == {"conv6": 0.5, "resnet18": 0.6}[model]
    assert (chosen.score_distribution, chosen.score_transform) == ("kaiming_uniform", "identity")
    if name == "iterand":
        assert (chosen.rerandomization_period, chosen.rerandomization_rate) == (300, 0.1)


@pytest.mark.parametrize("model", ["resnet18", "resnet34", "resnet50", "resnet101"])
@pytest.mark.parametrize("method", ["dense", "sc_edge_popup", "sc_iterand"])
def test_the_papers_settings_on_imagenet(model, method):
    settings = config(f"imagenet_{model}_{method}")
    data, trained, chosen = settings.data, settings.training, settings.method
    assert (data.dataset, data.batch_size, data.validation_split) == ("imagenet2012", 128, 0.01)
    assert (data.image_size, data.augmentation) == (224, "crop_flip")
    assert (settings.model.model, settings.model.width_factor) == (model, 1.0)
    assert (trained.epochs, trained.warmup_epochs, trained.finetune_epochs) == (105, 5, 5)
    assert (trained.learning_rate, trained.momentum, trained.weight_decay) == (0.1, 0.9, 1e-4)
    assert (trained.lr_schedule, trained.jit_compile, settings.run.strategy) == ("cosine", "auto", "auto")
    assert chosen.method == method.removeprefix("sc_")
    if method != "dense":
        assert (chosen.weight_distribution, chosen.sparsity) == ("signed_constant", 0.7)
    if method == "sc_iterand":
        assert (chosen.rerandomization_period, chosen.rerandomization_rate) == (1000, 0.1)
