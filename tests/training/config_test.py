"""The configuration: each option once, checked."""

import dataclasses

import pytest

from export import exporter, pack
from iterand_tf.errors import UserError
from iterand_tf.training import config
from iterand_tf.training.config import Config, option_fields
from iterand_tf.training.flags_file import flags_text


def values(**changes):
    fields = [field for part in option_fields().values() for field in part]
    return {field.name: field.default for field in fields} | changes


def test_each_option_stands_in_one_part_and_has_a_line_of_help():
    fields = [field for part in option_fields().values() for field in part]
    names = [field.name for field in fields]
    assert len(names) == len(set(names))
    assert all(field.metadata["help"] and "\n" not in field.metadata["help"] for field in fields)


def test_from_values_packs_what_option_fields_lists():
    assert Config.from_values(values()) == Config()
    assert Config.from_values(values(sparsity=0.7)).supermask.sparsity == 0.7


def test_the_choices_are_those_of_the_exporter():
    assert set(config.EXPORT_FORMATS) == set(exporter.FORMATS)
    assert set(config.KERNEL_DTYPES) == set(pack.DTYPES)


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().supermask.sparsity = 0.7


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("sparsity", 1.0, "--sparsity must be at least 0 and below 1, not 1.0."),
        ("sparsity", -0.5, "--sparsity must be at least 0 and below 1, not -0.5."),
        ("sparsity", float("nan"), "--sparsity must be at least 0 and below 1, not nan."),
        ("head_sparsity", 2.0, "--head_sparsity must be"),
        ("rerandomization_period", -1, "--rerandomization_period must be at least 0, not -1."),
        ("rerandomization_rate", -0.5, "--rerandomization_rate must be at least 0 and at most 1, not -0.5."),
        ("rerandomization_rate", 1.1, "--rerandomization_rate must be at least 0 and at most 1, not 1.1."),
        ("validation_split", 1.0, "--validation_split must be"),
        ("batch_size", 0, "--batch_size must be at least 1, not 0."),
        ("epochs", -1, "--epochs must be at least 0, not -1."),
        ("learning_rate", 0.0, "--learning_rate must be above 0, not 0.0."),
        ("learning_rate", float("inf"), "--learning_rate must be above 0, not inf."),
        ("width_factor", float("inf"), "--width_factor must be above 0 and at most 64, not inf."),
        ("model", "vgg16", "--model must be one of conv2"),
        ("warmup_epochs", 30, "--epochs=30 must be above"),
        ("seed", -1, "--seed must be at least 0"),
    ],
)
def test_refuses_what_is_out_of_range(name, value, sentence):
    with pytest.raises(UserError) as error:
        Config.from_values(values(**{name: value}))
    assert sentence in str(error.value)


def test_warm_up_goes_with_the_cosine_schedule():
    with pytest.raises(UserError, match="go with --lr_schedule=cosine"):
        Config.from_values(values(lr_schedule="multi_step", warmup_epochs=1))


def test_flags_text_leaves_out_where_the_run_is_kept_and_what_is_unset():
    text = flags_text(Config.from_values(values(model_dir="runs/x", resume=True)))
    assert "model_dir" not in text
    assert "resume" not in text
    assert "head_sparsity" not in text
    assert "--sparsity=0.5\n" in text
