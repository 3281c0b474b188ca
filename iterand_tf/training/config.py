"""The configuration of a run: frozen dataclasses, one field for each flag.

A field has its default, its line of help and its range; cli.py defines one flag from each. The defaults train IteRand
on the bundled digits.
"""

import dataclasses
from typing import Any, Self

from iterand_tf import models, optimization
from iterand_tf.checks import ArgumentError, Options, option
from iterand_tf.data import AUGMENTATIONS, KERAS_CV_POLICIES
from iterand_tf.errors import UserError
from iterand_tf.masks import GLOBAL, parse_nm
from iterand_tf.methods import MagnitudePruning, Method, RandomPruning, Supermask
from iterand_tf.models.factories import head_sparsity_option
from iterand_tf.rerandomization import MODES
from iterand_tf.training.free_options import ExportConfig, RunConfig, free_option

# The methods that train kernels under masks.
PRUNING: dict[str, type[Method]] = {"magnitude_pruning": MagnitudePruning, "random_pruning": RandomPruning}
METHODS = ("dense", "edge_popup", "iterand", *PRUNING)
_SUPERMASK = Supermask()
SPARSITY_SCHEDULES = ("constant", "polynomial")
RERANDOMIZATION_SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class DataConfig(Options):
    """What to train and test on."""

    dataset: str = option(
        "digits",
        "train and test on this dataset: digits (bundled with scikit-learn), the name of a TFDS image classification "
        "dataset, or folder:PATH",
    )
    data_dir: str = free_option(
        "", "read TFDS datasets below this directory; empty: TFDS_DATA_DIR or else TFDS's default"
    )
    validation_split: float = option(
        0.1,
        "hold out this fraction of the training data, chosen by --seed, to validate on; a validation part that the "
        "dataset brings beside its test part is used instead",
        minimum=0,
        below=1,
    )
    test_split: float = option(
        0.2, "where the dataset brings no test part, hold out this fraction of each class to test on", above=0, below=1
    )
    max_train_examples: int = option(0, "train on so many of the examples only; 0: on all", minimum=0)
    image_size: int = option(
        0,
        "resize images to a square of so many pixels; 0: keep the dataset's own size, or 224 if sizes differ",
        minimum=0,
    )
    augmentation: str = option("none", "change training images at random in this way", choices=AUGMENTATIONS)
    batch_size: int = option(128, "use so many examples in a training step, all devices together", minimum=1)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Options):
    """Which network."""

    model: str = option("conv2", "build this network", choices=models.NAMES)
    width_factor: float = option(1.0, "multiply the network's widths by this factor", above=0, maximum=64)
    batch_normalization: bool = option(
        False, "normalize after each layer of conv2 to conv8, which the papers run without it; resnets always do"
    )
    batch_normalization_gains: bool = option(
        False, "train BatchNormalization's scales and centers with edge_popup and iterand too; the papers have none"
    )
    synchronized_batch_normalization: bool = option(
        False, "take BatchNormalization's statistics over all devices; without it each device has its own"
    )


