"""Text: transformers of several kinds, taggers, classifiers, embeddings."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers, ops

from benchmarks.coverage_models.making import Case, live, tokens

_LENGTH, _WORDS, _WIDTH = 16, 200, 32


class TokensAndPositions(layers.Layer):
    """As in keras.io's text classification with a transformer."""

    def __init__(self, mask_zero: bool = False):
        super().__init__()
        self.words = layers.Embedding(_WORDS, _WIDTH, mask_zero=mask_zero, embeddings_initializer="normal")
        self.positions = layers.Embedding(_LENGTH, _WIDTH, embeddings_initializer="normal")

    def call(self, x: Any) -> Any:
        positions = ops.arange(0, ops.shape(x)[-1], 1)
        return self.words(x) * 10 + self.positions(positions) * 5


class TransformerBlock(layers.Layer):
    def __init__(self, width: int = _WIDTH, **attention: Any):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, width // 2)
        self.feed = keras.Sequential([layers.Dense(2 * width, "relu"), layers.Dense(width)])
        self.norm1, self.norm2 = layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)
        self.options = attention

    def call(self, x: Any, training: bool = False) -> Any:  # noqa: ARG002
        x = self.norm1(x + self.attention(x, x, **self.options))
        return self.norm2(x + self.feed(x))


def _text(model: keras.Model, *, padded: bool = False) -> Case:
    return live(model, tokens(_LENGTH, _WORDS, padded=padded))


def transformer_classifier() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = TransformerBlock()(TokensAndPositions()(inputs))
    x = layers.Dense(20, activation="relu")(layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(x)))
    return _text(keras.Model(inputs, layers.Dense(2, activation="softmax")(x)))


def transformer_float_tokens() -> Case:
    inputs = keras.Input((_LENGTH,))
    x = layers.GlobalAveragePooling1D()(TransformerBlock()(TokensAndPositions()(inputs)))
    return _text(keras.Model(inputs, layers.Dense(4)(x)))


def causal_decoder() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = TokensAndPositions()(inputs)
    for _ in range(2):
        x = TransformerBlock(use_causal_mask=True)(x)
    return _text(keras.Model(inputs, layers.Dense(_WORDS)(x)))


def gpt_tied_embedding() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    embedding = layers.Embedding(_WORDS, _WIDTH, embeddings_initializer=keras.initializers.RandomNormal(stddev=0.5))
    x = TransformerBlock(use_causal_mask=True)(embedding(inputs))
    return _text(keras.Model(inputs, ops.matmul(x, ops.transpose(embedding.embeddings))))


def named_entities() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = TransformerBlock()(TokensAndPositions(mask_zero=True)(inputs))
    x = layers.Dense(_WIDTH, activation="relu")(layers.Dropout(0.1)(x))
    return _text(keras.Model(inputs, layers.Dense(9, activation="softmax")(x)), padded=True)


def bert_two_inputs() -> Case:
    words = keras.Input((_LENGTH,), dtype="int32", name="input_ids")
    mask = keras.Input((_LENGTH,), dtype="int32", name="attention_mask")
    x = layers.LayerNormalization()(TokensAndPositions()(words))
    for _ in range(2):
        y = layers.MultiHeadAttention(2, 16)(x, x, attention_mask=ops.cast(mask[:, None, :], "bool"))
        x = layers.LayerNormalization()(x + y)
        x = layers.LayerNormalization()(x + layers.Dense(_WIDTH)(layers.Dense(64, "gelu")(x)))
    pooled = layers.Dense(_WIDTH, "tanh")(x[:, 0, :])
    text = tokens(_LENGTH, _WORDS, padded=True)
    return live(keras.Model([words, mask], layers.Dense(3)(pooled)), text, (text > 0).astype("int32"))


