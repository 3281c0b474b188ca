"""What one export writes, format by format, and the gate: what is served must be what was trained."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from export import onnx, serving_extras, tflite
from export import served_outputs as served_outputs_lib
from export.entropy import kernel_entropy_bits
from export.interface import Interface
from export.network import Network
from export.pack import DTYPES, PackedKernel
from export.saved_model import write_saved_model
from export.versions import being_written
from iterand_tf.errors import ExportError

# The largest difference of outputs, relative to the largest output. After quantization it is to find what is broken,
# not to vouch for accuracy.
TOLERANCE = 1e-4
INT8_TOLERANCE = 0.25


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What is written, whatever the format."""

    network: Network
    packed: list[PackedKernel]
    rounded: Network
    interface: Interface
    decode: Callable[[tf.Tensor], tf.Tensor] | None
    labels: Sequence[str]
    flags: str
    sample: dict[str, np.ndarray]
    trained: dict[str, np.ndarray]
    tflite_int8: bool

    @functools.cached_property
    def encoded_image(self) -> bytes:
        """A PNG of noise, to try `serve_jpeg` with."""
        last = next(iter(self.sample.values())).shape[-1]
        channels = last if last in (1, 3) else 3
        noise = np.random.default_rng(0).integers(0, 256, (40, 30, channels), np.uint8)
        return tf.io.encode_png(noise).numpy()

    @property
    def num_weights(self) -> int:
        return sum(kernel.values.size for kernel in self.network.kernels)

    @functools.cached_property
    def entropies(self) -> list[float]:
        """Bits of information in the values of each kernel."""
        return [
            kernel_entropy_bits(kernel.values, np.dtype(DTYPES[packed.dtype]).itemsize)
            for kernel, packed in zip(self.rounded.kernels, self.packed, strict=True)
        ]

    def write(self, name: str, path: pathlib.Path) -> int:
        """Writes one format to a directory that does not exist yet; returns the size of the kernels in it."""
        if name in ("tflite", "onnx"):
            with tempfile.TemporaryDirectory() as directory:
                dense = pathlib.Path(directory)
                write_saved_model(self.network, dense, self.interface)
                calibration = self.sample if self.tflite_int8 else None
                contents = onnx.to_onnx(dense) if name == "onnx" else tflite.to_tflite(dense, calibration)
            with being_written(path):
                path.mkdir(parents=True)
                (path / f"model.{name}").write_bytes(contents)
        else:
            network, packed = (self.rounded, self.packed) if name == "packed" else (self.network, None)
            write_saved_model(network, path, self.interface, packed, self.decode, self.labels)
        records = self._records(name)
        with being_written(path):
            serving_extras.write_record(path, name, self.flags, records)
            if name in ("packed", "dense"):
                serving_extras.write_warmup(path, self.sample)
        return sum(record["stored_bytes"] for record in records)

    def _records(self, name):
        """What export.json says of each kernel."""
        value_bytes = 1 if name == "tflite" and self.tflite_int8 else 4
        return [
            {
                "name": kernel.name,
                "shape": kernel.values.shape,
                "num_zeros": int(np.sum(kernel.values == 0)),
                "coding": packed.coding,
                "draws": packed.num_draws,
                "packed_bytes": packed.num_bytes,
                "stored_bytes": packed.num_bytes if name == "packed" else value_bytes * kernel.values.size,
                "entropy_bits": entropy,
                "coded_entropy_bits": packed.entropy_bits,
            }
            for kernel, packed, entropy in zip(self.network.kernels, self.packed, self.entropies, strict=True)
        ]

    def compare(self, name: str, served: dict[str, dict[str, np.ndarray]]) -> float:
        """The largest difference of what is served from the trained model; ExportError if an output is too far off.

        After rounding, the outputs that must be close are those of the rounded network.
        """
        tolerance = INT8_TOLERANCE if name == "tflite" and self.tflite_int8 else TOLERANCE
        network = self.rounded if name == "packed" else self.network
        expected = self.trained if network is self.network else self.own_outputs(network, self.sample)
        compare_outputs(served["sample"], expected, tolerance)
        if "encoded" in served and self.decode is not None:
            image = np.asarray(self.decode(self.encoded_image))[np.newaxis]
            compare_outputs(served["encoded"], self.own_outputs(network, dict.fromkeys(self.sample, image)), tolerance)
        return largest_difference(served["sample"], self.trained)

    def own_outputs(self, network: Network, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A network's answers by name."""
        outputs = network.own_outputs(self.interface.structured(inputs))
        return {name: np.asarray(output) for name, output in self.interface.named(outputs).items()}


def served_outputs(
    path: pathlib.Path, sample: dict[str, np.ndarray], encoded: bytes
) -> dict[str, dict[str, np.ndarray]]:
    """What a fresh process gets from the written directory, see `export.served_outputs`."""
    with tempfile.TemporaryDirectory() as directory:
        inputs, image, outputs = (pathlib.Path(directory, name) for name in ("inputs.npz", "image.png", "outputs.npz"))
        np.savez(inputs, **sample)  # type: ignore[arg-type]
        image.write_bytes(encoded)
        command = [sys.executable, "-P", served_outputs_lib.__file__, *map(str, (path, inputs, image, outputs))]
        # This process may hold all memory of the GPUs.
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
        try:
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ExportError(
                f"the process that reloads the export could not be started ({error}); not exported."
            ) from error
        if result.returncode < 0:
            raise ExportError(
                f"the process that reloads the export was ended by the signal {-result.returncode}; not exported."
            )
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
            raise ExportError(f"what was written does not load in a fresh process ({reason}); not exported.")
        results: dict[str, dict[str, np.ndarray]] = {}
        with np.load(outputs) as archive:
            for key, values in archive.items():
                what, _, name = key.partition("/")
                results.setdefault(what, {})[name] = values
        return results


def compare_outputs(
    served: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = TOLERANCE
) -> None:
    """Raises ExportError when an expected output differs by more than this part of its largest value."""
    for name, values in expected.items():
        difference = largest_difference({name: served[name]}, {name: values})
        if not difference <= tolerance * float(np.max(np.abs(values), initial=0)):
            raise ExportError(
                f"the reloaded outputs differ from the trained model's by up to {difference:g} in {name}; not exported."
            )


def largest_difference(served: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest difference of all outputs that are expected."""
    return max(
        float(np.max(np.abs(served[name].astype(np.float64) - values), initial=0)) for name, values in expected.items()
    )
