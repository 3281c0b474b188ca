"""An LSTM whose kernels are never trained: it reads each digit of scikit-learn as a sequence of 8 rows.

PYTHONPATH=. python examples/lstm_digits.py
"""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import iterand_tf


def main():
    keras.utils.set_random_seed(0)
    digits = load_digits()
    parts = train_test_split(digits.images / 16, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
    train_images, test_images, train_labels, test_labels = parts

    method = iterand_tf.Supermask(weight_distribution="kaiming_uniform")
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            iterand_tf.Subnet(keras.layers.LSTM(128), method=method, seed=0),
            iterand_tf.SubnetDense(10, sparsity=0.5, seed=0),
        ]
    )
    epochs, batch_size = 40, 64
    steps = epochs * (len(train_images) // batch_size + 1)
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(1.0, steps), momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    callbacks = [iterand_tf.Rerandomize(period=50, rate=0.1)]
    model.fit(train_images, train_labels, batch_size, epochs, verbose=0, callbacks=callbacks)

    print(iterand_tf.sparsity_report(model))
    accuracy = model.evaluate(test_images, test_labels, verbose=0, return_dict=True)["accuracy"]
    print(f"test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
