"""The layer classes of Keras that tfq takes, one row each: what the frontends, the allow-list and `decompose` read.

A layer that other operations can express has its row and its rule in a file of `tfq.models.rules`. Nothing here
imports TensorFlow, so that a model file can be refused before anybody does.
"""

from __future__ import annotations

from collections.abc import Mapping

from tfq.models.rules import (
    activations,
    attention,
    convolutions,
    dense,
    merging,
    normalizations,
    resampling,
)
from tfq.models.rules.rule import Layer

_TRAINING_ONLY = """
    ActivityRegularization AlphaDropout AugMix CutMix Dropout GaussianDropout GaussianNoise Identity MixUp RandAugment
    RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomElasticTransform RandomErasing
    RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert RandomPerspective
    RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomWidth
    RandomZoom SpatialDropout1D SpatialDropout2D SpatialDropout3D
"""
LAYERS: Mapping[str, Layer] = {
    "Embedding": Layer(),
    "Flatten": Layer(moves=True),
    "Permute": Layer(moves=True),
    "Reshape": Layer(moves=True),
    **activations.LAYERS,
    **attention.LAYERS,
    **convolutions.LAYERS,
    **dense.LAYERS,
    **merging.LAYERS,
    **normalizations.LAYERS,
    **resampling.LAYERS,
    **dict.fromkeys(_TRAINING_ONLY.split(), Layer(training_only=True)),
}
