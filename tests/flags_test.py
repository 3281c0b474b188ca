"""The flagfiles: all parse, open with their command, and hold the paper's settings."""

import dataclasses
import pathlib

import pytest

from iterand_tf import cli
from iterand_tf.experiments.config import SweepConfig
from iterand_tf.experiments.search_space import make_space, point_flags
from iterand_tf.training.config import Config

ROOT = pathlib.Path(__file__).parent.parent
ALL_FLAGFILES = {path.stem: path for path in sorted((ROOT / "flags").glob("*.flags"))}
FIGURES = [name for name in ALL_FLAGFILES if name.startswith("figure")]
METHODS = ("dense", "ku_edge_popup", "sc_edge_popup", "ku_iterand", "sc_iterand")


def config(name):
    return Config.from_values(values(name))


def values(name, *more):
    return cli.parse(["main.py", f"--flagfile={ALL_FLAGFILES[name]}", *more]).flag_values_dict()


@pytest.mark.parametrize("name", ALL_FLAGFILES)
def test_opens_with_its_command_and_what_it_reached(name):
    lines = ALL_FLAGFILES[name].read_text().splitlines()
    mode = "--mode=sweep " if name in FIGURES else ""
    assert lines[0].startswith(f"# python main.py {mode}--flagfile=flags/{name}.flags")
    assert "accuracy" in lines[1] or lines[1].startswith("# Never run in full")
    assert "x86-64 cores" in "".join(line for line in lines if line.startswith("#"))
    config(name)


def test_no_flag_at_all_means_the_quickstart():
    assert cli.parse(["main.py"]).flag_values_dict() == values("quickstart")


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
    assert settings.supermask.weight_distribution == {"ku": "kaiming_uniform", "sc": "signed_constant"}[distribution]
    assert settings.supermask.sparsity == {"conv6": 0.5, "resnet18": 0.6}[model]
    assert (settings.supermask.score_distribution, settings.supermask.score_transform) == (
        "kaiming_uniform",
        "identity",
    )
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
        assert (settings.supermask.weight_distribution, settings.supermask.sparsity) == ("signed_constant", 0.7)
    if method == "sc_iterand":
        assert (chosen.rerandomization_period, chosen.rerandomization_rate) == (1000, 0.1)


def points(name):
    """The configurations of a sweep, by the values that their names tell."""

    def configure(more):
        return Config.from_values(values(name, *more))

    space = make_space(SweepConfig.from_values(values(name)), configure)
    return {point.name: configure(point_flags(point.values)) for point in space.points}


@pytest.mark.parametrize("model", ["conv6", "resnet18", "resnet34"])
@pytest.mark.parametrize("method", METHODS)
def test_figure_2_is_the_single_run_at_each_width_and_seed(model, method):
    swept = points(f"figure2_{model}_{method}")
    assert len(swept) == 4 * 3
    # ResNet34 has the settings of ResNet18.
    single = config(f"cifar10_{model.replace('34', '18')}_{method}")
    for width in (0.25, 0.5, 1.0, 2.0):
        for seed in (1, 2, 3):
            network = dataclasses.replace(single.model, model=model, width_factor=width)
            training = dataclasses.replace(single.training, seed=seed)
            expected = dataclasses.replace(single, model=network, training=training)
            assert swept[f"width_factor={width},seed={seed}"] == expected


def test_figure_1_has_the_rates_of_the_paper():
    swept = points("figure1_conv6_ku_iterand")
    single = config("cifar10_conv6_ku_iterand")
    assert len(swept) == 4 * 3
    for rate in (0.0, 0.01, 0.1, 1.0):
        for seed in (1, 2, 3):
            method = dataclasses.replace(single.method, rerandomization_rate=rate)
            training = dataclasses.replace(single.training, seed=seed)
            expected = dataclasses.replace(single, method=method, training=training)
            assert swept[f"rerandomization_rate={rate},seed={seed}"] == expected


@pytest.mark.parametrize("method", ["dense", "sc_edge_popup", "sc_iterand"])
def test_figure_3_is_the_single_run_of_each_network(method):
    models = ("resnet34", "resnet50", "resnet101")
    assert points(f"figure3_{method}") == {f"model={model}": config(f"imagenet_{model}_{method}") for model in models}
