"""The TensorFlow course's infrastructure, which the lessons do not import."""

__version__ = "0.1.0"
