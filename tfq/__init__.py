"""tfq: from a trained Keras model to the smallest, fastest .tflite that keeps the accuracy."""

__version__ = "0.1.0"
