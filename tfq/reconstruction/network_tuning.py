"""Network tuning: biases, weight scales and weights learn to make the outputs those of the float network, all at once.

    minimise    sum over the outputs  D(float output, quantised output)      over m, a, v of every layer

    w = s_0 exp(r_s a) round(clip(q_0 + r_w v, -k, k))       b = b_0 + r_b u m

    D = KL(softmax(y) || softmax(q))           y, q: what a softmax at the end of the graph reads
        |y - q|^2 / mean over samples |y|^2    for every other output (logits cannot be told from a regression)

    x = (1 - l) x_i + l x_j,  l uniform in [0, 1/2),  i, j: two samples        of few of them (`TUNING`)
        one sample, shifted, and mirrored where it has colours                 of thousands (`DISTILLATION`)

y is the float network's for x. So no labels are needed, and x may be made.

q_0, s_0, b_0 are the codes, scales and biases to begin with, u the step of the layer's output grid, and r the rates
(`Rates`): one step of Adam moves every m, a and v by at most about 1. So a rate counts steps of a grid, or is relative,
and depends neither on the network's units nor on its bits. What has the rate 0 stays. Gradients pass straight through
the roundings, inside the ranges; that of a scale is taken with the codes as they are, as in `adaquant`. Ranges of
activations stay.

    step k moves by  (m, a, v) <- (m, a, v) - t(k) Adam,   t rises to 1 over a sixth of the steps, then falls along a
                                                            half cosine to 0

The rates of `TUNING` suit weights that were rounded to the nearest. Behind a reconstruction, whose codes make good each
other's errors, all of them at once ruin the network before they find a direction; then nothing is proposed. Those of
`DISTILLATION` are a tenth to a half of them, and its steps ten times as many. They find what no layer can by itself, if
there are samples enough: a few hundred are soon learned by heart, and biases learned from them alone are worse on
others. Inputs of whole numbers, which nothing lies between, stay as they are.
q is taken before the softmax, whose own grid of 1/256 has hardly a gradient, and no effect on which class wins.
The state with the smallest D on the samples to choose by (`tfq.data.roles`) is kept if it proves itself there
against that before the first step (`tfq.simulate.judge`).

Scope: int8 layers with a matrix, of any network; calls of one layer share what is learned. Scales that are given
(`Grid.entropy_bits`) stay, and so do the codes of a codebook. What is learned is float32 here; biases and scales are
rounded afterwards, as in the file.

Sources: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv:1503.02531), the loss;
Bengio, Leonard and Courville 2013 (arXiv:1308.3432), the gradient of a rounding; Esser et al., "Learned Step Size
Quantization", 2020 (arXiv:1902.08153), learned scales; Zhang et al., "mixup: Beyond Empirical Risk Minimization",
2018 (arXiv:1710.09412). With biases alone it is the bias tuning of Hubara et al. 2020 (arXiv:2006.10518), whose
released code takes 800 steps of SGD with momentum 0.9 at rates of 1e-4, 1e-5 and 1e-6 in the units of the network, on
the samples as they are, and holds none back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.data.augmentation import varied
from tfq.data.calibration_set import CalibrationSet
from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.views import View
from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, build_model
from tfq.quantized_model import QuantizedModel
from tfq.reconstruction.learner import Learner, Rates, free_simulation, groups
from tfq.simulate.divergence import End, Measured, ends
from tfq.simulate.judge import is_proved
from tfq.simulate.weights import snap

_WARM_PART = 6  # of the steps: the rates rise
_MOMENTUM = 0.95
_LOOKS = 8  # times that the samples to choose by are looked at
_MOST_OF_THE_OTHER = 0.5  # in a mixture of two samples
_COPIES = 4  # a layer, its activation, its grid and a gradient, of every tensor
_MOST_NUMBERS = 2**26  # of all tensors of the samples of a step, which its time grows with
_PREDICTED = 8


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the network learns.

    Attributes:
      rates: how far a step moves what is learned.
      steps: of Adam.
      batch_size: samples a step, fewer of a large network (`_MOST_NUMBERS`).
      varies: samples are shifted and mirrored (`tfq.data.augmentation`); else they are mixed in pairs.
    """

    rates: Rates
    steps: int
    batch_size: int = 32
    varies: bool = False


