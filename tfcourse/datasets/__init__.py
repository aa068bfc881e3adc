"""Download MNIST and Fashion-MNIST to Keras' data folder: `python -m tfcourse.datasets`."""
