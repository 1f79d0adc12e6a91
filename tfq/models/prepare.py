"""Preparation: the flat graph as only the operations that quantise well, each step checked against the original.

The transformations run in the order of `TRANSFORMATIONS`. Each is a pure function Graph -> Graph, exact in
real arithmetic; after each that changed anything, the graph must give the outputs of the untransformed one.

Then operations that the target runs slowly in int8 take other forms (`tfq.models.forms`), and what these brought is
folded and fused again (`AGAIN`). The float baseline has not these forms: its kernels are others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tfq.errors import UserError
from tfq.execution.progress import SILENT, Progress
from tfq.models.bounded_masks import bound_masks
from tfq.models.decompose import decompose, split_activations
from tfq.models.ends import free_ends
from tfq.models.equality import random_inputs, relative_error, run_graph
from tfq.models.floats import without_wide_depthwise
from tfq.models.fold import affines_to_layers, fold_affines
from tfq.models.forms import WrittenAnew, written_for
from tfq.models.fuse import (
    absorb_padding,
    clamp_before_gelu,
    drop_identities,
    fuse_activations,
    merge_clamps,
    merge_duplicates,
    recognise_hard_swish,
    split_groups,
)
from tfq.models.graph import INPUT, Graph
from tfq.models.grids import separate_grids
from tfq.models.inputs import typed_inputs, without_grid
from tfq.models.load import LoadedModel
from tfq.models.refusals import refuse, without_output
from tfq.models.reshapes import cancel_reshapes
from tfq.models.singular import keep_off_zero
from tfq.models.wide import Wide, keep_wide_float
from tfq.operations.table import OPERATORS
from tfq.targets.target import Target

Transformations = Sequence[tuple[str, Callable[[Graph], Graph]]]
TRANSFORMATIONS: Transformations = (
    ("split activations", split_activations),
    ("decompose layers", decompose),
    ("drop identities", drop_identities),
    ("merge duplicates", merge_duplicates),
    ("cancel reshapes", cancel_reshapes),
    ("keep off zero", keep_off_zero),
    ("recognise hard-swish", recognise_hard_swish),
    ("fold affine maps", fold_affines),
    ("affine maps to layers", affines_to_layers),
    ("cancel reshapes again", cancel_reshapes),
    ("merge duplicates again", merge_duplicates),
    ("merge clamps", merge_clamps),
    ("clamp before gelu", clamp_before_gelu),
    ("fuse activations", fuse_activations),
    ("absorb padding", absorb_padding),
    ("split grouped convolutions", split_groups),
)
AGAIN = (
    ("absorb padding of forms", absorb_padding),
    ("merge duplicate forms", merge_duplicates),
    ("fold affine maps again", fold_affines),
    ("affine maps to layers again", affines_to_layers),
    ("fuse activations again", fuse_activations),
)
# Rewritten sums round differently. A real mistake shows as 1e-2 or more; where an error exceeds 1e-4, the network's
# own sensitivity to rounding is measured by moving its inputs by one part in 2**22.
_LEAST_BOUND, _LARGEST_BOUND, _OVER_NOISE = 1e-4, 1e-2, 100.0
_NUDGE = 2.0**-22
_LOST_BESIDE_ONE = 1e-6  # about ten steps of float32 at 1
_HALF_BOUND = 0.05  # a model that computes in 16 bits is only as exact as that itself
_CHECKED_SAMPLES = 4  # real ones, and as many random ones
_MASKED_SAMPLES = 32  # real ones: a mask may hide something in few of them


@dataclasses.dataclass(frozen=True)
class TransformationCheck:
    """What one transformation did.

    Attributes:
      name: the transformation.
      nodes_before, nodes_after: nodes of the graph.
      max_error: largest difference of an output from the untransformed model's, relative to that output's peak,
        over real and random inputs.
      bound: what `max_error` had to stay under.
    """

    name: str
    nodes_before: int
    nodes_after: int
    max_error: float
    bound: float


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The prepared graph.

    Attributes:
      graph: to be quantised.
      checks: of the transformations that changed it.
      notes: what a person should know.
      plain: the graph without the forms of the target: what a float runtime is given.
      anew: what was given another form.
    """

    graph: Graph
    checks: tuple[TransformationCheck, ...]
    notes: tuple[str, ...]
    plain: Graph
    anew: tuple[WrittenAnew, ...]


def _check_samples(graph: Graph, samples: Mapping[str, np.ndarray]) -> None:
    for name in graph.inputs:
        if name not in samples:
            raise UserError(f"no samples for the input {name!r}; got samples for {', '.join(samples)}")
        values, declared = np.asarray(samples[name]), tuple(graph[name].config["shape"])
        if values.shape[1:] != declared:
            raise UserError(
                f"samples of the input {name!r} have the shape {values.shape[1:]}; the model takes {declared}"
            )
        if not len(values) or not np.isfinite(values).all():
            raise UserError(f"the input {name!r} needs at least one sample, and no NaN or infinity in any")


