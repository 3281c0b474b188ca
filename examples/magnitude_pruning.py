"""A network is trained, and then pruned to 80 % of zeros while it is trained on, by tfmot's PolynomialDecay.

PYTHONPATH=. python examples/magnitude_pruning.py
"""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import tensorflow_model_optimization as tfmot
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import iterand_tf
from export import bake


def main():
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = digits.images[..., None] / 16
    parts = train_test_split(images, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
    train_images, test_images, train_labels, test_labels = parts

    def fit(model, epochs, callbacks=()):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
        model.fit(train_images, train_labels, 64, epochs, verbose=0, callbacks=list(callbacks))
        return model.evaluate(test_images, test_labels, verbose=0, return_dict=True)["accuracy"]

    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            keras.layers.Dense(10, name="head"),
        ]
    )
    print(f"trained: test accuracy {fit(network, epochs=15):.3f}")

    model = iterand_tf.prune(network, 0.8)
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=200, frequency=10)
    accuracy = fit(model, epochs=15, callbacks=[iterand_tf.SparsityScheduler(schedule)])
    print(iterand_tf.sparsity_report(model))
    print(f"pruned: test accuracy {accuracy:.3f}")

    # Stock layers again, with zeros in their kernels.
    stock = bake(model)
    print(", ".join(f"{layer.name}: {type(layer).__name__}" for layer in stock.layers))


if __name__ == "__main__":
    main()
