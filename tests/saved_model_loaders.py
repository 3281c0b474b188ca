"""The loaders of SavedModels: each gives the outputs of `serving_default`, where this project is not importable.

Each takes the directory of a version, inputs by name, and a directory of its own to work in.
"""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

_LOAD = """
import sys, numpy as np, tensorflow as tf
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
outputs = signature(**{name: tf.constant(value) for name, value in np.load("inputs.npz").items()})
np.savez("outputs.npz", **{name: value.numpy() for name, value in outputs.items()})
assert "iterand_tf" not in sys.modules and "export" not in sys.modules
"""
_LOAD_VERSION_1 = """
import sys, numpy as np, tensorflow as tf
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
    signature = meta_graph.signature_def["serving_default"]
    given = {signature.inputs[name].name: value for name, value in np.load("inputs.npz").items()}
    outputs = session.run({name: info.name for name, info in signature.outputs.items()}, given)
np.savez("outputs.npz", **outputs)
assert "iterand_tf" not in sys.modules and "export" not in sys.modules
"""


def _by_script(script):
    def outputs(path, inputs, directory):
        np.savez(directory / "inputs.npz", **inputs)
        _run([sys.executable, "-I", "-c", script, str(path)], directory)
        return dict(np.load(directory / "outputs.npz"))

    return outputs


def _by_saved_model_cli(path, inputs, directory):
    np.savez(directory / "inputs.npz", **inputs)
    given = ";".join(f"{name}={directory}/inputs.npz[{name}]" for name in inputs)
    flags = ["--tag_set=serve", "--signature_def=serving_default", f"--inputs={given}", f"--outdir={directory}"]
    _run([str(pathlib.Path(sys.executable).with_name("saved_model_cli")), "run", f"--dir={path}", *flags], directory)
    return {file.stem: np.load(file) for file in directory.glob("*.npy")}


def _by_c_api(path, inputs, directory):
    library = pathlib.Path(tf.__file__).with_name("libtensorflow_cc.so.2")
    if not library.exists():
        pytest.skip("this TensorFlow has its C API elsewhere")
    contents = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signature = contents.meta_graphs[0].signature_def["serving_default"]
    names = {info.name: name for name, info in signature.outputs.items()}
    np.savez(directory / "inputs.npz", **{signature.inputs[name].name: value for name, value in inputs.items()})
    (directory / "outputs.txt").write_text("\n".join(names))
    client = pathlib.Path(__file__).with_name("export") / "c_api_client.py"
    _run([sys.executable, str(client), str(library), str(path), str(directory)], directory)
    return {names[tensor]: value for tensor, value in np.load(directory / "outputs.npz").items()}


def _run(command, directory):
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


LOADERS = {
    "load": _by_script(_LOAD),
    "version 1": _by_script(_LOAD_VERSION_1),
    "saved_model_cli": _by_saved_model_cli,
    "C API": _by_c_api,
}
