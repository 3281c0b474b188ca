"""Answers of a network by the runtimes that serve it: size, seconds of one image and of 64, and test accuracy.

The dense SavedModel in TensorFlow, whose BatchNormalization is not folded, is what the others are compared with. All
others are folded. In int8 files ternary kernels are exact, activations are rounded. OpenVINO reads the int8 file of
TensorFlow Lite. With `--model_dirs=RUN,RUN` and `--data_dir`, finished runs come first, with their accuracy on the
test part; then networks of random scores.
"""

import os
import pathlib
import tempfile

import environment  # noqa: F401
import keras
import numpy as np
import onnxruntime
import openvino
import tensorflow as tf
from ai_edge_litert import interpreter
from sides import Case, Ratio, take_turns

from export import export_saved_model
from export.interface import Interface
from export.network import Network
from export.saved_model import write_saved_model
from iterand_tf import Supermask, data, models

BASE = "TensorFlow, unfolded"
# Calls of each side, by batch size.
CALLS = {1: 60, 64: 9}
CALIBRATION = 256
CORES = len(os.sched_getaffinity(0))


def cases(options):
    for name, model, test, calibration in networks(options):
        with tempfile.TemporaryDirectory() as directory:
            sides, values = served(model, pathlib.Path(directory), calibration)
            if test is not None:
                for side, answer in sides.items():
                    values[f"{side}, accuracy"] = accuracy(answer, test)
            for batch, calls in CALLS.items():
                images = calibration[:batch]
                turns = {side: lambda call=call, batch=images: call(batch) for side, call in sides.items()}
                seconds = take_turns(turns, calls // 3 if options.quick else calls, warmup=3)
                targets = {"LiteRT int8": 2.5 if batch == 1 else 2}
                ratios = tuple(Ratio(BASE, side, at_least=targets.get(side)) for side in sides if side != BASE)
                yield Case(f"{name}, batch {batch}", seconds, ratios, values if batch == 1 else {})


def networks(options):
    """Name, network, test batches or None, and images to calibrate on."""
    if options.model_dirs:
        splits = data.load("cifar10", options.data_dir, 0.1, 0)
        calibration = first_images(splits.validation)
        for run in options.model_dirs.split(","):
            model = keras.models.load_model(pathlib.Path(run, "best.keras"), compile=False)
            yield pathlib.Path(run).name, model, splits.test, calibration
    noise = np.random.default_rng(0).integers(0, 256, (CALIBRATION, 32, 32, 3)).astype(np.float32)
    for name, sparsity in (("conv6", 0.5), ("resnet18", 0.6))[: 1 if options.quick else None]:
        model = models.build(name, (32, 32, 3), 10, models.SubnetFactory(Supermask(sparsity)))
        yield f"{name} x1, random scores", model, None, noise


def first_images(examples):
    images, _ = next(iter(examples.evaluation_batches(CALIBRATION)))
    return np.asarray(images)


def served(model, directory, calibration):
    """Functions of images that give logits, by runtime, and the bytes of the files."""
    paths = {
        name: result.path
        for name, result in export_saved_model(
            model, directory / "float32", ["packed", "dense", "tflite", "onnx"], sample=calibration[:64]
        ).items()
    }
    paths["int8"] = export_saved_model(model, directory / "int8", "tflite", sample=calibration, tflite_int8=True).path
    paths["unfolded"] = directory / "unfolded"
    write_saved_model(Network.of(model, fold=False), paths["unfolded"], Interface.of(model, head="softmax"))
    lite, int8 = paths["tflite"] / "model.tflite", paths["int8"] / "model.tflite"
    session = onnxruntime.InferenceSession(str(paths["onnx"] / "model.onnx"), providers=["CPUExecutionProvider"])
    sides = {
        BASE: saved_model(paths["unfolded"]),
        "TensorFlow, packed": saved_model(paths["packed"]),
        "LiteRT float32": litert(lite),
        "LiteRT int8": litert(int8),
        "OpenVINO float32": compiled(paths["dense"]),
        "OpenVINO int8": compiled(int8),
        "ONNX Runtime float32": lambda images: session.run(["logits"], {"image": images})[0],
    }
    bytes_of = {
        BASE: paths["unfolded"],
        "TensorFlow, packed": paths["packed"],
        "LiteRT float32": lite,
        "LiteRT int8": int8,
        "ONNX Runtime float32": paths["onnx"] / "model.onnx",
    }
    return sides, {f"{side}, bytes": size(path) for side, path in bytes_of.items()}


def saved_model(path):
    loaded = tf.saved_model.load(str(path))
    return lambda images: loaded.signatures["serving_default"](image=tf.constant(images))["logits"].numpy()


def litert(file):
    call = signature(file)
    dtype, fractions = call.get_input_details()["image"]["dtype"], logits_of(call)
    return lambda images: fractions(call(image=images.astype(dtype))["logits"])


def signature(file):
    return interpreter.Interpreter(model_path=str(file), num_threads=CORES).get_signature_runner("serving_default")


def logits_of(call):
    """A function that gives the logits of what a TensorFlow Lite file, which may be quantized, calls logits."""
    scale, zero = call.get_output_details()["logits"]["quantization"]
    return lambda values: (values.astype(np.float32) - zero) * scale if scale else values


def compiled(path):
    """By OpenVINO, which in float32 must be told to stay in it, and knows no names of a signature."""
    lite = signature(path) if path.suffix == ".tflite" else None
    name, fractions = (lite.get_output_details()["logits"]["name"], logits_of(lite)) if lite else ("logits", np.asarray)
    network = openvino.Core().compile_model(
        openvino.convert_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    dtype = network.input(0).get_element_type().to_dtype()
    return lambda images: fractions(network(images.astype(dtype))[name])


def size(path):
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def accuracy(answer, test):
    """Fraction of the test images of which the largest logit is the label's."""
    right = [
        answer(np.asarray(images)).argmax(axis=1) == np.asarray(labels).argmax(axis=1)
        for images, labels in test.evaluation_batches(500)
    ]
    return float(np.mean(np.concatenate(right)))
