"""MobileNetV2 of keras.applications, converted and trained on scikit-learn's digits as colour images.

PYTHONPATH=. python examples/mobilenet_v2_digits.py
"""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import iterand_tf
from export import bake


def main():
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = np.repeat(digits.images[..., None] / 8 - 1, 3, axis=-1).repeat(4, axis=1).repeat(4, axis=2)
    parts = train_test_split(images, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
    train_images, test_images, train_labels, test_labels = parts

    network = keras.applications.MobileNetV2(
        weights=None, classes=10, input_shape=(32, 32, 3), alpha=0.35, classifier_activation=None
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # The network's own 0.999 is for thousands of steps; here are 138.
            layer.momentum = 0.9
    model = iterand_tf.to_subnet(network, sparsity=0.5, seed=0)
    epochs, batch_size = 6, 64
    steps = epochs * (len(train_images) // batch_size + 1)
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, steps), momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    callbacks = [iterand_tf.Rerandomize(period=50, rate=0.1)]
    history = model.fit(train_images, train_labels, batch_size, epochs, verbose=0, callbacks=callbacks).history

    print(f"loss {history['loss'][0]:.3f} in the first epoch, {history['loss'][-1]:.3f} in the last")
    accuracy = model.evaluate(test_images, test_labels, verbose=0, return_dict=True)["accuracy"]
    print(f"test accuracy {accuracy:.3f}")
    difference = np.abs(bake(model).predict(test_images, verbose=0) - model.predict(test_images, verbose=0)).max()
    print(f"the model of stock layers answers alike: {difference:.1e} at most between logits")


if __name__ == "__main__":
    main()
