"""What an exported directory holds.

python -m export.inspect EXPORT_DIR/VERSION
"""

import gzip
import os
import pathlib
import sys

import tensorflow as tf

from export.entropy import kernel_entropy_bits
from export.pack import encode


def inspect(path: str | os.PathLike) -> str:
    """A table of the kernels of a packed or dense SavedModel of this project, and the sizes.

    For each kernel: shape, sparsity (fraction of zeros), coding and bits a weight as stored, and the entropy in bits a
    weight. The sizes are those of the directory, and of all kernels dense, dense under gzip, and packed.

    Args:
        path: the version's directory.

    Raises:
        ValueError: if it is not a SavedModel that this project wrote.

    >>> import tempfile, keras, export, iterand_tf
    >>> model = keras.Sequential([keras.Input((64,)), iterand_tf.SubnetDense(10, name="head")])
    >>> print(inspect(export.export_saved_model(model, tempfile.mkdtemp()).path).splitlines()[1].split()[:4])
    ['head/kernel', '64x10', '0.5000', 'symbols']
    """
    path = pathlib.Path(path)
    if not (path / "saved_model.pb").is_file():
        raise ValueError(f"{path} holds no saved_model.pb; give EXPORT_DIR/VERSION")
    loaded = tf.saved_model.load(str(path))
    packed_format = hasattr(loaded, "unpacked")
    if not packed_format and not hasattr(loaded, "parameters"):
        raise ValueError(f"{path} is a SavedModel of another origin; give one that this project has exported")
    variables = loaded.unpacked if packed_format else [v for group in loaded.parameters for v in group]
    kernels = {v.name.removesuffix(":0"): v.numpy() for v in variables if v.name.endswith("kernel:0")}
    lines = [f"{'kernel':<32} {'shape':<16} {'sparsity':>8} {'coding':>8} {'bits/weight':>11} {'entropy':>8}"]
    total_bits = total_entropy = 0.0
    for name, kernel in kernels.items():
        packed = encode(kernel)
        coding = packed.coding if packed_format else "dense"
        bits = 8 * (packed.num_bytes if packed_format else kernel.nbytes)
        entropy = kernel_entropy_bits(kernel)
        total_bits, total_entropy = total_bits + bits, total_entropy + entropy
        size = max(kernel.size, 1)
        lines.append(
            f"{name:<32} {'x'.join(map(str, kernel.shape)):<16} {(kernel == 0).mean():8.4f} {coding:>8} "
            f"{bits / size:11.4f} {entropy / size:8.4f}"
        )
    weights = sum(kernel.size for kernel in kernels.values())
    dense = b"".join(kernel.tobytes() for kernel in kernels.values())
    removed = sum(int((kernel == 0).sum()) for kernel in kernels.values())
    lines.append(
        f"{'total':<32} {weights:<16,} {removed / max(weights, 1):8.4f} {'':>8} "
        f"{total_bits / max(weights, 1):11.4f} {total_entropy / max(weights, 1):8.4f}"
    )
    directory = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    packed_bytes = sum(encode(kernel).num_bytes for kernel in kernels.values())
    lines.append(
        f"directory {directory:,} bytes; all kernels dense {len(dense):,}, dense under gzip "
        f"{len(gzip.compress(dense)):,}, packed {packed_bytes:,}"
    )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Prints the report of the directory that is named; returns the exit code, 1 for bad arguments."""
    try:
        if len(arguments) != 1:
            raise ValueError("give one directory: python -m export.inspect EXPORT_DIR/VERSION")
        print(inspect(arguments[0]))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
