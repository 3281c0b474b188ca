"""Runs a SavedModel through TensorFlow's C API alone, the loader that TensorFlow Serving is built on.

    python c_api_client.py LIBRARY SAVED_MODEL INPUT_OPERATION OUTPUT_OPERATION OUTPUT_INDEX DIRECTORY

Reads DIRECTORY/images.npy and writes DIRECTORY/logits.npy. TensorFlow's Python package is not imported.
"""

import ctypes
import sys

import numpy as np

FLOAT = 1  # TF_FLOAT


class Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def main(library, path, input_name, output_name, output_index, directory):
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

    tags = (ctypes.c_char_p * 1)(b"serve")
    session = pointer(api.TF_LoadSessionFromSavedModel(options, None, path.encode(), tags, 1, graph, None, status))
    check()
    images = np.load(f"{directory}/images.npy").astype(np.float32)
    shape = (ctypes.c_int64 * images.ndim)(*images.shape)
    tensor = pointer(api.TF_AllocateTensor(FLOAT, shape, images.ndim, ctypes.c_size_t(images.nbytes)))
    ctypes.memmove(pointer(api.TF_TensorData(tensor)), images.ctypes.data, images.nbytes)
    source, target = (
        (Output * 1)(Output(api.TF_GraphOperationByName(graph, name.encode()), index))
        for name, index in ((input_name, 0), (output_name, int(output_index)))
    )
    results = (pointer * 1)()
    api.TF_SessionRun(session, None, source, (pointer * 1)(tensor), 1, target, results, 1, None, 0, None, status)
    check()
    result = pointer(results[0])
    sizes = [api.TF_Dim(result, axis) for axis in range(api.TF_NumDims(result))]
    data = ctypes.cast(pointer(api.TF_TensorData(result)), ctypes.POINTER(ctypes.c_float))
    np.save(f"{directory}/logits.npy", np.ctypeslib.as_array(data, sizes))
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    main(*sys.argv[1:])
