"""Bakes subnetworks into stock Keras models and writes them as SavedModels in TensorFlow Serving's layout."""

from export.bake import bake
from export.exporter import ExportResult, check_formats, export_formats, export_saved_model
from export.versions import check_export_dir
from iterand_tf.errors import ExportError

__all__ = [
    "ExportError",
    "ExportResult",
    "bake",
    "check_export_dir",
    "check_formats",
    "export_formats",
    "export_saved_model",
]
