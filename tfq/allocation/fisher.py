"""dL of a state estimated from gradients of the float model: no file and no simulation is run.

    dL ~ 1/(2 n) sum over samples (g_i . dW)^2      g_i gradient of the loss of sample i, dW the error of the weights

This is 1/2 dW' H dW with the Hessian replaced by the Fisher information, of which g_i g_i' is a sample.

    loss               g_i
    KL(float || .)     sum over positions of r grad log p(y) / sqrt(positions), y drawn from the float model's p
    |y - q|^2 / S      sqrt(2 / S) grad sum r y, S the mean square of the output
                       r: random signs, which make the terms between positions and outputs vanish on average

The gradient of a divergence vanishes at the float model, so that nothing of first order is left out. One pass
forward and back for each sample serves all units and candidates.

Source: Dong et al. 2020, HAWQ-V2 (arXiv:1911.03852), equation 2, whose mean trace of H times |dW|^2 this sharpens by
keeping the direction of dW; the Fisher information in place of H: Martens 2020 (arXiv:1412.1193).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.allocation.sensitivity import FLOOR, Loss
from tfq.allocation.states import Key, State
from tfq.execution.progress import SILENT, Progress
from tfq.models.graph import Graph, build_model, variable_names
from tfq.simulate.divergence import is_distribution
from tfq.simulate.weights import snap_node

_TINY = 1e-7


def gradient_estimates(
    reference: Graph, states: Iterable[State], loss: Loss, *, seed: int = 0, progress: Progress = SILENT
) -> dict[Key, float]:
    """dL of every state by the estimate above, at least 1e-6.

    Args:
      reference: the prepared float graph.
      states: of its units.
      loss: on which samples.
      seed: of the drawn classes and signs.
    """
    states = list(states)
    model = build_model(reference, outputs=reference.outputs)
    errors = [_weight_errors(reference, state) for state in states]
    names = sorted({name for error in errors for name in error})
    slopes_of = _gradients(model, names, loss)
    rng = np.random.default_rng(seed)
    # for every output an array of its shape: g_i is the gradient of their product's sum
    factors = [_drawn(y, rng) if is_distribution(y) else _signed(y, rng) for y in loss.reference]
    count = len(loss.reference[0])
    total = np.zeros(len(states))
    with progress.task("gradients of the float model", count) as advance:
        for index in range(count):
            part = slice(index, index + 1)
            found = slopes_of(
                [tf.constant(loss.samples[name][part]) for name in reference.inputs],
                [tf.constant(factor[part], tf.float32) for factor in factors],
            )
            gradients = {name: value.numpy().ravel() for name, value in zip(names, found, strict=True)}
            slopes = [sum(float(gradients[name] @ value) for name, value in error.items()) for error in errors]
            total += np.square(slopes)
            advance(1)
    return {state.key: max(float(found), FLOOR) for state, found in zip(states, total / (2 * count), strict=True)}


def _weight_errors(reference: Graph, state: State) -> dict[tuple[str, str], np.ndarray]:
    """By (node, variable): how far the deployed weights lie from the float ones, flat."""
    found = {}
    for node in state.nodes:
        for name, value in snap_node(node).weights.items():
            found[node.name, name] = (value - reference[node.name].weights[name]).astype(np.float32).ravel()
    return found


def _gradients(model: tf_keras.Model, names: Sequence[tuple[str, str]], loss: Loss) -> Any:
    """A function of one sample's inputs and factors: the gradients of its score with respect to these variables."""
    layers = {node: model.get_layer(node) for node, _ in names}
    variables = {
        (node, name): variable
        for node, layer in layers.items()
        for name, variable in zip(variable_names(layer), layer.weights, strict=True)
    }
    wanted = [variables[name] for name in names]

    @tf.function
    def compute(feeds: list[Any], factors: list[Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            outputs = model(feeds if len(feeds) > 1 else feeds[0], training=False)
            terms = zip(tf.nest.flatten(outputs), factors, loss.reference, strict=True)
            score = tf.add_n([tf.reduce_sum(f * _logarithm(y, r)) for y, f, r in terms])
        found = tape.gradient(score, wanted, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(gradient) for gradient in found]  # an embedding's comes as the rows that were read

    return compute


def _logarithm(output: Any, reference: np.ndarray) -> Any:
    """What the factors multiply: log p of probabilities; any other output itself."""
    return tf.math.log(tf.maximum(output, _TINY)) if is_distribution(reference) else output


def _drawn(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sign at a class drawn from each position's probabilities."""
    classes = y.shape[-1]
    cumulative = np.cumsum(y.astype(np.float64), -1).reshape(-1, classes)
    drawn = (rng.random((len(cumulative), 1)) * cumulative[:, -1:] < cumulative).argmax(-1)
    found = np.zeros_like(cumulative)
    found[np.arange(len(found)), drawn] = rng.choice([-1.0, 1.0], len(found))
    return found.reshape(y.shape) / np.sqrt(len(found) / len(y))


def _signed(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signs, scaled."""
    mean_square = np.square(y, dtype=np.float64).sum() / len(y)
    return rng.choice([-1.0, 1.0], y.shape) * np.sqrt(2 / max(mean_square, _TINY))
