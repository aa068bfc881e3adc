"""The Python code behind the TensorFlow course; the lessons themselves import none of it."""

__version__ = "0.1.0"
