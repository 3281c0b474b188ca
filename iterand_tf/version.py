"""The version, in a file of its own so that packaging reads it without importing Keras."""

__version__ = "1.0.0"
