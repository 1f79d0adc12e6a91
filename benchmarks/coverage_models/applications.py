"""Families of keras.applications at small widths: from their constructors, or a few of their blocks written out."""

from __future__ import annotations

from typing import Any

import keras
import tf_keras
from keras import layers
from keras.src import applications as families
from tf_keras.src.applications import regnet, resnet_rs

from benchmarks.coverage_models.making import Case, live, pictures


def _classifier(inputs: Any, x: Any, classes: int = 6) -> keras.Model:
    return keras.Model(inputs, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))


def _conv_bn(x: Any, filters: int, size: Any = 3, activation: str = "relu", **options: Any) -> Any:
    x = layers.Conv2D(filters, size, padding="same", use_bias=False, **options)(x)
    return layers.Activation(activation)(layers.BatchNormalization(scale=False)(x))


def mobilenet() -> Case:
    model = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=6, classifier_activation=None)
    return live(model, 2 * pictures(32, 32, 3) - 1)


def mobilenet_v2() -> Case:
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=6, classifier_activation=None)
    return live(model, 2 * pictures(32, 32, 3) - 1)


def mobilenet_v2_tf_keras() -> Case:
    model = tf_keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=6)
    return live(model, 2 * pictures(32, 32, 3) - 1)


def mobilenet_v3() -> Case:
    def stack(x: Any, kernel: int, activation: Any, ratio: float) -> Any:
        block = families.mobilenet_v3._inverted_res_block
        x = block(x, 1, 8, 3, 2, ratio, activation, 0)
        x = block(x, 4, 12, kernel, 2, ratio, activation, 1)
        return block(x, 3, 12, kernel, 1, ratio, activation, 2)

    model = families.mobilenet_v3.MobileNetV3(
        stack, 32, (32, 32, 3), classes=6, weights=None, model_type="small", classifier_activation=None
    )
    return live(model, pictures(32, 32, 3, top=255))


def mobilenet_v3_minimalistic() -> Case:
    model = keras.applications.MobileNetV3Small(
        (32, 32, 3), alpha=0.75, minimalistic=True, weights=None, classes=6, include_top=True
    )
    return live(model, pictures(32, 32, 3, top=255))


def efficientnet_b() -> Case:
    blocks = [
        {**families.efficientnet.DEFAULT_BLOCKS_ARGS[i], "repeats": 1, "filters_in": a, "filters_out": b}
        for i, a, b in ((0, 32, 16), (1, 16, 24), (3, 24, 32), (4, 32, 32))
    ]
    model = families.efficientnet.EfficientNet(
        0.5, 1.0, 32, blocks_args=blocks, weights=None, classes=6, input_shape=(32, 32, 3), classifier_activation=None
    )
    return live(model, pictures(32, 32, 3, top=255))


def efficientnet_v2_s() -> Case:
    blocks = [
        {**families.efficientnet_v2.DEFAULT_BLOCKS_ARGS["efficientnetv2-s"][i], "num_repeat": 1}
        | {"input_filters": a, "output_filters": b}
        for i, a, b in ((0, 24, 16), (1, 16, 24), (3, 24, 32))
    ]
    model = families.efficientnet_v2.EfficientNetV2(
        0.5, 1.0, 32, blocks_args=blocks, weights=None, classes=6, input_shape=(32, 32, 3), classifier_activation=None
    )
    return live(model, pictures(32, 32, 3, top=255))


def resnet_v1() -> Case:
    def stack(x: Any) -> Any:
        x = families.resnet.stack_residual_blocks_v1(x, 8, 1, stride1=1, name="conv2")
        return families.resnet.stack_residual_blocks_v1(x, 16, 2, name="conv3")

    model = families.resnet.ResNet(
        stack, False, True, weights=None, input_shape=(32, 32, 3), classes=6, classifier_activation=None,
        weights_name="none",
    )  # fmt: skip
    return live(model, pictures(32, 32, 3, top=255) - 120)


def resnet_v2() -> Case:
    def stack(x: Any) -> Any:
        x = families.resnet.stack_residual_blocks_v2(x, 8, 2, name="conv2")
        return families.resnet.stack_residual_blocks_v2(x, 16, 2, stride1=1, name="conv3")

    model = families.resnet.ResNet(
        stack, True, True, weights=None, input_shape=(32, 32, 3), classes=6, classifier_activation=None,
        weights_name="none",
    )  # fmt: skip
    return live(model, 2 * pictures(32, 32, 3) - 1)


def densenet_121() -> Case:
    model = families.densenet.DenseNet([1, 2, 1, 1], weights=None, input_shape=(32, 32, 3), classes=6)
    return live(model, pictures(32, 32, 3, top=4) - 2)


def nasnet_mobile() -> Case:
    model = families.nasnet.NASNet(
        (32, 32, 3), 96, 1, 8, skip_reduction=False, filter_multiplier=2, weights=None, classes=6,
        default_size=32,
    )  # fmt: skip
    return live(model, 2 * pictures(32, 32, 3) - 1)


def convnext_tiny() -> Case:
    model = families.convnext.ConvNeXt(
        [1, 1, 1, 1], [8, 12, 16, 24], weights=None, input_shape=(32, 32, 3), classes=6, classifier_activation=None
    )
    return live(model, pictures(32, 32, 3, top=255))


