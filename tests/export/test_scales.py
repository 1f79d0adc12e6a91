"""Scales are brought to what the kernels take; those that no runtime takes are told in one line."""

import itertools
from collections.abc import Iterator

import numpy as np
import operator_graphs
import pytest

from tfq.calibration.specify import specify
from tfq.calibration.statistics import Range
from tfq.errors import UserError
from tfq.execution.delegation import delegation
from tfq.execution.interpreter import TfliteModel
from tfq.export.package import export_quantized
from tfq.export.scales import require_runnable, with_legal_scales
from tfq.grid import activation_grid
from tfq.models.graph import Graph, Node
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.targets.cpu import CPU
from tfq.targets.micro import MICRO
from tfq.targets.target import FAST, PLAIN, REFUSED, Operand, Operation
from tfq.verify.structure import verify_structure


@pytest.mark.parametrize(
    ("graph", "layer", "factor"),
    [("convolutions", "stem", 2.0**-20), ("arithmetic", "difference", 2.0**-22), ("arithmetic", "hard", 2.0**-9)],
)
def test_a_layer_whose_input_is_far_too_coarse_for_its_output_is_named(graph, layer, factor):
    case = operator_graphs.case(graph)
    require_runnable(case.model)
    small = activation_grid(case.model.grids[layer].scale[0] * factor, 0)
    quantized = case.model.with_nodes(case.model[layer].replace(grid=small))
    with pytest.raises(UserError, match=f"layer 'keras_{layer}' .* cannot be computed in int8: one step of") as caught:
        require_runnable(quantized)
    assert "\n" not in str(caught.value)


KINDS = {
    "Add": {}, "Subtract": {}, "Multiply": {}, "LeakyReLU": {"alpha": 0.5}, "Requantize": {},
    "AddConstant": {"constant": 3.0}, "MultiplyConstant": {"constant": -0.7}, "MatMul": {},
    "Conv2D": {"filters": 4, "kernel_size": 1, "use_bias": False},
}  # fmt: skip
PAIRS = ("Add", "Subtract", "Multiply", "MatMul")
WITHOUT_RATIO = {"MatMul": "BATCH_MATMUL", "Conv2D": "CONV_2D"}  # their scales do not grow: no row of the table says so


def apart(weights: np.ndarray) -> Graph:
    """One operation of each kind, on inputs of its own; `weights` are the convolution's."""
    nodes, outputs = [], []
    for kind, config in KINDS.items():
        inputs = [f"{kind}_{i}" for i in range(1 + (kind in PAIRS))]
        nodes += [Node(name, "Input", {"shape": (4, 4, 4), "dtype": "float32"}) for name in inputs]
        nodes.append(Node(kind, kind, config, tuple(inputs), {"kernel": weights} if kind == "Conv2D" else {}))
        outputs.append(kind)
    return Graph(tuple(nodes), tuple(n.name for n in nodes if n.kind == "Input"), tuple(outputs))


def with_drawn_scales(seed: int, spread: float) -> QuantizedModel:
    rng = np.random.default_rng(seed)
    graph = apart((2.0 ** rng.uniform(-spread, spread) * rng.normal(size=(1, 1, 4, 4))).astype(np.float32))
    return specify(graph, {node.name: Range(-(2.0 ** rng.uniform(-spread, spread)), 0) for node in graph.nodes})


def operations(model: QuantizedModel) -> Iterator[tuple[str, Operation]]:
    """Each node as the table of a target sees it; a number that is added or multiplied with lies on 255 steps."""
    for node in model.layers:
        inputs = [Operand("int8", (1, 4, 4, 4), model.grids[name].scale) for name in node.inputs]
        if "constant" in node.config:
            inputs.append(Operand("int8", (1,), (abs(node.config["constant"]) / 255,), constant=True))
        inputs += [Operand("int8", (4, 1, 1, 4), grid.scale, constant=True) for grid in node.weight_grids.values()]
        output = Operand("int8", (1, 4, 4, 4), model.grids[node.name].scale)
        operator = WITHOUT_RATIO.get(node.kind) or OPERATORS[node.kind].tflite
        yield node.kind, Operation(operator, tuple(inputs), (output,), node.config)


def told(model: QuantizedModel) -> str:
    """The line that says of a layer that no runtime takes its scales; empty where none does."""
    try:
        require_runnable(model)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("spread", [4, 20, 45])
@pytest.mark.parametrize("target", [CPU, MICRO], ids=lambda target: target.name)
def test_scales_from_the_whole_range_of_float32_become_legal(target, spread):
    broken = 0
    for seed in range(25):
        drawn = with_drawn_scales(seed, spread)
        made = with_legal_scales(drawn, target)
        broken += any(target.verdict(found)[0] != FAST for _, found in operations(drawn))
        for kind, found in operations(made):
            verdict, why = target.verdict(found)
            if kind == "Conv2D" and target is CPU:
                assert (verdict == REFUSED) == told(made).startswith("layer 'Conv2D' (Conv2D) cannot be"), why
                continue
            # a number that is nothing beside the output's step is all that may be left, in a plain kernel
            assert verdict == FAST or (kind, verdict) == ("AddConstant", PLAIN), f"{kind}: {why}"
        for name, grid in drawn.grids.items():
            assert made.grids[name].scale[0] >= grid.scale[0]
            assert made.grids[name].zero_point == grid.zero_point
        assert with_legal_scales(made, target) == made
    assert broken > 5 or target is MICRO or spread < 20


def test_legal_scales_stay_as_they_are():
    model = operator_graphs.case("arithmetic").model
    assert with_legal_scales(model, CPU) is model


@pytest.mark.parametrize("spread", [12, 30, 45])
def test_files_with_drawn_scales_are_taken_whole(spread):
    drawn = (with_legal_scales(with_drawn_scales(seed, spread), CPU) for seed in itertools.count(spread))
    made = next(model for model in drawn if not told(model))
    content = written(made)
    verify_structure(content, made)
    assert set(delegation(TfliteModel(content)).outside) <= {"ADD"}


def written(model: QuantizedModel) -> bytes:
    samples = {name: np.zeros((4, 4, 4, 4), np.float32) for name in model.inputs}
    return export_quantized(model, operator_graphs.representative(samples))


def test_scales_of_any_size_give_a_file_that_runs_or_one_line():
    runs = []
    for seed in range(3):
        made = with_legal_scales(with_drawn_scales(seed, 100), CPU)
        runs.append(not told(made))
        if told(made):
            with pytest.raises(UserError, match="cannot be computed in int8: one step of"):
                written(made)
            continue
        model = TfliteModel(written(made))
        assert len(model.run({info.name: np.zeros((1, 4, 4, 4), np.float32) for info in model.inputs})) == len(KINDS)
    assert set(runs) == {True, False}