def bert_additive_mask() -> Case:
    words = keras.Input((_LENGTH,), dtype="int32", name="input_ids")
    mask = keras.Input((_LENGTH,), dtype="int32", name="attention_mask")
    x = TokensAndPositions()(words)
    added = (1.0 - ops.cast(mask, "float32"))[:, None, None, :] * -1e9
    q, k, v = (ops.transpose(ops.reshape(layers.Dense(_WIDTH)(x), (-1, _LENGTH, 2, 16)), (0, 2, 1, 3)) for _ in "qkv")
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 4.0 + added
    y = ops.reshape(ops.transpose(ops.matmul(ops.softmax(scores), v), (0, 2, 1, 3)), (-1, _LENGTH, _WIDTH))
    x = layers.LayerNormalization()(x + layers.Dense(_WIDTH)(y))
    text = tokens(_LENGTH, _WORDS, padded=True)
    return live(keras.Model([words, mask], layers.Dense(3)(x[:, 0])), text, (text > 0).astype("int32"))


def sentence_embedding() -> Case:
    words = keras.Input((_LENGTH,), dtype="int32", name="ids")
    mask = keras.Input((_LENGTH,), name="mask")
    x = TransformerBlock()(TokensAndPositions()(words))
    weights = ops.expand_dims(mask, -1)
    pooled = ops.sum(x * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1e-9)
    text = tokens(_LENGTH, _WORDS, padded=True)
    model = keras.Model([words, mask], ops.normalize(pooled, axis=-1))
    return live(model, text, (text > 0).astype("float32"))


def masked_average_tf_keras() -> Case:
    k = tf_keras.layers
    inputs = tf_keras.Input((_LENGTH,), dtype="int32")
    x = k.GlobalAveragePooling1D()(k.Embedding(_WORDS, 16, mask_zero=True)(inputs))
    return live(tf_keras.Model(inputs, k.Dense(2)(k.Dense(16, "relu")(x))), tokens(_LENGTH, _WORDS, padded=True))


def text_convolutions() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = layers.Embedding(_WORDS, 24)(inputs)
    pooled = [layers.GlobalMaxPooling1D()(layers.Conv1D(8, size, activation="relu")(x)) for size in (3, 4, 5)]
    return _text(keras.Model(inputs, layers.Dense(4)(layers.Concatenate()(pooled))))


def fasttext_bag() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = ops.sum(layers.Embedding(_WORDS, 16)(inputs), axis=1)
    return _text(keras.Model(inputs, layers.Dense(5, "softmax")(x * 20)))


def bag_of_words() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = layers.CategoryEncoding(_WORDS, "multi_hot")(inputs)
    return _text(keras.Model(inputs, layers.Dense(3)(layers.Dense(16, "relu")(x))))


def fourier_mixing() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    angle = 2 * np.pi / _LENGTH * np.outer(np.arange(_LENGTH), np.arange(_LENGTH))
    over_words = np.cos(2 * np.pi / _WIDTH * np.outer(np.arange(_WIDTH), np.arange(_WIDTH))).astype("float32")
    x = TokensAndPositions()(inputs)
    for _ in range(2):
        y = ops.matmul(np.cos(angle).astype("float32"), ops.matmul(x, over_words))
        x = layers.LayerNormalization()(x + y)
        x = layers.LayerNormalization()(x + layers.Dense(_WIDTH)(layers.Dense(64, "relu")(x)))
    return _text(keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x))))


class Rotary(layers.Layer):
    """Rotated queries and keys, root-mean-square norms and gated feed-forward, as in Llama."""

    def build(self, shape: Any) -> None:
        self.norm1, self.norm2 = layers.RMSNormalization(), layers.RMSNormalization()
        self.norm1.build(shape)
        self.norm2.build(shape)
        self.q, self.k, self.v, self.o = (layers.Dense(n, use_bias=False) for n in (_WIDTH, 16, 16, _WIDTH))
        self.gate, self.up, self.down = (layers.Dense(n, use_bias=False) for n in (64, 64, _WIDTH))

    def _rotated(self, x: Any) -> Any:
        angles = np.outer(np.arange(_LENGTH), 100.0 ** -(np.arange(4) / 4))
        sine, cosine = np.sin(angles)[None, None].astype("float32"), np.cos(angles)[None, None].astype("float32")
        a, b = ops.split(x, 2, axis=-1)
        return ops.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)

    def _heads(self, x: Any, count: int) -> Any:
        return ops.transpose(ops.reshape(x, (-1, _LENGTH, count, 8)), (0, 2, 1, 3))

    def call(self, x: Any) -> Any:
        y = self.norm1(x)
        q = self._rotated(self._heads(self.q(y), 4))
        k, v = self._rotated(self._heads(self.k(y), 2)), self._heads(self.v(y), 2)
        k, v = ops.repeat(k, 2, axis=1), ops.repeat(v, 2, axis=1)
        scores = ops.einsum("bhqd,bhkd->bhqk", q, k) / np.sqrt(8)
        mask = np.triu(np.full((_LENGTH, _LENGTH), -1e9, "float32"), 1)
        weights = ops.softmax(scores + mask, axis=-1)
        y = ops.einsum("bhqk,bhkd->bhqd", weights, v)
        x = x + self.o(ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, _LENGTH, _WIDTH)))
        y = self.norm2(x)
        return x + self.down(ops.silu(self.gate(y)) * self.up(y))


