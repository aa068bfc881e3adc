"""Put MNIST and Fashion-MNIST where Keras looks for them: `python -m tfcourse.datasets`."""
