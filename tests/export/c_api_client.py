"""Runs a SavedModel through TensorFlow's C API alone, the loader that TensorFlow Serving is built on.

    python c_api_client.py LIBRARY SAVED_MODEL DIRECTORY

Reads DIRECTORY/inputs.npz, one array for each tensor "operation:index" of the graph, and DIRECTORY/outputs.txt, the
names of the tensors that are wanted, and writes DIRECTORY/outputs.npz. TensorFlow's Python package is not imported.
"""

import ctypes
import sys

import numpy as np

# TF_DataType.
TYPES = {1: np.float32, 3: np.int32, 9: np.int64}


class Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def main(library, path, directory):
    api = ctypes.CDLL(library)
    for name in (
        "TF_NewStatus",
        "TF_NewGraph",
        "TF_NewSessionOptions",
        "TF_LoadSessionFromSavedModel",
        "TF_GraphOperationByName",
        "TF_AllocateTensor",
        "TF_TensorData",
    ):
        getattr(api, name).restype = ctypes.c_void_p
    api.TF_Message.restype = ctypes.c_char_p
    pointer = ctypes.c_void_p
    status, graph, options = (
        pointer(api.TF_NewStatus()),
        pointer(api.TF_NewGraph()),
        pointer(api.TF_NewSessionOptions()),
    )

    def check():
        if api.TF_GetCode(status):
            raise RuntimeError(api.TF_Message(status).decode())

    def outputs(names):
        found = []
        for name in names:
            operation, index = name.split(":")
            found.append(Output(api.TF_GraphOperationByName(graph, operation.encode()), int(index)))
        return (Output * len(found))(*found)

    tags = (ctypes.c_char_p * 1)(b"serve")
    session = pointer(api.TF_LoadSessionFromSavedModel(options, None, path.encode(), tags, 1, graph, None, status))
    check()
    inputs = dict(np.load(f"{directory}/inputs.npz"))
    tensors = []
    for array in inputs.values():
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        code = next(code for code, kind in TYPES.items() if kind == array.dtype)
        tensors.append(pointer(api.TF_AllocateTensor(code, shape, array.ndim, ctypes.c_size_t(array.nbytes))))
        contents = np.ascontiguousarray(array)
        ctypes.memmove(pointer(api.TF_TensorData(tensors[-1])), contents.ctypes.data, contents.nbytes)
    with open(f"{directory}/outputs.txt", encoding="utf-8") as file:
        wanted = file.read().split()
    given, results = (pointer * len(tensors))(*tensors), (pointer * len(wanted))()
    api.TF_SessionRun(
        session,
        None,
        outputs(inputs),
        given,
        len(tensors),
        outputs(wanted),
        results,
        len(wanted),
        None,
        0,
        None,
        status,
    )
    check()
    arrays = {}
    for name, result in zip(wanted, map(pointer, results), strict=True):
        sizes = [api.TF_Dim(result, axis) for axis in range(api.TF_NumDims(result))]
        kind = np.ctypeslib.as_ctypes_type(TYPES[api.TF_TensorType(result)])
        data = ctypes.cast(pointer(api.TF_TensorData(result)), ctypes.POINTER(kind))
        arrays[name] = np.ctypeslib.as_array(data, sizes)
    np.savez(f"{directory}/outputs.npz", **arrays)
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    main(*sys.argv[1:])