def llama() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = layers.Embedding(_WORDS, _WIDTH, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0))(inputs)
    x = layers.RMSNormalization()(Rotary()(Rotary()(x)))
    return _text(keras.Model(inputs, layers.Dense(_WORDS, use_bias=False)(x)))


class RelativeBias(layers.Layer):
    """Attention with a learnt bias for every distance, as in T5."""

    def build(self, _: Any) -> None:
        self.table = self.add_weight(shape=(2 * _LENGTH - 1, 2), initializer="normal", name="table")
        self.qkv, self.out = layers.Dense(3 * _WIDTH, use_bias=False), layers.Dense(_WIDTH, use_bias=False)

    def call(self, x: Any) -> Any:
        q, k, v = (ops.reshape(t, (-1, _LENGTH, 2, 16)) for t in ops.split(self.qkv(x), 3, axis=-1))
        at = np.arange(_LENGTH)
        bias = ops.take(self.table, at[:, None] - at[None, :] + _LENGTH - 1, axis=0)
        scores = ops.einsum("bqhd,bkhd->bhqk", q, k) * 0.25 + ops.transpose(bias, (2, 0, 1))[None]
        y = ops.einsum("bhqk,bkhd->bqhd", ops.softmax(scores), v)
        return self.out(ops.reshape(y, (-1, _LENGTH, _WIDTH)))


def t5_encoder() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = layers.Embedding(_WORDS, _WIDTH, embeddings_initializer="normal")(inputs) * 20
    x = x + RelativeBias()(layers.RMSNormalization()(x))
    x = x + layers.Dense(_WIDTH)(layers.Dense(64, "relu")(layers.RMSNormalization()(x)))
    return _text(keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x))))


class Experts(layers.Layer):
    """A mixture of dense experts, all computed and weighed by a softmax."""

    def build(self, shape: Any) -> None:
        self.kernels = self.add_weight(shape=(4, shape[-1], 24), initializer="glorot_uniform", name="kernels")
        self.router, self.out = layers.Dense(4, "softmax"), layers.Dense(shape[-1])

    def call(self, x: Any) -> Any:
        hidden = ops.gelu(ops.einsum("bsd,edf->besf", x, self.kernels))
        weighed = ops.einsum("besf,bse->bsf", hidden, self.router(x))
        return x + self.out(weighed)


def mixture_of_experts() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = layers.LayerNormalization()(Experts()(layers.LayerNormalization()(TokensAndPositions()(inputs))))
    return _text(keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x))))


def linear_attention() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = layers.LayerNormalization()(TokensAndPositions()(inputs))
    q, k = (ops.elu(layers.Dense(16)(x)) + 1.0 for _ in "qk")
    v = layers.Dense(16)(x)
    context = ops.matmul(ops.transpose(k, (0, 2, 1)), v)
    total = ops.matmul(q, ops.expand_dims(ops.sum(k, axis=1), -1))
    x = x + layers.Dense(_WIDTH)(ops.matmul(q, context) / total)
    return _text(keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x))))


