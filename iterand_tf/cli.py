"""Trains, evaluates and exports networks whose weights are chosen instead of optimized, one or many.

    COMMAND [--flagfile=FILE.flags] [--flag=value ...]

With no flag at all it trains on the bundled digits and exports the network, as flags/quickstart.flags says. Exit codes:
0 done; 1 a flag or its value is wrong; 2 the dataset is missing or wrong; 3 the model_dir cannot be used; 4 the export
failed; 5 the loss became NaN or infinite; 6 another worker was lost; 7 points of a sweep failed; 130 and 143
interrupted by SIGINT or SIGTERM; 141 the standard output was closed.
"""

import dataclasses
import os
import pathlib
import signal
import sys
from collections.abc import Sequence

from absl import flags, logging

from iterand_tf.errors import UserError
from iterand_tf.experiments.config import SweepConfig
from iterand_tf.interruption import InterruptedRunError
from iterand_tf.startup import MAIN, started_by_main
from iterand_tf.training.config import Config, option_fields
from iterand_tf.training.flags_file import flags_text
from iterand_tf.training.model_dir import ModelDir

MODES = ("train", "evaluate", "export", "sweep", "report")
# What differs in flags/quickstart.flags, which the wheel does not hold, from the defaults.
QUICKSTART = ("--batch_normalization", "--batch_size=32", "--export_dir=exports/digits")

_DEFINE = {
    "str": flags.DEFINE_string,
    "int": flags.DEFINE_integer,
    "float": flags.DEFINE_float,
    "float | None": flags.DEFINE_float,
    "bool": flags.DEFINE_boolean,
    "tuple": flags.DEFINE_multi_string,
}


def define_flags() -> flags.FlagValues:
    """--mode, and one flag for each option of the configuration and of sweeps."""
    values = flags.FlagValues()
    flags.DEFINE_boolean("help", False, "show this help", flag_values=values)
    flags.DEFINE_enum(
        "mode",
        "train",
        MODES,
        "train (and export if --export_dir), evaluate or export a run; run a sweep of many; report on runs",
        flag_values=values,
    )
    for fields in [*option_fields().values(), dataclasses.fields(SweepConfig)]:
        for field in fields:
            choices, help_line = field.metadata["choices"], field.metadata["help"]
            if choices:
                flags.DEFINE_enum(field.name, field.default, choices, help_line, flag_values=values)
            else:
                _DEFINE[str(getattr(field.type, "__name__", field.type))](
                    field.name, field.default, help_line, flag_values=values
                )
    return values


def program(started: str) -> str:
    """The command line's name, as its user types it."""
    name = pathlib.Path(started).name
    return {"main.py": "python main.py", "__main__.py": "python -m iterand_tf"}.get(name, name)


def parse(argv: list[str]) -> flags.FlagValues:
    """The values of all flags; evaluate and export begin with the flags of the run in --model_dir."""
    for argument in argv:
        if argument.encode(errors="replace").decode() != argument:
            raise UserError(f"{argument!r} is not UTF-8; rename what it names.")
    arguments = argv if argv[1:] else [*argv, *QUICKSTART]
    see_help = f"see {program(argv[0])} --help"
    try:
        values = define_flags()
        positional = values(arguments)
        if values.mode in ("evaluate", "export") and not values.help:
            flags_file = ModelDir.existing(values.model_dir).flags_file
            values = define_flags()
            positional = values([argv[0], f"--flagfile={flags_file}", *argv[1:]])
    except UnicodeDecodeError as error:
        raise UserError("a flagfile is not a text of flags; give one that is.") from error
    except flags.Error as error:
        sentence = str(error).splitlines()[0].removeprefix("ERROR:: ").rstrip(".")
        raise UserError(f"{sentence}; {see_help}.") from error
    if positional[1:]:
        raise UserError(f"{positional[1]} is not a flag; write --name=value, {see_help}.")
    return values


def run(mode: str, config: Config) -> None:
    """Does what the mode says and prints a short report."""
    from export import check_export_dir, check_formats
    from iterand_tf.training.run import evaluate, train

    if mode == "export" or (mode == "train" and config.export.export_dir):
        check_export_dir(config.export.export_dir)
        check_formats(config.export.export_format.split(","))
    if mode == "train":
        result = train(config)
        if not result.metrics:
            # Of several workers the chief alone reports.
            return
        model_dir, metrics = result.model_dir, result.metrics
    else:
        model_dir = ModelDir.existing(config.run.model_dir)
        model_dir.check_flags(config)
        metrics = model_dir.read_result()
    if mode == "evaluate":
        for name, value in evaluate(config, model_dir).items():
            print(f"{name}: {value}")
        return
    if config.export.export_dir:
        metrics = metrics | export_run(config, model_dir)
        model_dir.write_result(metrics)
    print_report(model_dir, metrics)


