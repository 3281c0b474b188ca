"""TensorFlow Lite files of a dense SavedModel: float32, or integers throughout."""

import pathlib
import warnings

import numpy as np
import tensorflow as tf

from iterand_tf.errors import ExportError, first_line


def to_tflite(dense: pathlib.Path, calibration: dict[str, np.ndarray] | None = None) -> bytes:
    """The contents of a TensorFlow Lite file of a dense SavedModel's `serving_default`.

    Args:
        calibration: a batch of inputs by name that represents what will be served: weights, activations and outputs
            become int8 and inputs uint8, with ranges taken from it; pixels that span 0-255 so stay what they are. None
            for float32. Kernels are quantized by output channel, so that ternary ones lose nothing.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(dense), signature_keys=["serving_default"])
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            {name: values[i : i + 1] for name, values in calibration.items()}
            for i in range(min(map(len, calibration.values())))
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.int8
    try:
        # The converter itself uses an interpreter that warns.
        with warnings.catch_warnings(action="ignore"):
            return converter.convert()
    except Exception as error:
        raise ExportError(
            f"TensorFlow Lite cannot express this network ({first_line(error)}); export another format."
        ) from error
