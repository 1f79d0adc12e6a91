"""keras.applications with random weights, built in both frameworks, and the real models of shared/data."""

from __future__ import annotations

import pathlib

import keras
import pytest
import tf_keras

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
SMALL = {
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {},
    "EfficientNetB0": {},
    "ResNet50": {},
}
LARGE = ("ConvNeXtTiny", "EfficientNetV2B0", "DenseNet121", "InceptionV3", "Xception", "NASNetMobile")
DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "models"
REAL = ("resnet8_cifar10", "resnet20_cifar10", "kws_dscnn", "mobilenet_v2_035_imagenette")


def architecture(framework: str, name: str, size: int = 64, **options):
    keras_like = LIBRARIES[framework]
    keras_like.utils.set_random_seed(0)
    build = getattr(keras_like.applications, name)
    return build(input_shape=(size, size, 3), weights=None, classifier_activation=None, classes=10, **options)


@pytest.mark.parametrize("framework", LIBRARIES)
@pytest.mark.parametrize("name", SMALL)
def test_a_standard_architecture_is_flattened_without_changing_its_function(framework, name, randomise, check_equal):
    loaded = check_equal(randomise(architecture(framework, name, **SMALL[name])), built=name == "MobileNetV2")
    assert loaded.framework.startswith(f"{framework} ")
    assert not {node.kind for node in loaded.graph.nodes} & {"TFOpLambda", "Functional"}


@pytest.mark.slow
@pytest.mark.parametrize("framework", LIBRARIES)
@pytest.mark.parametrize("name", LARGE)
def test_a_large_architecture_is_flattened_without_changing_its_function(framework, name, randomise, check_equal):
    size = 96 if name == "InceptionV3" else 71 if name == "Xception" else 64
    check_equal(randomise(architecture(framework, name, size)))


@pytest.mark.parametrize("name", REAL)
def test_a_real_model_file_is_flattened_without_changing_its_function(name, check_equal):
    path = DATA / f"{name}.h5"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there: the real models of shared/data are no part of the project")
    loaded = check_equal(path)
    assert loaded.framework.startswith("tf_keras 2.")
