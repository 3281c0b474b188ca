"""The configuration of a run: frozen dataclasses, one field for each flag.

`option` gives a field its default, its line of help and its range; main.py defines one flag from each field. The
defaults train IteRand on the bundled digits.
"""

import dataclasses
import math
from typing import Any, Self

from iterand_tf import distributions, models, optimization
from iterand_tf.data import AUGMENTATIONS, KERAS_CV_POLICIES
from iterand_tf.errors import UserError
from iterand_tf.layers.subnet_layer import SCORE_TRANSFORMS
from iterand_tf.strategies.strategy import STRATEGIES

METHODS = ("dense", "edge_popup", "iterand")
EXPORT_FORMATS = ("packed", "dense", "tflite")
KERNEL_DTYPES = ("float32", "bfloat16", "float16")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def option(
    default: Any,
    help_line: str,
    *,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with what its flag and its check need."""
    limits = {"at least": minimum, "above": above, "at most": maximum, "below": below}
    limits = {words: limit for words, limit in limits.items() if limit is not None}
    return dataclasses.field(default=default, metadata={"help": help_line, "choices": choices, "limits": limits})


_WITHIN = {
    "at least": lambda value, limit: value >= limit,
    "above": lambda value, limit: value > limit,
    "at most": lambda value, limit: value <= limit,
    "below": lambda value, limit: value < limit,
}


@dataclasses.dataclass(frozen=True)
class _Options:
    """Checks each field against its choices and limits."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None or not field.metadata:
                continue
            choices, limits = field.metadata["choices"], field.metadata["limits"]
            if choices and value not in choices:
                raise UserError(f"--{field.name} must be one of {', '.join(choices)}, not {value!r}.")
            finite = not isinstance(value, float) or math.isfinite(value)
            if not finite or not all(_WITHIN[words](value, limit) for words, limit in limits.items()):
                wanted = " and ".join(f"{words} {limit}" for words, limit in limits.items())
                raise UserError(f"--{field.name} must be {wanted}, not {value}.")


@dataclasses.dataclass(frozen=True)
class DataConfig(_Options):
    """What to train and test on."""

    dataset: str = option("digits", "digits, the name of a TFDS image classification dataset, or folder:PATH")
    data_dir: str = option("", "TFDS root; empty: TFDS_DATA_DIR or TFDS's default")
    validation_split: float = option(
        0.1, "fraction of the training data held out, chosen by the seed", minimum=0, below=1
    )
    max_train_examples: int = option(0, "use only so many training examples; 0: all", minimum=0)
    image_size: int = option(0, "pixels of the square images; 0: the dataset's own, or 224 if they differ", minimum=0)
    augmentation: str = option("none", "of the training images", choices=AUGMENTATIONS)
    batch_size: int = option(128, "examples in a training step, all devices together", minimum=1)


@dataclasses.dataclass(frozen=True)
class ModelConfig(_Options):
    """Which network."""

    model: str = option("conv2", "the network", choices=models.NAMES)
    width_factor: float = option(1.0, "factor on the network's widths", above=0, maximum=64)
    batch_normalization: bool = option(False, "in conv2 to conv8, which the papers run without; resnets always have it")
    synchronized_batch_normalization: bool = option(
        False, "take BatchNormalization's statistics over all devices; without it each has its own"
    )


@dataclasses.dataclass(frozen=True)
class MethodConfig(_Options):
    """How its weights come about."""

    method: str = option("iterand", "how the weights come about", choices=METHODS)
    sparsity: float = option(0.5, "fraction of each kernel that is removed", minimum=0, below=1)
    head_sparsity: float | None = option(None, "that of the classifier; unset: --sparsity", minimum=0, below=1)
    score_transform: str = option(
        "identity", "what is ranked: signed scores or their abs", choices=tuple(SCORE_TRANSFORMS)
    )
    weight_distribution: str = option("signed_constant", "of the random kernels", choices=distributions.NAMES)
    weight_scale: float = option(1.0, "factor on the random kernels", above=0)
    score_distribution: str = option("kaiming_uniform", "of the first scores", choices=distributions.NAMES)
    score_scale: float = option(1.0, "factor on the first scores", above=0)
    rerandomization_period: int = option(300, "steps between two re-randomizations (K_per); 0: never", minimum=0)
    rerandomization_rate: float = option(0.1, "probability that a pruned entry is re-drawn (r)", minimum=0, maximum=1)


@dataclasses.dataclass(frozen=True)
class TrainingConfig(_Options):
    """How long and with what steps."""

    epochs: int = option(30, "passes over the training data; 0: export the untrained network", minimum=0)
    optimizer: str = option("sgd", "sgd (with coupled L2) or adamw", choices=optimization.OPTIMIZERS)
    learning_rate: float = option(0.1, "the highest learning rate", above=0)
    momentum: float = option(0.9, "of sgd", minimum=0, below=1)
    weight_decay: float = option(1e-4, "L2 factor of sgd, weight decay of adamw", minimum=0)
    lr_schedule: str = option("cosine", "learning rate over the steps", choices=optimization.LR_SCHEDULES)
    warmup_epochs: int = option(0, "epochs of linear growth, cosine only", minimum=0)
    finetune_epochs: int = option(
        0, f"last epochs at a learning rate of {optimization.FINETUNE_LEARNING_RATE:g}, cosine only", minimum=0
    )
    seed: int = option(0, "seed of every draw", minimum=0, below=2**31)
    deterministic: bool = option(False, "the same bits in every run, at some cost in speed")
    precision: str = option("float32", "of the computation; scores stay float32", choices=PRECISIONS)
    jit_compile: str = option("auto", "compile the training step with XLA", choices=("auto", "true", "false"))
    steps_per_execution: int = option(1, "steps in one call of the training function", minimum=1)

    def __post_init__(self):
        super().__post_init__()
        if self.epochs and self.warmup_epochs + self.finetune_epochs >= self.epochs:
            raise UserError(
                f"--epochs={self.epochs} must be above --warmup_epochs + --finetune_epochs, "
                f"{self.warmup_epochs} + {self.finetune_epochs}."
            )
        if self.lr_schedule != "cosine" and self.warmup_epochs + self.finetune_epochs:
            raise UserError("--warmup_epochs and --finetune_epochs go with --lr_schedule=cosine only.")


@dataclasses.dataclass(frozen=True)
class RunConfig(_Options):
    """Where it is kept."""

    model_dir: str = option("", "checkpoints, metrics and results; empty: a new directory below runs/")
    resume: bool = option(False, "continue the run in --model_dir at its last checkpoint")
    checkpoint_steps: int = option(0, "steps between checkpoints inside an epoch; 0: at its end only", minimum=0)
    max_checkpoints: int = option(2, "keep so many of the newest", minimum=1)
    strategy: str = option("auto", "devices and workers to train on", choices=STRATEGIES)
    virtual_devices: int = option(0, "split the CPU into so many devices, to try --strategy=mirrored", minimum=0)


@dataclasses.dataclass(frozen=True)
class ExportConfig(_Options):
    """What is shipped."""

    export_dir: str = option("", "write EXPORT_DIR/VERSION, a SavedModel, after training; empty: none")
    export_format: str = option(
        "packed",
        "packed: entropy-coded kernels; dense: for converters; tflite; several, comma-separated, go to "
        "EXPORT_DIR/FORMAT/VERSION",
    )
    export_checkpoint: str = option("best", "the network to export", choices=("best", "last"))
    export_kernel_dtype: str = option(
        "float32", "of packed values where a kernel has many; others than float32 round them", choices=KERNEL_DTYPES
    )
    tflite_int8: bool = option(False, "quantize tflite to integers throughout, calibrated on validation images")

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


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything a run is a function of, and where it is kept.

    >>> Config().method.sparsity
    0.5
    """

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    method: MethodConfig = MethodConfig()
    training: TrainingConfig = TrainingConfig()
    run: RunConfig = RunConfig()
    export: ExportConfig = ExportConfig()

    def __post_init__(self):
        if self.training.deterministic and self.data.augmentation in KERAS_CV_POLICIES:
            raise UserError(
                f"--augmentation={self.data.augmentation} draws from keras_cv's own generators, which --deterministic "
                "cannot repeat; choose none or crop_flip."
            )
        if self.run.virtual_devices and self.run.strategy not in ("auto", "mirrored"):
            raise UserError(f"--virtual_devices goes with --strategy=mirrored, not with {self.run.strategy}.")

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """Packs a flat dictionary, which holds each option once, into the nested dataclasses.

        Raises:
            UserError: if a value is out of range.
        """
        parts = {}
        for part, fields in option_fields().items():
            group = type(getattr(cls, part))
            parts[part] = group(**{field.name: values[field.name] for field in fields})
        return cls(**parts)


def option_fields() -> dict[str, tuple[dataclasses.Field, ...]]:
    """The option fields of each part of `Config`, by the part's name.

    >>> [field.name for field in option_fields()["model"]]
    ['model', 'width_factor', 'batch_normalization', 'synchronized_batch_normalization']
    """
    return {part.name: dataclasses.fields(getattr(Config, part.name)) for part in dataclasses.fields(Config)}