def xception() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = _conv_bn(inputs, 8, strides=2)
    for filters in (16, 24):
        residual = layers.BatchNormalization()(layers.Conv2D(filters, 1, strides=2, padding="same")(x))
        y = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False)(layers.ReLU()(x))
        y = layers.SeparableConv2D(filters, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(y)))
        y = layers.MaxPooling2D(3, strides=2, padding="same")(layers.BatchNormalization()(y))
        x = layers.add([y, residual])
    return live(_classifier(inputs, x), 2 * pictures(32, 32, 3) - 1)


def inception_v3() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = _conv_bn(inputs, 12, strides=2)
    for _ in range(2):
        a = _conv_bn(x, 8, 1)
        b = _conv_bn(_conv_bn(x, 6, 1), 8, 5)
        c = _conv_bn(_conv_bn(_conv_bn(x, 6, 1), 8, (1, 7)), 8, (7, 1))
        d = _conv_bn(layers.AveragePooling2D(3, strides=1, padding="same")(x), 8, 1)
        x = layers.concatenate([a, b, c, d])
    return live(_classifier(inputs, x), 2 * pictures(32, 32, 3) - 1)


def inception_resnet_v2() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = _conv_bn(inputs, 16, strides=2)
    for _ in range(2):
        joined = layers.Concatenate()([_conv_bn(x, 8, 1), _conv_bn(_conv_bn(x, 8, 1), 8)])
        up = layers.Conv2D(16, 1)(joined)
        x = layers.Activation("relu")(layers.Lambda(lambda v: v[0] + 0.17 * v[1])([x, up]))
    return live(_classifier(inputs, x), 2 * pictures(32, 32, 3) - 1)


def vgg() -> Case:
    inputs = x = keras.Input((32, 32, 3))
    for filters in (8, 16, 24):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(48, "relu")(layers.Flatten()(x))
    return live(keras.Model(inputs, layers.Dense(6, "softmax")(x)), pictures(32, 32, 3, top=255) - 120)


def regnet_tf_keras() -> Case:
    model = regnet.RegNet(
        [1, 1, 1, 1], [8, 16, 16, 24], 8, default_size=32, block_type="Y", weights=None, classes=6,
        input_shape=(32, 32, 3), model_name="regnet",
    )  # fmt: skip
    return live(model, pictures(32, 32, 3, top=255))


def resnet_rs_tf_keras() -> Case:
    blocks = [{"input_filters": f, "num_repeats": 1} for f in (8, 12, 16, 16)]
    model = resnet_rs.ResNetRS(
        50, input_shape=(64, 64, 3), block_args=blocks, weights=None, classes=6, classifier_activation=None
    )
    return live(model, pictures(64, 64, 3, top=255))


def squeezenet_fire() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = layers.MaxPooling2D(3, 2)(layers.Conv2D(12, 3, strides=2, activation="relu")(inputs))
    for squeeze in (4, 6):
        s = layers.Conv2D(squeeze, 1, activation="relu")(x)
        x = layers.concatenate(
            [
                layers.Conv2D(8, 1, activation="relu")(s),
                layers.Conv2D(8, 3, padding="same", activation="relu")(s),
            ]
        )
    return live(keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1)(x))), pictures(32, 32, 3))


def shufflenet_units() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = _conv_bn(inputs, 16, strides=2)
    for _ in range(2):
        left, right = keras.ops.split(x, 2, axis=-1)
        right = _conv_bn(right, 8, 1)
        right = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(right))
        x = layers.Concatenate()([left, _conv_bn(right, 8, 1)])
        x = layers.Reshape((*x.shape[1:3], 2, 8))(x)
        x = layers.Reshape((*x.shape[1:3], 16))(layers.Permute((1, 2, 4, 3))(x))
    return live(_classifier(inputs, x), 2 * pictures(32, 32, 3) - 1)


def ghostnet_modules() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = _conv_bn(inputs, 16, activation="hard_silu", strides=2)
    for _ in range(2):
        primary = _conv_bn(x, 8, 1)
        cheap = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(primary))
        x = x + layers.Concatenate()([primary, layers.ReLU()(cheap)])
    return live(_classifier(inputs, x), 2 * pictures(32, 32, 3) - 1)


def resnext_grouped() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = _conv_bn(inputs, 16, strides=2)
    y = _conv_bn(_conv_bn(x, 16, 1), 16, groups=4)
    x = layers.ReLU()(x + layers.BatchNormalization()(layers.Conv2D(16, 1)(y)))
    return live(_classifier(inputs, x), 2 * pictures(32, 32, 3) - 1)


def repvgg_branches() -> Case:
    inputs = x = keras.Input((32, 32, 3))
    for filters in (8, 8):
        branches = [layers.Conv2D(filters, size, padding="same", use_bias=False)(x) for size in (3, 1)]
        branches += [x] if x.shape[-1] == filters else []
        x = layers.ReLU()(layers.add([layers.BatchNormalization()(b) for b in branches]))
    return live(_classifier(inputs, x), 2 * pictures(32, 32, 3) - 1)


def big_transfer() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same")(inputs)
    for _ in range(2):
        y = layers.Conv2D(16, 3, padding="same")(layers.ReLU()(layers.GroupNormalization(4)(x)))
        y = layers.Conv2D(16, 3, padding="same")(layers.ReLU()(layers.GroupNormalization(4)(y)))
        x = layers.add([x, y])
    return live(_classifier(inputs, layers.ReLU()(layers.GroupNormalization(4)(x))), 2 * pictures(32, 32, 3) - 1)