@dataclasses.dataclass(frozen=True)
class MethodConfig(Options):
    """How its weights come about."""

    method: str = option(
        "iterand",
        "train all weights (dense), choose among random ones (edge_popup), choose and re-draw (iterand), or train the "
        "weights and keep the largest (magnitude_pruning) or random ones (random_pruning)",
        choices=METHODS,
    )
    head_sparsity: float | None = head_sparsity_option()
    initial_model: str = option(
        "",
        "begin with the network in this .keras file instead of one of --model, with magnitude_pruning and "
        "random_pruning",
    )
    sparsity_schedule: str = option(
        "constant",
        "keep --sparsity throughout (constant), or raise the sparsity to it from --initial_sparsity between "
        "--sparsity_begin_step and --sparsity_end_step (polynomial: tfmot's PolynomialDecay)",
        choices=SPARSITY_SCHEDULES,
    )
    initial_sparsity: float = option(
        0.0, "begin with this sparsity, with --sparsity_schedule=polynomial", minimum=0, below=1
    )
    sparsity_begin_step: int = option(0, "begin to prune after so many steps, with polynomial", minimum=0)
    sparsity_end_step: int = option(
        0, "reach --sparsity after so many steps, with polynomial; 0: after three quarters of the run", minimum=0
    )
    sparsity_frequency: int = option(
        100,
        "prune after every so many steps, with polynomial; rank kernels together as often, with --mask=global",
        minimum=1,
    )
    rerandomization_period: int = option(
        300, "re-draw pruned entries after every so many steps (K_per in the paper); 0: never", minimum=0
    )
    rerandomization_rate: float = option(
        0.1, "re-draw each pruned entry with this probability (r in the paper)", minimum=0, maximum=1
    )
    rerandomization_schedule: str = option(
        "constant",
        "keep the rate throughout (constant), or lower it to 0 until --rerandomization_last_step (linear, cosine)",
        choices=RERANDOMIZATION_SCHEDULES,
    )
    rerandomization_last_step: int = option(0, "re-draw nothing after this step; 0: until the end", minimum=0)
    rerandomization_mode: str = option(
        "draw",
        "re-draw entries to new values (draw), to a mean of old and new value (blend), or to values of kept "
        "entries (recycle)",
        choices=tuple(MODES),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.initial_model and self.method not in PRUNING:
            raise UserError(f"--initial_model goes with {' and '.join(PRUNING)}, not with {self.method}.")
        if self.sparsity_schedule == "constant":
            return
        if self.method == "dense":
            raise UserError("--sparsity_schedule=polynomial does not go with --method=dense.")
        if self.head_sparsity is not None:
            raise UserError(
                "--sparsity_schedule=polynomial sets one sparsity for all layers; leave --head_sparsity out."
            )


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Options):
    """How long and with what steps."""

    epochs: int = option(
        30, "pass over the training data so often; 0: train nothing, to export the first network", minimum=0
    )
    optimizer: str = option(
        "sgd", "train with sgd (L2 goes through the momentum) or adamw", choices=optimization.OPTIMIZERS
    )
    learning_rate: float = option(
        0.1, "begin with this learning rate, or reach it after --warmup_epochs; --lr_schedule lowers it", above=0
    )
    momentum: float = option(0.9, "keep this fraction of the step before in each step of sgd", minimum=0, below=1)
    weight_decay: float = option(
        1e-4,
        "shrink what is trained by this factor: as an L2 term in the gradient with sgd, apart from it with adamw",
        minimum=0,
    )
    lr_schedule: str = option(
        "cosine", "lower the learning rate over the run in this way", choices=optimization.LR_SCHEDULES
    )
    warmup_epochs: int = option(
        0, "raise the learning rate from 0 during the first epochs, with --lr_schedule=cosine", minimum=0
    )
    finetune_epochs: int = option(
        0,
        f"keep the learning rate at {optimization.FINETUNE_LEARNING_RATE:g} during the last epochs, with cosine",
        minimum=0,
    )
    seed: int = option(0, "derive every random draw of the run from this number", minimum=0, below=2**31)
    deterministic: bool = option(False, "make the run give the same bits each time, at some cost in speed")
    precision: str = option("float32", "compute in this precision; scores and kernels stay float32", choices=PRECISIONS)
    jit_compile: str = option(
        "auto", "compile the training step with XLA; auto: on one GPU only", choices=("auto", "true", "false")
    )
    steps_per_execution: int = option(1, "run so many steps in one call of the training function", minimum=1)

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
class Config:
    """Everything a run is a function of, and where it is kept."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    method: MethodConfig = MethodConfig()
    supermask: Supermask = _SUPERMASK
    training: TrainingConfig = TrainingConfig()
    run: RunConfig = RunConfig()
    export: ExportConfig = ExportConfig()

    def __post_init__(self):
        self._check_masks()
        if self.training.deterministic and self.data.augmentation in KERAS_CV_POLICIES:
            raise UserError(
                f"--augmentation={self.data.augmentation} draws from keras_cv's own generators, which --deterministic "
                "cannot repeat; choose none or crop_flip."
            )
        if self.run.virtual_devices and self.run.strategy not in ("auto", "mirrored"):
            raise UserError(f"--virtual_devices goes with --strategy=mirrored, not with {self.run.strategy}.")
        exported = self.export.export_format.split(",") if self.export.export_dir else []
        for name in ("tflite", "onnx"):
            if name in exported and self.training.precision == "mixed_bfloat16":
                raise UserError(
                    f"--export_format={name} has no bfloat16; train with --precision=float32, or export another format."
                )

    @property
    def mask_method(self) -> Method | None:
        """The method object of the run's layers; None for the method dense."""
        if self.method.method == "dense":
            return None
        if self.method.method not in PRUNING:
            return self.supermask
        options = self.supermask
        return PRUNING[self.method.method](options.sparsity, options.mask, options.min_per_channel)

    def _check_masks(self):
        method, masks = self.method, self.supermask
        if method.method in PRUNING:
            for name in ("binarize", "score_transform", "score_distribution"):
                if getattr(masks, name) != getattr(Supermask, name):
                    raise UserError(f"--{name} only works with frozen kernels, not with --method={method.method}.")
        if masks.mask == GLOBAL and method.head_sparsity is not None:
            raise UserError("--head_sparsity does not go with --mask=global, which ranks all kernels together.")
        if method.sparsity_schedule != "constant":
            least = method.initial_sparsity
            if least > masks.sparsity:
                raise UserError(
                    f"--initial_sparsity={least} must be at most --sparsity={masks.sparsity}: a schedule never lowers "
                    "the sparsity."
                )
            if parse_nm(masks.mask):
                raise UserError("--sparsity_schedule=polynomial does not go with N:M masks.")

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """Packs a flat dictionary, which holds each option once, into the nested dataclasses."""
        parts = {}
        for part, fields in option_fields().items():
            group = type(getattr(cls, part))
            try:
                parts[part] = group(**{field.name: values[field.name] for field in fields})
            except ArgumentError as error:
                raise flag_error(error) from error
        return cls(**parts)


def flag_error(error: ArgumentError) -> UserError:
    """What an error of an argument means to those who gave it as a flag."""
    return UserError(f"--{error.name} must be {error.wanted}, not {error.received!r}.")


def option_fields() -> dict[str, tuple[dataclasses.Field, ...]]:
    """The option fields of each part of `Config`, by the part's name."""
    return {part.name: dataclasses.fields(getattr(Config, part.name)) for part in dataclasses.fields(Config)}
