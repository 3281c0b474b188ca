"""What an exported directory holds.

python -m export.inspect EXPORT_DIR/VERSION
"""

import gzip
import json
import math
import os
import pathlib
import sys

import tensorflow as tf

from export.serving_extras import DIRECTORY, RECORD
from iterand_tf.text_table import text_table


def inspect(path: str | os.PathLike) -> str:
    """A table of the kernels in a directory that this project has exported, and the sizes.

    For each kernel: shape, sparsity (fraction of zeros), coding and bits a weight as stored, the entropy in bits a
    weight of its values and of what its packed coding stores, and how many draws it is drawn again from. The sizes are
    those of the directory, and of all kernels dense, dense under gzip, and packed.

    Args:
        path: the version's directory.

    Raises:
        ValueError: if this project has not written it.

    Example:

    >>> import tempfile, keras, export, iterand_tf
    >>> model = keras.Sequential([keras.Input((64,)), iterand_tf.SubnetDense(10, name="head")])
    >>> print(inspect(export.export_saved_model(model, tempfile.mkdtemp()).path).splitlines()[1].split()[:4])
    ['head/kernel', '64x10', '0.5000', 'symbols']
    """
    path = pathlib.Path(path)
    record = path / DIRECTORY / RECORD
    if not record.is_file():
        raise ValueError(
            f"{path} holds no {DIRECTORY}/{RECORD}; give EXPORT_DIR/VERSION of an export of this project, or "
            "of one in several formats EXPORT_DIR/FORMAT/VERSION"
        )
    contents = json.loads(record.read_text(encoding="utf-8"))
    kernels = contents["kernels"]
    rows = [("kernel", "shape", "sparsity", "coding", "bits/weight", "entropy", "coded", "draws")]
    for kernel in kernels:
        coding = kernel["coding"] if contents["format"] == "packed" else contents["format"]
        rows.append(_row(kernel["name"], "x".join(map(str, kernel["shape"])), coding, [kernel]))
    weights = sum(map(_size, kernels))
    rows.append(_row("total", f"{weights:,}", "", kernels))
    directory = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    packed = sum(kernel["packed_bytes"] for kernel in kernels)
    zipped = f"dense under gzip {_gzip_size(path):,}, " if (path / "saved_model.pb").exists() else ""
    sizes = f"directory {directory:,} bytes; all kernels dense {4 * weights:,}, {zipped}packed {packed:,}"
    return f"{text_table(rows)}\n{sizes}"


def _row(name, shape, coding, kernels):
    size = max(sum(map(_size, kernels)), 1)
    zeros, stored, entropy, coded = (
        sum(kernel[field] for kernel in kernels)
        for field in ("num_zeros", "stored_bytes", "entropy_bits", "coded_entropy_bits")
    )
    bits = (f"{number / size:.4f}" for number in (8 * stored, entropy, coded))
    return name, shape, f"{zeros / size:.4f}", coding, *bits, str(max(kernel["draws"] for kernel in kernels))


def _size(kernel):
    return math.prod(kernel["shape"])


def _gzip_size(path):
    kernels = tf.saved_model.load(str(path)).kernels
    return len(gzip.compress(b"".join(kernel.numpy().tobytes() for kernel in kernels)))


def main(arguments: list[str]) -> int:
    """Prints the report of the directory that is named; returns the exit code, 1 for bad arguments."""
    try:
        if len(arguments) != 1:
            raise ValueError("give one directory: python -m export.inspect EXPORT_DIR/VERSION")
        print(inspect(arguments[0]))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyError, tf.errors.OpError) as error:
        print(f"error: {arguments[0]} is damaged ({type(error).__name__}); export it anew", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
