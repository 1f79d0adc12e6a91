"""What network tuning moves of one layer, and how that acts in the simulation (`tfq.reconstruction.network_tuning`).

    w = s_0 exp(r_s a) round(clip(q_0 + r_w v, -k, k))       b = b_0 + r_b u m

Gradients by the weights of the simulation become those by m, a and v: straight through the rounding, inside the range;
that of a scale with the codes as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.calibration.specify import with_scales
from tfq.grid import Grid
from tfq.models.graph import Node
from tfq.operations.table import OPERATORS, operator_of
from tfq.quantized_model import QuantizedModel
from tfq.simulate.weights import integers, reals
from tfq.simulate.wrap import build_simulation


@dataclasses.dataclass(frozen=True)
class Rates:
    """How far a step of Adam moves at most what is learned; what has the rate 0 stays.

    Attributes:
      biases: in steps of their layers' output grids.
      scales: of weights, relative.
      weights: in steps of their grids.
    """

    biases: float = 0.1
    scales: float = 1e-2
    weights: float = 2e-2


def groups(model: QuantizedModel) -> dict[str, list[Node]]:
    """Group -> the calls of an int8 layer with a matrix."""
    groups: dict[str, list[Node]] = {}
    for node in model.nodes:
        if node.weight_grids and operator_of(node.kind).matrix is not None:
            groups.setdefault(node.group, []).append(node)
    return groups


def free_simulation(model: QuantizedModel, learners: Sequence[Learner], outputs: Sequence[str]) -> tf_keras.Model:
    """The simulation, in which the weights that learn are taken as they are: they lie on grids that may move."""
    free = [node.replace(weight_grids={}) for learner in learners for node in learner.calls]
    return build_simulation(model.with_nodes(*free), outputs=outputs)


State = Mapping[str, np.ndarray]
"""What a layer has learned: "codes", "scales" and, where it has one, "bias"."""


class Learner:
    """One Keras layer: what it learns, and how that acts."""

    def __init__(self, calls: Sequence[Node], input_grids: Sequence[Grid], rates: Mapping[str, float]):
        """
        Args:
          calls: the nodes that call it, their weights on their grids.
          input_grids: what each of them reads.
          rates: of "biases" in its units, of "scales" and of "weights"; those that are learned.
        """
        node = calls[0]
        self.calls, self._input_grids, self._rates = calls, input_grids, rates
        self._kernel = OPERATORS[node.kind].kernel
        self._grid = node.weight_grids[self._kernel]
        codes = integers(node.weights[self._kernel], self._grid).astype(np.float32)
        scales = np.asarray(self._grid.scale, np.float32)
        starts = {"weights": codes, "scales": scales, "biases": node.weights.get("bias")}
        self._start = {name: tf.constant(value) for name, value in starts.items() if value is not None}
        self.moves = {name: tf.Variable(tf.zeros_like(self._start[name])) for name in rates}
        self._biases: list[tf.Variable] = []
        self._kernels: list[tf.Variable] = []

    @classmethod
    def of(cls, calls: Sequence[Node], model: QuantizedModel, rates: Rates) -> Learner:
        """That of a layer of `model`."""
        node = calls[0]
        kernel = node.weight_grids[OPERATORS[node.kind].kernel]
        found = dataclasses.asdict(rates)
        found["biases"] *= model.grids[node.name].scale[0] if "bias" in node.weights else 0.0
        found["scales"] *= not kernel.entropy_bits
        found["weights"] *= not kernel.codebook
        return cls(calls, [model.grids[call.inputs[0]] for call in calls], {n: r for n, r in found.items() if r})

    def bind(self, simulation: tf_keras.Model) -> list[tf.Variable]:
        """The variables of the simulation whose gradients are asked for, in the order of `gradients`."""
        held = {layer.layer.name: layer.layer for layer in simulation.layers if hasattr(layer, "quantize_config")}
        layers = [held.get(call.name) or simulation.get_layer(call.name) for call in self.calls]
        if "biases" in self.moves:
            self._biases = [layer.bias for layer in layers]
        if self.moves.keys() - {"biases"}:
            self._kernels = [getattr(layer, self._kernel) for layer in layers]
        return self._biases + self._kernels

    def _moved(self, name: str) -> tf.Tensor:
        """r times the move."""
        return self._rates[name] * self.moves[name] if name in self.moves else tf.zeros_like(self._start[name])

    def _spread(self, scales: tf.Tensor) -> tf.Tensor:
        """Scales in a shape that multiplies the kernel's."""
        shape = [1] * len(self._start["weights"].shape)
        if self._grid.axis is not None:
            shape[self._grid.axis] = -1
        return tf.reshape(scales, shape)

    @property
    def _scales(self) -> tf.Tensor:
        return self._start["scales"] * tf.exp(self._moved("scales"))

    @property
    def _codes(self) -> tf.Tensor:
        low, high = self._grid.integer_range
        return tf.round(tf.clip_by_value(self._start["weights"] + self._moved("weights"), low, high))

    @property
    def _bias(self) -> tf.Tensor:
        return self._start["biases"] + self._moved("biases")

    def gradients(self, slopes: Iterator[tf.Tensor]) -> list[tf.Tensor]:
        """Those by the moves from the next of those by the simulation's variables; calls of one layer add up."""
        by_bias = [next(slopes) for _ in self._biases]
        by_kernel = [next(slopes) for _ in self._kernels]
        found = {"biases": tf.add_n(by_bias)} if by_bias else {}
        if by_kernel:
            low, high = self._grid.integer_range
            by_codes = tf.add_n(by_kernel) * self._spread(self._scales)
            exact = self._start["weights"] + self._moved("weights")
            found["weights"] = tf.where((exact >= low) & (exact <= high), by_codes, 0.0)
            others = [axis for axis in range(len(exact.shape)) if axis != self._grid.axis]
            found["scales"] = tf.reshape(tf.reduce_sum(by_codes * self._codes, others), [-1])
        return [self._rates[name] * found[name] for name in self.moves]

    def assign(self) -> None:
        """Put what is learned into the simulation."""
        for variable in self._biases:
            variable.assign(self._bias)
        for variable in self._kernels:
            variable.assign(self._spread(self._scales) * self._codes)

    def state(self) -> State:
        """A copy of what is learned."""
        found = {"codes": self._codes.numpy(), "scales": self._scales.numpy()}
        return found | ({"bias": self._bias.numpy()} if "biases" in self._start else {})

    def nodes(self, state: State) -> list[Node]:
        """The calls with what was learned: kernels on their grids, and one bias, which lies on one grid for each."""
        kernel = self._spread(tf.constant(state["scales"])).numpy() * state["codes"]
        bias = {name: state[name] for name in ("bias",) if name in state}

        def learned(call: Node, input_grid: Grid) -> Node:
            node = call.replace(weights={**call.weights, **bias})
            # the scales that were learned, but where an int32 could not hold the bias
            node = with_scales(node, state["scales"], input_grid)
            grid = node.weight_grids[self._kernel]
            return node.replace(weights={**node.weights, self._kernel: reals(integers(kernel, grid), grid)})

        return [learned(call, grid) for call, grid in zip(self.calls, self._input_grids, strict=True)]
