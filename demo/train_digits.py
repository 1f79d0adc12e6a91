"""Makes everything in this folder: trains the demo model and writes it beside its calibration and test data.

    pip install -e '.[demo]'
    python demo/train_digits.py --output_dir=demo

Data: 1,797 handwritten digits, 8x8 pixels with values 0..16 ("Optical Recognition of Handwritten Digits", UCI, as
carried by scikit-learn). The first 1,000 train the model, the last 797 test it; the order is kept, because shuffling
makes the test easier (README.md has the figures). Calibration uses the first 512 training images without their labels.
The number of epochs is fixed and the last weights are kept: no stopping point is chosen by looking at the test images.

Model: a MobileNetV2 in small: a 3x3 convolution, inverted residual blocks (1x1 expand, 3x3 depthwise, linear 1x1
project, Add), BatchNormalization and ReLU6 throughout, global average pooling, a Dense softmax head. It takes the raw
pixel values.
"""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from sklearn import datasets

TRAIN, CALIBRATION = 1000, 512

_OUTPUT_DIR = flags.DEFINE_string("output_dir", "demo", "Folder that receives digits.keras and the two .npz files.")
_EPOCHS = flags.DEFINE_integer("epochs", 40, "Passes over the training images.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seeds the initial weights and the order of the batches.")


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [1797, 8, 8, 1] with values 0..16 and labels uint8 [1797], in their original order."""
    digits = datasets.load_digits()
    return digits.images.astype(np.uint8)[..., np.newaxis], digits.target.astype(np.uint8)


def convolution(layer: keras.layers.Layer, x: keras.KerasTensor, name: str, *, relu6: bool = True) -> keras.KerasTensor:
    """`layer`, its BatchNormalization and, unless it is a linear bottleneck, ReLU6."""
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(layer(x))
    return keras.layers.ReLU(6.0, name=f"{name}_relu6")(x) if relu6 else x


def inverted_residual(x: keras.KerasTensor, name: str, *, filters: int, strides: int) -> keras.KerasTensor:
    """The block of MobileNetV2 (Sandler et al. 2018), expansion 6; with a residual Add where the shapes allow."""
    layers, source = keras.layers, x
    expand = layers.Conv2D(6 * x.shape[-1], 1, use_bias=False, name=f"{name}_expand")
    depthwise = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=f"{name}_depthwise")
    project = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")
    x = convolution(expand, x, f"{name}_expand")
    x = convolution(depthwise, x, f"{name}_depthwise")
    x = convolution(project, x, f"{name}_project", relu6=False)
    return layers.Add(name=f"{name}_add")([source, x]) if x.shape == source.shape else x


def build_model() -> keras.Model:
    """[batch, 8, 8, 1] raw pixel values 0..16 -> [batch, 10] probabilities."""
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    x = convolution(layers.Conv2D(24, 3, padding="same", use_bias=False, name="stem"), image, "stem")
    x = inverted_residual(x, "block1", filters=24, strides=1)
    x = inverted_residual(x, "block2", filters=40, strides=2)
    x = inverted_residual(x, "block3", filters=40, strides=1)
    x = inverted_residual(x, "block4", filters=64, strides=1)
    x = convolution(layers.Conv2D(128, 1, use_bias=False, name="top"), x, "top")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(x), name="digits")


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray, *, epochs: int) -> None:
    """Adam with a cosine learning rate; the order of the batches comes from Keras' seed."""
    batch_size = 64
    rate = keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=epochs * -(-len(images) // batch_size))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=batch_size, epochs=epochs, verbose=2)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"flags only, got {' '.join(argv[1:])}")
    keras.utils.set_random_seed(_SEED.value)
    tf.config.experimental.enable_op_determinism()
    output = pathlib.Path(_OUTPUT_DIR.value)
    output.mkdir(parents=True, exist_ok=True)
    x, y = load_digits()

    trained = build_model()
    train(trained, x[:TRAIN].astype(np.float32), y[:TRAIN], epochs=_EPOCHS.value)
    model = build_model()  # a second one, because a compiled model is saved with the state of its optimizer
    model.set_weights(trained.get_weights())

    model.save(output / "digits.keras")
    np.savez_compressed(output / "calibration.npz", x=x[:CALIBRATION])
    np.savez_compressed(output / "test.npz", x=x[TRAIN:], y=y[TRAIN:])
    correct = int(np.sum(np.argmax(model.predict(x[TRAIN:].astype(np.float32), verbose=0), axis=-1) == y[TRAIN:]))
    total = len(y) - TRAIN
    print(f"float model: {correct} of {total} test images right, top-1 {100 * correct / total:.2f} %")


if __name__ == "__main__":
    app.run(main)