def export_run(config: Config, model_dir: ModelDir) -> dict[str, object]:
    """Writes the run's network as a SavedModel; returns what result.json records of it."""
    from export import export_saved_model
    from iterand_tf.training.dataset import load_test_data
    from iterand_tf.training.network import load_model

    options = config.export
    model = load_model(model_dir, options.export_checkpoint)
    split = load_test_data(config, model_dir.read_dataset())
    exported = export_saved_model(
        model,
        options.export_dir,
        options.export_format.split(","),
        sample=_sample(config, model_dir, split),
        kernel_dtype=options.export_kernel_dtype,
        seeded=options.export_seeded,
        tflite_int8=options.tflite_int8,
        decode=split.test.evaluation_image,
        labels=split.class_names,
        flags=flags_text(config),
    )
    metrics: dict[str, object] = {}
    for name, result in exported.items():
        print(
            f"exported {result.path}; reloaded in a fresh process, its outputs differ from the trained network's by at "
            f"most {result.max_abs_difference:.3g}"
        )
        prefix = f"{name}_" if metrics else ""
        metrics |= {prefix + field: value for field, value in result.metrics().items()}
        if name == "tflite":
            # A file of floats has the accuracy of the network.
            accuracy = _lite_accuracy(config, model, result.path, split) if options.tflite_int8 else None
            metrics["tflite_test_accuracy"] = accuracy
    return metrics


def _sample(config, model_dir, split):
    """A batch that exports are compared on."""
    from iterand_tf import data
    from iterand_tf.training.dataset import check_dataset, load_data

    examples = split.test
    if config.export.tflite_int8:
        # Quantization is calibrated on images that are not tested on.
        splits = load_data(config)
        check_dataset(config, model_dir.read_dataset(), splits)
        examples = splits.validation or examples
    with data.reading(config.data.dataset):
        images, _ = next(iter(examples.evaluation_batches(config.data.batch_size)))
    return images.numpy()


def _lite_accuracy(config, model, path, split):
    """Accuracy of a network's TensorFlow Lite file, which rounds activations, by its own answers."""
    import numpy as np

    from export.interface import Interface
    from export.served_outputs import served_outputs
    from iterand_tf import data

    (name,) = Interface.of(model).inputs
    right = []
    with data.reading(config.data.dataset):
        for images, labels in split.test.evaluation_batches(config.data.batch_size):
            outputs = served_outputs(path, {name: images.numpy()}, b"")["sample"]
            logits = outputs.get("logits", next(iter(outputs.values())))
            right.append(logits.argmax(axis=-1) == labels.numpy().argmax(axis=-1))
    return float(np.concatenate(right).mean())


def refuse_sweep_flags(values: flags.FlagValues) -> None:
    """Raises UserError if a flag was given that a single run would leave out without a word."""
    for field in dataclasses.fields(SweepConfig):
        if values[field.name].present:
            raise UserError(f"--{field.name} only works with --mode=sweep.")


def run_sweep(argv: list[str], values: flags.FlagValues) -> None:
    """Runs many configurations, which differ in the flags that --grid or --search name."""
    from iterand_tf.experiments.sweep import sweep

    def configure(more: Sequence[str]) -> Config:
        return Config.from_values(parse([*argv, *more]).flag_values_dict())

    options = SweepConfig.from_values(values.flag_values_dict())
    sweep(options, configure, command_of_a_point())


def command_of_a_point() -> list[str]:
    """Starts another process of this command line."""
    return [sys.executable, *([str(MAIN)] if started_by_main() else ["-m", "iterand_tf"])]


def print_report(model_dir: ModelDir, metrics: dict[str, object]) -> None:
    """One line for each figure of result.json."""
    print(f"\n{model_dir.result}")
    for name, value in metrics.items():
        if value is not None:
            print(f"  {name:<24} {value:,.4g}" if isinstance(value, float) else f"  {name:<24} {value:,}")


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    try:
        values = parse(argv)
        if values.help:
            print(f"{(__doc__ or '').replace('COMMAND', program(argv[0]))}\n{values.get_help()}")
        elif values.mode == "sweep":
            run_sweep(argv, values)
        elif values.mode == "report":
            from iterand_tf.experiments.report_files import write_report

            write_report(values.model_dir)
        else:
            refuse_sweep_flags(values)
            run(values.mode, Config.from_values(values.flag_values_dict()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f'error: {error.name} is missing; install "iterand_tf[training,experiments]".', file=sys.stderr)
        return 1
    except InterruptedRunError as interruption:
        print(f"{interruption}: the state is saved; give --resume with --model_dir to continue", file=sys.stderr)
        return interruption.exit_code
    except KeyboardInterrupt:
        print("SIGINT; if training had begun, give --resume with --model_dir to continue", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # What is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


def run_command_line() -> int:
    """Runs the command line of this process; returns the exit code."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.ERROR)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main(sys.argv)