def additive_attention() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = layers.Embedding(_WORDS, 24, embeddings_initializer="normal")(inputs) * 10
    y = layers.AdditiveAttention()([x, layers.Dense(24)(x)])
    z = layers.Attention(use_scale=True)([y, x])
    x = layers.GlobalAveragePooling1D()(layers.Concatenate()([y, z]))
    return _text(keras.Model(inputs, layers.Dense(3)(x)))


def grouped_query_attention() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = layers.LayerNormalization()(TokensAndPositions()(inputs))
    x = x + layers.GroupQueryAttention(head_dim=8, num_query_heads=4, num_key_value_heads=2)(x, x)
    return _text(keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling1D()(x))))


def translation_teacher_forced() -> Case:
    source = keras.Input((_LENGTH,), dtype="int32", name="encoder_inputs")
    target = keras.Input((_LENGTH,), dtype="int32", name="decoder_inputs")
    encoded = TransformerBlock()(TokensAndPositions()(source))
    x = TokensAndPositions()(target)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 16)(x, x, use_causal_mask=True))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 16)(x, encoded))
    x = layers.LayerNormalization()(x + layers.Dense(_WIDTH)(layers.Dense(64, "relu")(x)))
    model = keras.Model([source, target], layers.Dense(_WORDS)(x))
    return live(model, tokens(_LENGTH, _WORDS), tokens(_LENGTH, _WORDS, seed=1))


def question_answering_spans() -> Case:
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = TransformerBlock()(TokensAndPositions()(inputs))
    start, end = (layers.Flatten()(layers.Dense(1, use_bias=False)(x)) for _ in range(2))
    outputs = [layers.Softmax(name="start")(start), layers.Softmax(name="end")(end)]
    return _text(keras.Model(inputs, outputs))


def transformer_tf_keras() -> Case:
    k = tf_keras.layers
    inputs = tf_keras.Input((_LENGTH,), dtype="int32")
    x = k.Embedding(_WORDS, _WIDTH, embeddings_initializer="normal")(inputs) * 10.0
    x = x + k.Embedding(_LENGTH, _WIDTH, embeddings_initializer="normal")(tf.range(_LENGTH)[None]) * 10.0
    for _ in range(2):
        x = k.LayerNormalization()(x + k.MultiHeadAttention(2, 16)(x, x))
        x = k.LayerNormalization()(x + k.Dense(_WIDTH)(k.Dense(64, tf_keras.activations.gelu)(x)))
    return live(tf_keras.Model(inputs, k.Dense(4)(x[:, 0])), tokens(_LENGTH, _WORDS))


def skip_gram() -> Case:
    word, context = keras.Input((1,), dtype="int32"), keras.Input((5,), dtype="int32")
    a = layers.Embedding(_WORDS, 16, embeddings_initializer="normal")(word)
    b = layers.Embedding(_WORDS, 16, embeddings_initializer="normal")(context)
    scores = layers.Flatten()(layers.Dot(axes=(2, 2))([a, b])) * 300
    return live(
        keras.Model([word, context], layers.Activation("sigmoid")(scores)), tokens(1, _WORDS), tokens(5, _WORDS)
    )


def pairwise_attention_entailment() -> Case:
    a, b = keras.Input((_LENGTH,), dtype="int32"), keras.Input((_LENGTH,), dtype="int32")
    embedding = layers.Embedding(_WORDS, 24, embeddings_initializer=keras.initializers.RandomNormal(stddev=0.6))
    x, y = embedding(a), embedding(b)
    scores = ops.einsum("bik,bjk->bij", x, y)
    beta = ops.einsum("bij,bjk->bik", ops.softmax(scores, axis=-1), y)
    alpha = ops.einsum("bij,bik->bjk", ops.softmax(scores, axis=1), x)
    compare = layers.Dense(16, "relu")
    v = ops.sum(compare(ops.concatenate([x, beta, x - beta, x * beta], -1)), axis=1)
    w = ops.sum(compare(ops.concatenate([y, alpha, y - alpha, y * alpha], -1)), axis=1)
    model = keras.Model([a, b], layers.Dense(3)(ops.concatenate([v, w], -1)))
    return live(model, tokens(_LENGTH, _WORDS), tokens(_LENGTH, _WORDS, seed=1))
