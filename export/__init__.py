"""Bakes subnetworks into stock Keras models and writes them as SavedModels in TensorFlow Serving's layout."""

from export.bake import bake
from export.exporter import ExportResult, check_export_dir, export_formats, export_saved_model

__all__ = ["ExportResult", "bake", "check_export_dir", "export_formats", "export_saved_model"]
