"""A small vision transformer, converted: it reads each digit of scikit-learn as 16 patches of 2x2 pixels.

PYTHONPATH=. python examples/vision_transformer_digits.py
"""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import iterand_tf


def vision_transformer(num_blocks=2, width=64):
    """A stock Keras model, which knows nothing of subnetworks."""
    patches = keras.Input((16, 4))
    positions = keras.layers.Embedding(16, width, name="positions")(keras.ops.arange(16))
    x = keras.layers.Dense(width, name="patches")(patches) + positions
    for block in range(num_blocks):
        normalized = keras.layers.LayerNormalization(name=f"block{block}_norm1")(x)
        x += keras.layers.MultiHeadAttention(4, width // 4, name=f"block{block}_attention")(normalized, normalized)
        hidden = keras.layers.LayerNormalization(name=f"block{block}_norm2")(x)
        hidden = keras.layers.Dense(2 * width, activation="gelu", name=f"block{block}_hidden")(hidden)
        x += keras.layers.Dense(width, name=f"block{block}_output")(hidden)
    x = keras.layers.Flatten()(keras.layers.LayerNormalization(name="norm")(x))
    return keras.Model(patches, keras.layers.Dense(10, name="head")(x))


def main():
    keras.utils.set_random_seed(0)
    digits = load_digits()
    patches = (digits.images / 16).reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 16, 4)
    patches = patches.astype(np.float32)
    parts = train_test_split(patches, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
    train_patches, test_patches, train_labels, test_labels = parts

    model = iterand_tf.to_subnet(vision_transformer(), sparsity=0.5, seed=0)
    epochs, batch_size = 20, 64
    steps = epochs * (len(train_patches) // batch_size + 1)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, steps))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    callbacks = [iterand_tf.Rerandomize(period=50, rate=0.1)]
    model.fit(train_patches, train_labels, batch_size, epochs, verbose=0, callbacks=callbacks)

    print(iterand_tf.sparsity_report(model).total)
    accuracy = model.evaluate(test_patches, test_labels, verbose=0, return_dict=True)["accuracy"]
    print(f"test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
