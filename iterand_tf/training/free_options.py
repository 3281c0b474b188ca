"""The options that a network does not depend on: where a run is kept and what is shipped."""

import dataclasses
from typing import Any

from iterand_tf.checks import Options, option
from iterand_tf.errors import UserError
from iterand_tf.strategies.strategy import STRATEGIES

EXPORT_FORMATS = ("packed", "dense", "tflite", "onnx")
KERNEL_DTYPES = ("float32", "bfloat16", "float16")


def free_option(*arguments: Any, recorded: bool = True, **limits: Any) -> Any:
    """An option that may have another value when a run is continued or exported; `recorded`: flags.txt holds it.

    The network does not depend on it, but for rounding and, on other devices, the statistics of a BatchNormalization
    that is not synchronized.
    """
    field = option(*arguments, **limits)
    metadata = {**field.metadata, "binding": False, "recorded": recorded}
    return dataclasses.field(default=field.default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class RunConfig(Options):
    """Where it is kept."""

    model_dir: str = free_option(
        "", "keep checkpoints, metrics and results in this directory; empty: a new one below runs/", recorded=False
    )
    resume: bool = free_option(False, "continue the run in --model_dir at its last checkpoint", recorded=False)
    checkpoint_steps: int = free_option(
        0, "save a checkpoint after every so many steps; 0: at the end of each epoch only", minimum=0
    )
    max_checkpoints: int = free_option(2, "keep so many of the newest checkpoints", minimum=1)
    strategy: str = free_option(
        "auto", "train on one device, on all local ones (mirrored) or on several machines", choices=STRATEGIES
    )
    virtual_devices: int = free_option(
        0, "split the CPU into so many devices, to try --strategy=mirrored without GPUs; 0: do not", minimum=0
    )


@dataclasses.dataclass(frozen=True)
class ExportConfig(Options):
    """What is shipped."""

    export_dir: str = free_option("", "write EXPORT_DIR/VERSION, a SavedModel, after training; empty: export nothing")
    export_format: str = free_option(
        "packed",
        "export in this format: packed (entropy-coded kernels), dense (for converters), tflite or onnx; several, "
        "comma-separated, go to EXPORT_DIR/FORMAT/VERSION",
    )
    export_checkpoint: str = free_option(
        "best", "export the network of the best validation accuracy or the last one", choices=("best", "last")
    )
    export_kernel_dtype: str = free_option(
        "float32",
        "store the values of packed kernels in this type, where a kernel has more than 256 of them; types other than "
        "float32 round",
        choices=KERNEL_DTYPES,
    )
    export_seeded: bool = free_option(
        True, "store frozen kernels of a packed export as seeds and the draw of each entry, where that is smaller"
    )
    tflite_int8: bool = free_option(
        False,
        "quantize the tflite file to integers throughout, calibrated on validation images, and measure its accuracy on "
        "the test images",
    )

    def __post_init__(self):
        super().__post_init__()
        names = self.export_format.split(",")
        if len(set(names)) < len(names) or not set(names) <= set(EXPORT_FORMATS):
            raise UserError(
                f"--export_format must be one or several of {','.join(EXPORT_FORMATS)}, not {self.export_format}."
            )
        for flag, format_name, asked in (
            ("export_kernel_dtype", "packed", self.export_kernel_dtype != "float32"),
            ("tflite_int8", "tflite", self.tflite_int8),
        ):
            if asked and format_name not in names:
                raise UserError(f"--{flag} goes with --export_format={format_name} only.")
