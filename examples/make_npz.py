"""Writes an .npz of images and labels for examples/train_with_jax.py, where TensorFlow is installed.

PYTHONPATH=. python examples/make_npz.py --dataset=digits --out=digits.npz
PYTHONPATH=. python examples/make_npz.py --dataset=cifar10 --data_dir=TFDS_ROOT --out=cifar10.npz
"""

import argparse

import numpy as np

from iterand_tf import data


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", help="digits, a TFDS name or folder:PATH, as of main.py")
    parser.add_argument("--data_dir", default="", help="TFDS root")
    parser.add_argument("--image_size", type=int, default=0, help="resize to so many pixels; 0: the dataset's own")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()

    splits = data.load(args.dataset, args.data_dir, 0.0, 0, args.image_size, 0, 0.2)
    arrays = {}
    for name, part in (("train", splits.train), ("test", splits.test)):
        batches = [(np.asarray(images), np.asarray(labels)) for images, labels in part.evaluation_batches(1000)]
        images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        arrays[f"{name}_images"] = np.clip(np.rint(images), 0, 255).astype(np.uint8)
        arrays[f"{name}_labels"] = labels.argmax(axis=-1).astype(np.int32)
    np.savez(args.out, **arrays)
    print(", ".join(f"{name} {array.shape}" for name, array in arrays.items()))


if __name__ == "__main__":
    main()
