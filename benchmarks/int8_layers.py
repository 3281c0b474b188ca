"""Where an int8 file of TensorFlow Lite spends its time: 64 images up to each layer, against TensorFlow.

    python benchmarks/int8_layers.py

The network is Conv6 x0.25. Each line is a file of its own, of the network that ends there; both sides take turns. A
layer's own time is what its line has more than the one before. A network that ends early gives more than logits, so its
line is a little too long.
"""

import pathlib
import tempfile

import environment  # noqa: F401
import keras
import numpy as np
import tensorflow as tf
from serving import CALIBRATION, signature
from sides import duration_text, quartiles, take_turns

from export import bake, export_saved_model
from iterand_tf import Supermask, models
from iterand_tf.text_table import text_table

BATCH_SIZE = 64
ENDS = (keras.layers.Conv2D, keras.layers.MaxPooling2D, keras.layers.Dense)


def main():
    layers = bake(models.build("conv6", (32, 32, 3), 10, models.SubnetFactory(Supermask(0.5)), 0.25)).layers[1:]
    images = np.random.default_rng(0).integers(0, 256, (CALIBRATION, 32, 32, 3)).astype(np.float32)
    before = dict.fromkeys(("TensorFlow", "LiteRT int8"), 0.0)
    rows = [("up to", "int8", "TensorFlow", "ratio", "layer in int8", "in TensorFlow")]
    for number, layer in enumerate(layers, 1):
        if not isinstance(layer, ENDS):
            continue
        with tempfile.TemporaryDirectory() as directory:
            sides = sides_of(
                keras.Sequential([keras.Input((32, 32, 3)), *layers[:number]]), pathlib.Path(directory), images
            )
            seconds = take_turns(sides, rounds=15, warmup=3)
        medians = {side: quartiles(values)[1] for side, values in seconds.items()}
        int8, dense = medians["LiteRT int8"], medians["TensorFlow"]
        own = [duration_text(max(0.0, medians[side] - before[side])) for side in ("LiteRT int8", "TensorFlow")]
        rows.append((layer.name, duration_text(int8), duration_text(dense), f"{dense / int8:.2f}", *own))
        before = medians
    print(text_table(rows))


def sides_of(network, directory, images):
    """A call of the int8 file and one of the dense SavedModel."""
    exported = export_saved_model(network, directory, ["dense", "tflite"], sample=images, tflite_int8=True)
    lite, loaded = signature(exported["tflite"].path / "model.tflite"), tf.saved_model.load(exported["dense"].path)
    batch = images[:BATCH_SIZE]
    rounded, whole = batch.astype(np.uint8), tf.constant(batch)
    dense = loaded.signatures["serving_default"]
    (name,) = lite.get_input_details()
    return {"TensorFlow": lambda: dense(**{name: whole}), "LiteRT int8": lambda: lite(**{name: rounded})}


if __name__ == "__main__":
    main()
