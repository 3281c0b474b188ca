"""Writes models as SavedModels in TensorFlow Serving's layout, and as TensorFlow Lite and ONNX files."""

from export.exporter import ExportResult, check_formats, export_saved_model
from export.versions import check_export_dir
from iterand_tf.conversion import bake
from iterand_tf.errors import ExportError

__all__ = ["ExportError", "ExportResult", "bake", "check_export_dir", "check_formats", "export_saved_model"]
