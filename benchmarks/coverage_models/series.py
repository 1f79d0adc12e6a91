"""Series: recurrent layers of both libraries, convolutions along time, transformers, sound."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers, ops

from benchmarks.coverage_models.making import SAMPLES, Case, live, pictures, tokens, waves


def lstm_last_state() -> Case:
    model = keras.Sequential([keras.Input((16, 6)), layers.LSTM(16), layers.Dense(3)])
    return live(model, waves(16, 6))


def lstm_tf_keras_stacked() -> Case:
    k = tf_keras.layers
    model = tf_keras.Sequential(
        [k.LSTM(16, return_sequences=True, input_shape=(16, 6)), k.Dropout(0.2), k.LSTM(12), k.Dense(3)]
    )
    return live(model, waves(16, 6))


def lstm_states_as_outputs() -> Case:
    inputs = keras.Input((12, 4))
    sequence, hidden, carry = layers.LSTM(8, return_sequences=True, return_state=True)(inputs)
    return live(keras.Model(inputs, [layers.Dense(2)(sequence), hidden, carry]), waves(12, 4))


def gru() -> Case:
    model = keras.Sequential([keras.Input((16, 6)), layers.GRU(16), layers.Dense(3)])
    return live(model, waves(16, 6))


def gru_tf_keras_sequences() -> Case:
    k = tf_keras.layers
    model = tf_keras.Sequential([k.GRU(12, return_sequences=True, input_shape=(16, 6)), k.GRU(12), k.Dense(3)])
    return live(model, waves(16, 6))


def simple_rnn() -> Case:
    model = keras.Sequential(
        [keras.Input((16, 6)), layers.SimpleRNN(12, return_sequences=True), layers.SimpleRNN(12), layers.Dense(3)]
    )
    return live(model, waves(16, 6))


def simple_rnn_tf_keras() -> Case:
    k = tf_keras.layers
    return live(tf_keras.Sequential([k.SimpleRNN(12, input_shape=(16, 6)), k.Dense(3)]), waves(16, 6))


def bidirectional_gru() -> Case:
    model = keras.Sequential(
        [keras.Input((16, 6)), layers.Bidirectional(layers.GRU(8), merge_mode="sum"), layers.Dense(3)]
    )
    return live(model, waves(16, 6))


def bidirectional_lstm_tf_keras() -> Case:
    k = tf_keras.layers
    model = tf_keras.Sequential(
        [k.Bidirectional(k.LSTM(8, return_sequences=True), input_shape=(16, 6)), k.GlobalMaxPooling1D(), k.Dense(3)]
    )
    return live(model, waves(16, 6))


def text_lstm_masked() -> Case:
    inputs = keras.Input((12,), dtype="int32")
    x = layers.Embedding(100, 16, mask_zero=True, embeddings_initializer="normal")(inputs)
    return live(keras.Model(inputs, layers.Dense(2)(layers.LSTM(12)(x * 10))), tokens(12, 100, padded=True))


def text_bidirectional_gru_tf_keras() -> Case:
    k = tf_keras.layers
    inputs = tf_keras.Input((12,), dtype="int32")
    x = k.Embedding(100, 16, mask_zero=True)(inputs)
    return live(tf_keras.Model(inputs, k.Dense(2)(k.Bidirectional(k.GRU(12))(x))), tokens(12, 100, padded=True))


def masking_layer_lstm() -> Case:
    inputs = keras.Input((12, 5))
    x = layers.LSTM(12)(layers.Masking(0.0)(inputs))
    series = waves(12, 5)
    series[np.arange(SAMPLES) % 3 == 0, 8:] = 0
    return live(keras.Model(inputs, layers.Dense(2)(x)), series)


def stacked_cells() -> Case:
    inputs = keras.Input((12, 5))
    x = layers.RNN([layers.GRUCell(8), layers.GRUCell(8)])(inputs)
    return live(keras.Model(inputs, layers.Dense(2)(x)), waves(12, 5))


def stateful_gru() -> Case:
    inputs = keras.Input(batch_shape=(1, 12, 5))
    return live(keras.Model(inputs, layers.Dense(2)(layers.GRU(8, stateful=True)(inputs))), waves(12, 5))


def unrolled_gru() -> Case:
    inputs = keras.Input((8, 5))
    return live(keras.Model(inputs, layers.Dense(2)(layers.GRU(8, unroll=True)(inputs))), waves(8, 5))


def conv_lstm_1d() -> Case:
    inputs = keras.Input((6, 12, 3))
    x = layers.ConvLSTM1D(6, 3, padding="same")(inputs)
    return live(keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling1D()(x))), pictures(6, 12, 3))


def next_frame_conv_lstm_2d() -> Case:
    inputs = keras.Input((4, 10, 10, 1))
    x = layers.ConvLSTM2D(6, 3, padding="same", return_sequences=True, activation="relu")(inputs)
    x = layers.Conv3D(1, (3, 3, 3), activation="sigmoid", padding="same")(layers.BatchNormalization()(x))
    return live(keras.Model(inputs, x), pictures(4, 10, 10, 1))


def video_conv_3d() -> Case:
    inputs = keras.Input((8, 12, 12, 1))
    x = layers.BatchNormalization()(layers.MaxPool3D(2)(layers.Conv3D(8, 3, activation="relu")(inputs)))
    x = layers.Dense(16, "relu")(layers.GlobalAveragePooling3D()(x))
    return live(keras.Model(inputs, layers.Dense(2)(x)), pictures(8, 12, 12, 1))


def video_time_distributed() -> Case:
    inputs = keras.Input((5, 16, 16, 3))
    frame = keras.Sequential([layers.Conv2D(8, 3, strides=2, activation="relu"), layers.GlobalAveragePooling2D()])
    x = layers.GRU(8)(layers.TimeDistributed(frame)(inputs))
    return live(keras.Model(inputs, layers.Dense(3)(x)), pictures(5, 16, 16, 3))


def time_distributed_conv_tf_keras() -> Case:
    k = tf_keras.layers
    inputs = tf_keras.Input((5, 12, 12, 3))
    x = k.TimeDistributed(k.Conv2D(6, 3, activation="relu"))(inputs)
    x = k.TimeDistributed(k.Flatten())(k.TimeDistributed(k.MaxPooling2D())(x))
    return live(tf_keras.Model(inputs, k.Dense(3)(k.LSTM(8)(x))), pictures(5, 12, 12, 3))


def timeseries_convolutions() -> Case:
    inputs = x = keras.Input((48, 1))
    for _ in range(3):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(16, 3, padding="same")(x)))
    return live(keras.Model(inputs, layers.Dense(2, "softmax")(layers.GlobalAveragePooling1D()(x))), waves(48, 1))


def timeseries_transformer() -> Case:
    inputs = x = keras.Input((32, 4))
    for _ in range(2):
        y = layers.MultiHeadAttention(key_dim=8, num_heads=2, dropout=0.25)(x, x)
        y = layers.LayerNormalization(epsilon=1e-6)(layers.Dropout(0.25)(y)) + x
        z = layers.Conv1D(filters=4, kernel_size=1)(layers.Conv1D(8, 1, activation="relu")(y))
        x = layers.LayerNormalization(epsilon=1e-6)(z) + y
    x = layers.GlobalAveragePooling1D(data_format="channels_last")(x)
    return live(keras.Model(inputs, layers.Dense(2)(layers.Dense(16, activation="relu")(x))), waves(32, 4))


def wavenet() -> Case:
    inputs = keras.Input((48, 1))
    x = layers.Conv1D(8, 1)(inputs)
    skips = []
    for rate in (1, 2, 4):
        gate = layers.Conv1D(8, 2, dilation_rate=rate, padding="causal", activation="sigmoid")(x)
        y = layers.Conv1D(8, 2, dilation_rate=rate, padding="causal", activation="tanh")(x) * gate
        skips.append(layers.Conv1D(12, 1)(y))
        x = x + layers.Conv1D(8, 1)(y)
    x = layers.Conv1D(8, 1)(layers.ReLU()(layers.Add()(skips)))
    return live(keras.Model(inputs, x), waves(48, 1))


def speaker_recognition() -> Case:
    inputs = x = keras.Input((64, 1))
    for filters in (8, 16):
        s = layers.Conv1D(filters, 1, padding="same")(x)
        y = layers.Conv1D(filters, 3, padding="same")(
            layers.Activation("relu")(layers.Conv1D(filters, 3, padding="same")(x))
        )
        x = layers.MaxPool1D(pool_size=2, strides=2)(layers.Activation("relu")(layers.Add()([y, s])))
    x = layers.Flatten()(layers.AveragePooling1D(pool_size=3, strides=3)(x))
    return live(keras.Model(inputs, layers.Dense(5, "softmax")(layers.Dense(32, "relu")(x))), waves(64, 1))


def sound_from_the_wave() -> Case:
    inputs = keras.Input((256, 1))
    window = np.hanning(32) * np.cos(2 * np.pi * np.outer(np.arange(12), np.arange(32)) / 32)
    kernel = window.T[:, None, :].astype("float32")
    x = ops.log(ops.square(ops.conv(inputs, kernel, strides=16)) + 1e-3)
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(12, 3, activation="relu")(layers.BatchNormalization()(x)))
    return live(keras.Model(inputs, layers.Dense(4)(x)), waves(256, 1))


def stft_magnitude_tf_keras() -> Case:
    inputs = tf_keras.Input((256,))
    spectrum = tf.abs(tf.signal.stft(inputs, 64, 32))
    x = tf.math.log(spectrum + 1e-3)
    x = tf_keras.layers.GlobalAveragePooling1D()(tf_keras.layers.Conv1D(8, 3, activation="relu")(x))
    return live(tf_keras.Model(inputs, tf_keras.layers.Dense(3)(x)), waves(256, 1)[..., 0])


def speech_ctc() -> Case:
    inputs = keras.Input((40, 16))
    x = layers.Reshape((40, 16, 1))(inputs)
    x = layers.ReLU()(
        layers.BatchNormalization()(layers.Conv2D(8, (5, 5), strides=(2, 2), padding="same", use_bias=False)(x))
    )
    x = layers.Reshape((20, 64))(x)
    x = layers.Bidirectional(layers.GRU(12, return_sequences=True, reset_after=True))(x)
    return live(keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.Dense(24, "relu")(x))), waves(40, 16))


def anomaly_autoencoder() -> Case:
    inputs = keras.Input((48, 1))
    x = layers.Conv1D(16, 7, padding="same", strides=2, activation="relu")(inputs)
    x = layers.Conv1D(8, 7, padding="same", strides=2, activation="relu")(layers.Dropout(0.2)(x))
    x = layers.Conv1DTranspose(8, 7, padding="same", strides=2, activation="relu")(x)
    x = layers.Conv1DTranspose(16, 7, padding="same", strides=2, activation="relu")(layers.Dropout(0.2)(x))
    return live(keras.Model(inputs, layers.Conv1DTranspose(1, 7, padding="same")(x)), waves(48, 1))


def lstm_autoencoder() -> Case:
    inputs = keras.Input((12, 3))
    x = layers.RepeatVector(12)(layers.LSTM(12)(inputs))
    x = layers.LSTM(12, return_sequences=True)(x)
    return live(keras.Model(inputs, layers.TimeDistributed(layers.Dense(3))(x)), waves(12, 3))


def n_beats() -> Case:
    inputs = x = keras.Input((32,))
    forecast = None
    for _ in range(2):
        y = layers.Dense(32, "relu")(layers.Dense(32, "relu")(x))
        x = layers.Subtract()([x, layers.Dense(32)(y)])
        f = layers.Dense(8)(y)
        forecast = f if forecast is None else layers.Add()([forecast, f])
    return live(keras.Model(inputs, forecast), waves(32, 1)[..., 0])


def temporal_fusion_gates() -> Case:
    inputs = keras.Input((16, 6))

    def gated(x: Any, units: int) -> Any:
        y = layers.Dropout(0.1)(layers.Dense(units)(layers.Dense(units, activation="elu")(x)))
        y = layers.Dense(units)(y) * layers.Dense(units, activation="sigmoid")(y)
        skip = x if x.shape[-1] == units else layers.Dense(units)(x)
        return layers.LayerNormalization()(skip + y)

    x = gated(inputs, 12)
    x = gated(x + layers.MultiHeadAttention(2, 6)(x, x), 12)
    return live(keras.Model(inputs, layers.Dense(3)(x[:, -1])), waves(16, 6))


def patch_tst() -> Case:
    inputs = keras.Input((48, 3))
    x = ops.transpose(inputs, (0, 2, 1))
    mean, spread = ops.mean(x, -1, keepdims=True), ops.std(x, -1, keepdims=True)
    x = ops.reshape((x - mean) / (spread + 1e-5), (-1, 3, 6, 8))
    x = layers.Dense(16)(x)
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 8, attention_axes=2)(y, y)
    x = x + layers.Dense(16)(layers.Dense(32, "gelu")(layers.LayerNormalization()(x)))
    x = layers.Dense(8)(ops.reshape(x, (-1, 3, 96))) * spread + mean
    return live(keras.Model(inputs, ops.transpose(x, (0, 2, 1))), waves(48, 3))


def attention_over_lstm() -> Case:
    inputs = keras.Input((16, 6))
    sequence = layers.LSTM(12, return_sequences=True)(inputs)
    weights = layers.Softmax(axis=1)(layers.Dense(1, activation="tanh")(sequence))
    context = layers.Flatten()(layers.Dot(axes=1)([weights, sequence]))
    return live(keras.Model(inputs, layers.Dense(3)(context)), waves(16, 6))


def encoder_decoder_lstm() -> Case:
    source, target = keras.Input((10, 5)), keras.Input((8, 4))
    _, hidden, carry = layers.LSTM(12, return_state=True)(source)
    x = layers.LSTM(12, return_sequences=True)(target, initial_state=[hidden, carry])
    return live(keras.Model([source, target], layers.Dense(4)(x)), waves(10, 5), waves(8, 4, seed=1))


def reversed_branch() -> Case:
    inputs = keras.Input((16, 4))
    x = ops.concatenate([inputs, ops.flip(inputs, axis=1)], axis=-1)
    return live(keras.Model(inputs, layers.Dense(3)(layers.Conv1D(8, 3, activation="relu")(x)[:, ::2])), waves(16, 4))


def unknown_length_pooled() -> Case:
    inputs = keras.Input((None, 4))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(12, 3, padding="same", activation="relu")(inputs))
    return live(keras.Model(inputs, layers.Dense(3)(x)), waves(24, 4))


def unknown_length_per_step() -> Case:
    inputs = keras.Input((None, 4))
    x = layers.GRU(8, return_sequences=True)(layers.Conv1D(12, 3, padding="causal")(inputs))
    return live(keras.Model(inputs, layers.Dense(3)(x)), waves(24, 4))