TUNING = Schedule(Rates(), steps=120)
_SMALL = Rates(biases=0.02, scales=1e-3, weights=5e-3)
DISTILLATION = Schedule(_SMALL, steps=1500, batch_size=64, varies=True)


def tune_network(
    reference: Graph,
    model: QuantizedModel,
    calibration: CalibrationSet,
    *,
    schedule: Schedule = TUNING,
    seed: int = 0,
    resources: Resources = DEFAULT,
) -> QuantizedModel:
    """The model with biases, scales and weights that bring its outputs nearer to the float network's.

    Args:
      reference: the prepared float graph; its outputs, or what the softmaxes before them read, are called as in
        the model.
      model: the quantised model.
      calibration: read are the samples to fit and those to choose by.
      schedule: how it learns.
      seed: of the order of the samples.
      resources: where the tensors of a step do not fit into the memory, its gradient is summed over parts of it.

    Returns:
      Another model, or `model` itself where the samples to choose by show no improvement or there are
      none, and where no layer has anything to tune.
    """
    fit, choose = calibration.fit, calibration.choose
    start = snap(model)
    learners = [Learner.of(nodes, start, schedule.rates) for nodes in groups(start).values()]
    learners = [learner for learner in learners if learner.moves]
    if not learners or not len(choose):
        return model
    compared = ends(reference)
    exposed = [end.tensor for end in compared]
    elements = sum(int(np.prod(shape)) for shape in tensor_shapes(reference).values())
    batch_size = min(schedule.batch_size, max(1, _MOST_NUMBERS // elements), len(fit))
    at_once = resources.batch(_COPIES * 4 * elements, batch_size)
    float_model = build_model(reference, outputs=exposed)
    batches = fit.batches(min(_PREDICTED, at_once))
    floats = (float_model.predict_on_batch([batch[name] for name in reference.inputs]) for batch in batches)
    sizes = _sizes(floats, compared)
    simulation = free_simulation(start, learners, exposed)
    variables = [variable for learner in learners for variable in learner.bind(simulation)]
    moves = [move for learner in learners for move in learner.moves.values()]
    optimizer = tf_keras.optimizers.Adam(_share(schedule.steps), beta_1=_MOMENTUM, epsilon=1e-12, jit_compile=False)
    optimizer.build(moves)

    def loss(x: Sequence[tf.Tensor]) -> tf.Tensor:
        y, q = _listed(float_model(list(x))), _listed(simulation(list(x)))
        return tf.add_n(
            [
                _between_logits(a, b) if softmax else _squared(a, b, size)
                for a, b, (_, softmax), size in zip(y, q, compared, sizes, strict=True)
            ]
        )

    @tf.function(reduce_retracing=True)
    def measure(x: Sequence[tf.Tensor]) -> tf.Tensor:
        return loss(x)

    @tf.function(reduce_retracing=True)
    def slopes(x: Sequence[tf.Tensor], share: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            value = share * tf.reduce_mean(loss(x))
        return tape.gradient(value, variables)

    @tf.function
    def move(found: Sequence[tf.Tensor]) -> None:
        each = iter(found)
        gradients = [gradient for learner in learners for gradient in learner.gradients(each)]
        optimizer.apply_gradients(zip(gradients, moves, strict=True))
        for learner in learners:
            learner.assign()

    def learn(x: Sequence[np.ndarray]) -> None:
        parts = [
            slopes([feed[part] for feed in x], tf.constant(len(part) / batch_size, tf.float32))
            for part in _parts(batch_size, at_once)
        ]
        move(parts[0] if len(parts) == 1 else [tf.add_n(found) for found in zip(*parts, strict=True)])

    def chosen_by() -> np.ndarray:
        batches = (choose.at(part) for part in _parts(len(choose), at_once))
        found = [measure([batch[name] for name in reference.inputs]) for batch in batches]
        return np.concatenate(found).astype(np.float64)

    best, first = None, chosen_by()
    least = first
    look = max(1, schedule.steps // _LOOKS)
    feeds = [fit.arrays[name] for name in reference.inputs]
    drawn = (_variations if schedule.varies else _mixtures)(feeds, batch_size, np.random.default_rng(seed))
    with resources.progress.task("network tuning", schedule.steps) as advance:
        for step in range(1, schedule.steps + 1):
            learn(next(drawn))
            if step % look == 0 or step == schedule.steps:
                found = chosen_by()
                if found.mean() < least.mean():
                    best, least = [learner.state() for learner in learners], found
            advance(1)
    if best is None or not is_proved(least - first):
        return model
    return start.with_nodes(
        *(node for learner, state in zip(learners, best, strict=True) for node in learner.nodes(state))
    )


def _parts(count: int, at_once: int) -> list[np.ndarray]:
    """`count` positions, as few parts as may be of at most `at_once`, all of about the same size."""
    return np.array_split(np.arange(count), -(-count // at_once))


def _share(steps: int) -> tf_keras.optimizers.schedules.LearningRateSchedule:
    """t(k): of the rates."""
    warm = steps // _WARM_PART
    return tf_keras.optimizers.schedules.CosineDecay(
        1.0 / max(1, warm), steps - warm, warmup_target=1.0 if warm else None, warmup_steps=warm
    )


def _sizes(floats: Iterable[Any], compared: Sequence[End]) -> list[float]:
    """Mean over samples of |y|^2, of every output of the float model, batch by batch; 1 where all are logits."""
    if all(end.logits for end in compared):
        return [1.0] * len(compared)
    found = [Measured(logits=end.logits) for end in compared]
    for outputs in map(_listed, floats):
        for rod, y in zip(found, outputs, strict=True):
            rod.add(y)
    return [rod.yardstick.size for rod in found]


def _listed(found: Any) -> list[Any]:
    """The outputs of a Keras model, which gives a single one as it is."""
    return found if isinstance(found, list) else [found]


def _between_logits(y: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
    """D of every sample, [n]."""
    each = tf.reduce_sum(tf.nn.softmax(y) * (tf.nn.log_softmax(y) - tf.nn.log_softmax(q)), -1)
    return tf.reduce_mean(tf.reshape(each, [tf.shape(y)[0], -1]), -1)


def _squared(y: tf.Tensor, q: tf.Tensor, size: float) -> tf.Tensor:
    """D of every sample, [n], of another output, whose mean |y|^2 is `size`."""
    return tf.reduce_sum(tf.reshape(tf.math.squared_difference(y, q), [tf.shape(y)[0], -1]), -1) / size


def _mixtures(feeds: Sequence[np.ndarray | View], size: int, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Batches of `size` inputs, mixed in pairs where all of them are floating-point numbers."""
    order = _shuffled(len(feeds[0]), size, rng)
    mixed = all(np.issubdtype(feed.dtype, np.floating) for feed in feeds)
    for first in order:
        if mixed:
            second, share = next(order), rng.uniform(0.0, _MOST_OF_THE_OTHER, size)
            yield [_between(feed[first], feed[second], share.astype(feed.dtype)) for feed in feeds]
        else:
            yield [feed[first] for feed in feeds]


def _variations(feeds: Sequence[np.ndarray | View], size: int, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Batches of `size` inputs, images among them shifted and mirrored."""
    for positions in _shuffled(len(feeds[0]), size, rng):
        yield varied([feed[positions] for feed in feeds], rng)


def _between(values: np.ndarray, others: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(1 - share) * values + share * others, for each sample its share [n]."""
    return values + share.reshape(-1, *[1] * (values.ndim - 1)) * (others - values)


def _shuffled(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches of `size` positions, without end, each pass in an order of its own."""
    while True:
        shuffled = rng.permutation(count)
        for start in range(0, len(shuffled) - size + 1, size):
            yield shuffled[start : start + size]
