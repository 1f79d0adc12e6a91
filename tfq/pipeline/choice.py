"""Static or dynamic range for the whole model, where `precision` leaves it to tfq.

Static int8 puts every activation on a fixed grid: fastest where a network is convolutions, and worse where a few
channels are far larger than the others, as behind the layer normalisations of transformers. Dynamic range rounds what
each dense layer reads row by row while the model runs, and each convolution sample by sample; all other operations
stay in float.

    dynamic   where layer normalisations or products of activations stand in the model, its multiplications are mostly
              those of layers that have such kernels, and static int8 at the same bits loses more than twice as much on
              samples that nothing was fitted to; where other convolutions stand between, which are faster on fixed
              grids, it also has to lose more than 8 bits cost a convolutional network
    static    everywhere else, and where an option is given that only static int8 has

Twice the divergence is 3 dB: so much noise is worth the fixed grids, which other processors ask for.
"""

from __future__ import annotations

import dataclasses

from tfq.allocation.costs import multiply_accumulates
from tfq.data.calibration_set import CalibrationSet
from tfq.execution.journal import Journal
from tfq.models.floats import for_dynamic_range
from tfq.models.graph import Graph
from tfq.models.widths import can_be_dynamic, dynamic_precisions, is_weighted
from tfq.options import needs_int8
from tfq.pipeline.begin import Run, keeps_state
from tfq.pipeline.quantized import quantized, with_float_weights
from tfq.precision import STORED_BITS
from tfq.recipe import AUTO
from tfq.targets import TARGETS

_TELLTALE = ("LayerNormalization", "MatMul")  # of a transformer
_MOSTLY = 0.8  # of the multiplications of all layers with weights
_WORSE = 2.0
_MANY = 1e3
_TRIED = 128  # samples
_NOTICED = 1e-3  # divergence: noise 30 dB below the outputs


def with_precision(run: Run) -> Run:
    """The run in the precision that its recipe names, or in the better one."""
    if run.recipe.precision != AUTO:
        return in_precision(run, run.recipe.precision)
    static = in_precision(run, "int8")
    share = _share(run.graph)
    if share >= _MOSTLY and run.recipe.distills:
        run.journal.warn("distillation is of static int8, which most transformers lose by; dynamic range was not tried")
    if needs_int8(run.recipe) or share < _MOSTLY:
        return static
    dynamic = in_precision(run, "dynamic_range")
    losses = [_loss(tried) for tried in (static, dynamic)]
    if losses[0] <= max(_WORSE * losses[1], _NOTICED if share < 1 else 0.0):
        return static
    times = "very many" if losses[0] > _MANY * losses[1] else f"{losses[0] / losses[1]:.1f}"
    run.journal.warn(
        f"dynamic range was chosen for the whole model: static int8 is {times} times as far from float on held-back"
        " samples; `precision='int8'` keeps it static, as integer-only accelerators ask"
    )
    return dynamic


def converters_own(run: Run) -> bool:
    """Whether dynamic range is left to TFLiteConverter: it alone has it for the recurrent layers that keep a state."""
    recipe = run.recipe
    plain = recipe.precision == "dynamic_range" and recipe.weight_bits == STORED_BITS and recipe.pipeline == "int8"
    return plain and keeps_state(run.prepared.plain, run.baseline)


def _loss(run: Run) -> float:
    """Mean divergence of the model by its activations, made and judged by a part of the samples.

    Weights are fitted later; rounded to the nearest, those of few bits would hide the difference.
    """
    few = CalibrationSet.of(run.calibration.samples.spread(_TRIED))
    start = quantized(dataclasses.replace(run, calibration=few, journal=Journal()), run.graph)
    return float(start.judge.divergence(with_float_weights(start.trial)).mean())


def in_precision(run: Run, precision: str) -> Run:
    """The run with this precision for the whole model."""
    recipe = dataclasses.replace(run.recipe, precision=precision)
    if precision != "dynamic_range":
        return dataclasses.replace(run, recipe=recipe)
    graph = for_dynamic_range(run.prepared.plain, TARGETS[recipe.target])  # other forms are for integers
    precisions = dynamic_precisions(graph, recipe.weight_bits, first_last_bits=recipe.first_last_bits)
    prepared = dataclasses.replace(run.prepared, graph=graph, anew=())
    return dataclasses.replace(run, recipe=recipe, prepared=prepared, graph=graph, precisions=precisions)


def _share(graph: Graph) -> float:
    """Of the multiplications in layers with weights, those that dynamic range has kernels for; 0 of no transformer."""
    if not any(node.kind in _TELLTALE for node in graph.nodes):
        return 0.0
    macs = multiply_accumulates(graph)
    layers = [node for node in graph.nodes if is_weighted(node)]
    # one for every place, such as a position's constant, is no convolution
    layers = [
        node for node in layers if node.kind != "DepthwiseConv2D" or node.weights["depthwise_kernel"].shape[0] > 1
    ]
    covered = sum(macs[node.name] for node in layers if can_be_dynamic(node))
    return covered / max(1, sum(macs[node.name] for node in layers))