def _checked_inputs(
    declared: Graph, graph: Graph, samples: Mapping[str, np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """A few real samples and as many random ones.

    Where an input holds indices beside quantities, the random samples take each number from some real one.
    """
    real = _real_inputs(declared, graph, samples, _CHECKED_SAMPLES)
    rng = np.random.default_rng(seed)
    random = random_inputs(real, rng)
    random |= {n: rng.permuted(real[n], axis=0) for n in graph.inputs if without_grid(graph[n])}
    return {name: np.concatenate([real[name], random[name]]) for name in real}


def _real_inputs(declared: Graph, graph: Graph, samples: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """The first samples, in the types that the user's model takes: integers stay whole."""
    return {name: np.asarray(samples[name][:most], declared[name].config["dtype"]) for name in graph.inputs}


def _rounding_bound(graph: Graph, inputs: Mapping[str, np.ndarray], expected: list[np.ndarray]) -> float:
    nudged = {n: x * np.float32(1 + _NUDGE) if np.issubdtype(x.dtype, np.floating) else x for n, x in inputs.items()}
    noise = relative_error(expected, run_graph(graph, nudged))
    return float(np.clip(_OVER_NOISE * noise, _LEAST_BOUND, _LARGEST_BOUND))


def _passed(check: TransformationCheck) -> TransformationCheck:
    if not check.max_error <= check.bound:
        raise RuntimeError(
            f"transformation {check.name!r} changed the outputs by {check.max_error:.3g} of their peak, above"
            f" {check.bound:.3g}"
        )
    return check


def _check_flattening(
    original: LoadedModel, graph: Graph, inputs: Mapping[str, np.ndarray], outputs: list[np.ndarray]
) -> TransformationCheck:
    """The flat graph's `outputs` against the user's own model.

    Raises:
      UserError: they differ; the message names the output and, where the model itself is the reason, says so.
    """
    given = list(original.predict(inputs))
    error = relative_error(given, outputs)
    bound = _LEAST_BOUND
    if original.compute_dtype != "float32":
        bound = _HALF_BOUND
    elif error > bound:
        bound = _rounding_bound(graph, inputs, outputs)
    if not error <= bound:
        again = relative_error(given, list(original.predict(inputs)))
        if not again <= bound:
            raise UserError(
                f"the model gives other outputs for the same samples at each call (by {again:.3g} of their peak);"
                " take out the layers that are random, or that keep a state, outside training"
            )
        if original.compute_dtype != "float32":
            return _half_check(original, graph, given, outputs)
        errors = [relative_error([a], [b]) for a, b in zip(given, outputs, strict=True)]
        place = int(np.argmax(errors))
        worst, peak = graph.output_names[place], np.abs(given[place]).max()
        if peak < _LOST_BESIDE_ONE:
            raise UserError(
                f"the model's output {worst!r} is at most {peak:.3g} on the samples, which float32 loses beside 1, as"
                " in log(1 + x); give samples on which the output varies, or take out what makes it that small"
            )
        raise UserError(
            f"the model's output {worst!r} differs by {error:.3g} of its peak (allowed: {bound:.3g}) from what the"
            " layers say by their configuration; replace layers that compute something else, or, if there are none,"
            " report this defect of tfq with the model"
        )
    if any(node.kind == "Carried" for node in graph.nodes):
        _check_apart(graph, inputs, outputs)
    return TransformationCheck("flatten the layers", len(graph.nodes), len(graph.nodes), error, bound)


def _check_apart(graph: Graph, inputs: Mapping[str, np.ndarray], outputs: list[np.ndarray]) -> None:
    """Raise UserError where a sample alone, as the file runs it, gives another output than in a batch."""
    alone = run_graph(graph, {name: values[:1] for name, values in inputs.items()})
    if relative_error([y[:1] for y in outputs], alone) > _LARGEST_BOUND:
        named = ", ".join(f"{n.origin[0]} ({n.config['work'].name})" for n in graph.nodes if n.kind == "Carried")
        raise UserError(
            "the model's output for a sample depends on the other samples of its batch, and a .tflite runs one at a"
            f" time; take out the layers that mix samples, one of {named}"
        )


def _half_check(
    original: LoadedModel, graph: Graph, given: list[np.ndarray], outputs: list[np.ndarray]
) -> TransformationCheck:
    """Of a model that computes in 16 bits, where numbers beyond 65504 are infinite: where it stays finite."""
    finite = [np.isfinite(a) & np.isfinite(b) for a, b in zip(given, outputs, strict=True)]
    error = relative_error(
        [a[f] for a, f in zip(given, finite, strict=True)], [b[f] for b, f in zip(outputs, finite, strict=True)]
    )
    if not error <= _HALF_BOUND:
        raise UserError(
            f"the model computes in {original.compute_dtype}, and differs by {error:.3g} of its peak (allowed:"
            f" {_HALF_BOUND}) from its layers in float32; build it again with the dtype float32 and load its weights"
        )
    return TransformationCheck("flatten the layers", len(graph.nodes), len(graph.nodes), error, _HALF_BOUND)


def _check_outputs(graph: Graph) -> None:
    for position, name in enumerate(graph.outputs):
        what = f"the model's output {graph.output_names[position]!r}"
        if graph[name].kind == INPUT:
            way_out = without_output(len(set(graph.outputs) - set(graph.inputs)) > 0)
            raise UserError(f"{what} is its input {name!r} unchanged; {way_out}")
        if name in graph.outputs[:position]:
            first = graph.output_names[graph.outputs.index(name)]
            raise UserError(f"{what} is the same as its output {first!r}; take one of them out of the model's outputs")


def _check_differences(graph: Graph) -> None:
    for node in graph.nodes:
        if node.kind == "Subtract" and node.inputs[0] == node.inputs[1]:
            raise UserError(
                f"layer {node.origin[0]!r} subtracts a tensor from itself, which is 0 whatever the input; take it out"
            )


def outlines(graph: Graph, target: Target | None = None) -> Iterator[Graph]:
    """The graph after each transformation that needs no samples, unchecked: what layers there may be in the end.

    It is told without running the model. Arguments as in `prepare`.

    Raises UserError for a layer that no int8 operation stands for.
    """
    graph = typed_inputs(graph)
    yield graph
    for _, transform in TRANSFORMATIONS:
        graph = transform(graph)
        yield graph
    if target is not None:
        yield written_for(graph, target)[0]


def prepare(
    graph: Graph,
    samples: Mapping[str, np.ndarray],
    *,
    original: LoadedModel | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
    wide: Wide | None = None,
    target: Target | None = None,
) -> Prepared:
    """Rewrite `graph` into the operations of `OPERATORS`, checking every step.

    Args:
      graph: a loaded model.
      samples: a few real inputs by input name, [n, ...]; the first 4 are used, the first 32 where masks are looked for.
      original: the model that `graph` was flattened from; the flattening is then checked like a transformation.
      seed: of the random inputs.
      progress: shows the transformations.
      wide: inputs that may have to stay float (`tfq.models.wide`).
      target: what the integer model is to run on; None: no operation takes another form.

    Raises:
      UserError: a layer that no int8 operation stands for, by name; samples that do not fit the model or on which
        its output is not finite; an output that is an input, or is there twice.
      RuntimeError: a transformation changed what the model computes.
    """
    _check_samples(graph, samples)
    declared, graph = graph, typed_inputs(graph)
    inputs = _checked_inputs(declared, graph, samples, seed)
    more = _real_inputs(declared, graph, samples, _MASKED_SAMPLES)
    shown = {name: np.concatenate([inputs[name], values[_CHECKED_SAMPLES:]]) for name, values in more.items()}
    checks = []
    notes: tuple[str, ...] = ()
    anew: tuple[WrittenAnew, ...] = ()
    with progress.task("prepare", len(TRANSFORMATIONS) + 2) as advance:
        expected = run_graph(graph, inputs)
        for name, values in zip(graph.output_names, expected, strict=True):
            if values.dtype == bool:
                raise refuse(f"Output {name!r}", "it holds truth values", "cast it to float32 in the model")
        if not all(np.isfinite(y[: len(y) // 2]).all() for y in expected):
            raise UserError("the model gives NaN or infinity on the samples; check its weights and their preprocessing")
        loaded, bound = graph, _LEAST_BOUND
        if original is not None:
            checks.append(_check_flattening(original, graph, inputs, expected))

        def checked(name: str, before: Graph, graph: Graph) -> Graph:
            nonlocal bound
            if graph is not before:
                error = relative_error(expected, run_graph(graph, inputs))
                if error > bound == _LEAST_BOUND:
                    bound = _rounding_bound(loaded, inputs, expected)
                checks.append(_passed(TransformationCheck(name, len(before.nodes), len(graph.nodes), error, bound)))
            return graph

        advance(1)
        for name, transform in TRANSFORMATIONS:
            before, graph = graph, transform(graph)
            if transform is decompose and wide is not None:
                graph, notes = keep_wide_float(graph, wide)
            graph = checked(name, before, graph)
            if transform is merge_duplicates:
                graph = checked("bound masks", graph, merge_duplicates(bound_masks(graph, shown)))
            advance(1)
        if target is not None and not target.integers_only:
            real = {name: x[: len(x) // 2] for name, x in inputs.items()}
            graph, found = free_ends(graph, real, [y[: len(y) // 2] for y in expected])
            notes += found
        plain = checked("separate grids", graph, separate_grids(graph))
        before = graph
        if target is not None:
            graph, anew = written_for(graph, target)
        graph = checked("forms for the target", before, graph)
        for name, transform in AGAIN if anew else ():
            graph = checked(name, graph, transform(graph))
        graph = checked("separate grids again", graph, separate_grids(graph)) if anew else plain
        advance(1)
    _check_outputs(graph)
    _check_differences(graph)
    unknown = [n for n in graph.nodes if n.kind != INPUT and n.kind not in OPERATORS]
    if unknown:
        raise RuntimeError(f"preparation left {[(n.name, n.kind) for n in unknown]}")
    plain = checked("wide depthwise convolutions as sums", plain, without_wide_depthwise(plain))
    return Prepared(graph, tuple(checks), notes, plain, anew)
