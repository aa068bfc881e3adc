"""Infrastructure for the TensorFlow course. The lessons do not import this package."""

__version__ = "0.1.0"
