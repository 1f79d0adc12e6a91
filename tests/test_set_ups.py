"""Set-ups that are spoiled in one way each: the verdict, a warning or an error names what is wrong."""

import re

import numpy as np
import pytest
import tf_keras

import tfq
from tfq.errors import UserError

CLASSES, SHAPE = 5, (6, 6, 1)
RNG = np.random.default_rng(0)
TEMPLATES = RNG.uniform(0.2, 0.8, (CLASSES, *SHAPE)).astype(np.float32)
Y = np.arange(240) % CLASSES
X = np.clip(TEMPLATES[Y] + RNG.normal(0, 0.1, (240, *SHAPE)), 0, 1).astype(np.float32)


def model(weights=1.0, activation="softmax"):
    """The class whose template an image is nearest to."""
    flat = TEMPLATES.reshape(CLASSES, -1)
    image = tf_keras.Input(SHAPE, name="image")
    scores = tf_keras.layers.Dense(CLASSES, activation=activation, name="scores")
    made = tf_keras.Model(image, scores(tf_keras.layers.Flatten()(image)))
    scores.set_weights(
        [4 * weights * flat.T, -2 * weights * np.square(flat).sum(1) + (1 - weights) * np.arange(CLASSES)]
    )
    return made


def told(network=None, x=X[:120], y=None, evaluation=(X[120:], Y[120:]), **options):
    """Everything that a run says: its verdict and warnings, or its error."""
    calibration = x if y is None else (x, y)
    try:
        report = tfq.quantize(network or model(), calibration, evaluation=evaluation, **options).report
    except UserError as error:
        return f"error: {error}"
    return "\n".join([report.verdict, *report.warnings])


def changed(positions, value):
    values = X[:120].copy()
    values[positions] = value
    return values


def test_a_set_up_without_faults_is_good():
    (verdict,) = told().splitlines()
    assert verdict.startswith(("Good: +0.00 points", "Slower"))


SPOILED = {
    "no weights": ({"network": model(0.0)}, "Not known: float gives the same numbers for all 120 samples"),
    "one class": ({"network": model(0.001)}, "Not known: float gives one of its 5 classes for all"),
    "labels in another order": (
        {"evaluation": (X[120:], (Y[120:] + 1) % 5)},
        "float itself gets nothing right: its top1 is 0.00 %",
    ),
    "labels beyond the classes": ({"evaluation": (X[120:], Y[120:] + 3)}, "error: .*label"),
    "evaluation of one class": ({"evaluation": (X[Y == 2], Y[Y == 2])}, "all 48 evaluation samples have the label 2"),
    "the same file twice": ({"evaluation": (X[:120], Y[:120])}, "120 of the 120 evaluation samples are calibration"),
    "lopsided classes": ({"y": np.r_[np.zeros(90, int), Y[90:120]]}, "of the 120 calibration samples have the label 0"),
    "sorted classes": ({"x": X[Y < 2], "y": Y[Y < 2]}, "have 2 of the 5 classes of the evaluation data"),
    "not normalised": ({"x": 255 * X[:120]}, "are both preprocessed alike"),
    "bytes as they are": ({"x": (255 * X[:120]).astype(np.uint8)}, "given to the model unscaled"),
    "normalised twice": ({"preprocess": "zero_one"}, "is it preprocessed already"),
    "all zero": ({"x": 0 * X[:120]}, "is 0 in every sample"),
    "many black": ({"x": changed(slice(0, 120, 8), 0)}, "15 of the 120 samples of input 'image' are one value"),
    "one sample many times": ({"x": np.repeat(X[:1], 120, axis=0)}, "all 120 samples of input 'image' are identical"),
    "copies": ({"x": np.repeat(X[:30], 4, axis=0)}, "only 30 of the 120 calibration samples are different ones"),
    "one sample": ({"x": X[:1]}, "only 1 calibration sample; with fewer than 100"),
    "a spoiled sample": ({"x": changed(7, 1e4)}, "reaches 1e\\+04, and half of the samples stay within"),
    "NaN": ({"x": changed(7, np.nan)}, "error: .* has NaN"),
    "channels first": ({"x": np.moveaxis(X[:120], -1, 1)}, "error: .*channels come last"),
    "too few names": ({"labels": ["a", "b"]}, "error: `labels` names 2 classes, and the model's first output has 5"),
    "a name twice": ({"labels": ["a", "b", "c", "d", "a"]}, "gives 1 names to several classes"),
    "no integers": ({"network": model(activation="exponential")}, "is float32, and not int8 as `output_type` says"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_is_spoiled_is_named(what):
    spoiled, words = SPOILED[what]
    found = told(**spoiled)
    assert re.search(words, found), found
