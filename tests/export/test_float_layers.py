"""Layers kept in float16 or float32 amid int8 ones: through conversion, passes, verification and both runtimes."""

import collections
import dataclasses

import numpy as np
import operator_graphs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras_outputs import predict_list

from tfq.errors import UserError
from tfq.evaluation.size import measure_size
from tfq.execution.interpreter import RUNTIMES, TfliteModel
from tfq.export import flatbuffer
from tfq.export.package import export_quantized
from tfq.models.borders import find_borders
from tfq.models.graph import build_model
from tfq.models.widths import is_weighted
from tfq.operations.table import OPERATORS
from tfq.precision import FLOAT32, Precision
from tfq.simulate.divergence import divergence
from tfq.simulate.wrap import build_simulation
from tfq.verify.forced import observe, teacher_forced
from tfq.verify.parity import layer_parity
from tfq.verify.structure import verify_structure

FEW = 6
LAYERS = ("stem", "depthwise", "branch", "last", "dense")
FLOAT_EDGES = {"input_type": "float32", "output_type": "float32"}


def mixed(graph, floats, **options):
    """`floats`: names, the first of them float16, the second float32, and so on; or precisions by name."""
    kinds = ("float16", "float32")
    named = floats if isinstance(floats, dict) else {name: kinds[i % 2] for i, name in enumerate(floats)}
    return operator_graphs.exported(graph, {name: Precision(kind) for name, kind in named.items()}, **options)


def operations(case):
    """How often the file has each operation; a DEQUANTIZE of a constant is called so."""
    model = flatbuffer.parse(case.content)
    tensors = model.subgraphs[0].tensors
    found = collections.Counter()
    for operator in model.subgraphs[0].operators:
        kind = flatbuffer.operator_name(model, operator)
        constant = kind == "DEQUANTIZE" and flatbuffer.is_constant(model, tensors[operator.inputs[0]])
        found["constant" if constant else kind] += 1
    return found


def check(case):
    """The file is as specified, every layer within a step of its simulation, and so the outputs in each runtime."""
    samples = {name: array[:FEW] for name, array in case.samples.items()}
    verified = verify_structure(case.content, case.model)

    assert verified.weights == sum(bool(OPERATORS[n.kind].kernel) for n in case.graph.nodes if n.kind != "Input")
    observed = observe(case.content, case.model, samples)
    assert set(observed) == set(case.model.grids) - set(verified.absent)
    parity = layer_parity(teacher_forced(case.model, observed, samples), observed)
    assert {p.name: p.max_steps for p in parity if p.max_steps > 1} == {}
    feeds = [samples[name] for name in case.graph.inputs]
    simulated = predict_list(build_simulation(case.model, outputs=case.graph.outputs), feeds)
    for runtime in RUNTIMES:
        for delegate in (True, False):
            model = TfliteModel(case.content, runtime=runtime, delegate=delegate)
            runs = [model.run({name: array[i : i + 1] for name, array in samples.items()}) for i in range(FEW)]
            for node, expected, values in zip(case.graph.outputs, simulated, zip(*runs, strict=True), strict=True):
                grid = case.model.grids.get(node)
                step = grid.scale[0] if grid else np.abs(expected).max() / 127
                assert np.ptp(expected) > 10 * step, "the output hardly moves: nothing is compared"
                assert np.abs(np.concatenate(values) - expected).max() < 1.5 * step, (runtime, delegate)


# floats, options, expected QUANTIZE and DEQUANTIZE operations, and float16 constants
CASES = {
    "first": (["stem"], {}, 1, 1, 2),
    "first of a float file": (["stem"], FLOAT_EDGES, 1, 1, 2),
    "last": (["dense"], {}, 1, 1, 2),
    "one branch": (["branch"], {}, 1, 1, 2),
    "depthwise": (["depthwise"], {}, 1, 1, 2),
    "a run": (["depthwise", "branch"], {}, 1, 1, 2),
    "a run with pooling in it": (["last", "dense"], {}, 1, 1, 1),
    "a whole block": (["stem", "depthwise", "branch", "last"], {}, 1, 1, 4),
    "two readers": (["stem", "branch"], {}, 2, 2, 2),
    "everything but one": (["stem", "depthwise", "branch", "dense"], {}, 3, 3, 4),
    "everything": (LAYERS, FLOAT_EDGES, 0, 0, 6),
    "uint8": (["stem", "dense"], {"input_type": "uint8", "output_type": "uint8"}, 4, 2, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_named_cases(name):
    floats, options, quantize, dequantize, constants = CASES[name]
    case = mixed(operator_graphs.residual(), floats, **options)
    check(case)
    found = operations(case)
    assert (found["QUANTIZE"], found["DEQUANTIZE"], found["constant"]) == (quantize, dequantize, constants)


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(LAYERS), st.sampled_from(["float16", "float32", "int8"])))
def test_any_subset_of_layers(precisions):
    case = mixed(operator_graphs.residual(), precisions)
    check(case)
    floats = {name for name, precision in precisions.items() if precision != "int8"}
    borders, found = find_borders(case.graph, floats), operations(case)
    assert found["QUANTIZE"] == len(borders.quantized)
    assert found["DEQUANTIZE"] == len(borders.dequantized)
    found = {x.name: x.precision.arithmetic for x in case.model.layers if x.name in floats}
    assert found == {name: precisions[name] for name in floats}


@pytest.mark.parametrize("name", ["convolutions", "transformer", "islands", "shared"])
def test_every_second_layer_of_graphs_with_every_operation(name):
    graph = operator_graphs.ALL[name]()
    layers = [n for n in graph.nodes if is_weighted(n)]
    cycle = ("float16", "int8", "float32", "int8")
    of_group = {group: cycle[i % 4] for i, group in enumerate(dict.fromkeys(n.group for n in layers))}
    case = mixed(graph, {n.name: of_group[n.group] for n in layers})
    verify_structure(case.content, case.model)
    samples = {name: array[:FEW] for name, array in case.samples.items()}
    observed = observe(case.content, case.model, samples)
    parity = layer_parity(teacher_forced(case.model, observed, samples), observed)
    assert {p.name: p.max_steps for p in parity if p.max_steps > 1} == {}


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_a_transposed_convolution_whose_kernel_the_converter_stores_in_int8(precision):
    case = mixed(operator_graphs.convolutions(), {"transposed": precision})
    verify_structure(case.content, case.model)
    samples = {name: array[:FEW] for name, array in case.samples.items()}
    observed = observe(case.content, case.model, samples)
    parity = layer_parity(teacher_forced(case.model, observed, samples), observed)
    assert "leaky" in {p.name for p in parity}
    assert {p.name: p.max_steps for p in parity if p.max_steps > 1} == {}


def test_float16_weights_are_those_of_numpy():
    case = mixed(operator_graphs.residual(), {"branch": "float16"})
    model = flatbuffer.parse(case.content)
    tensors = {flatbuffer.text(t.name): t for t in model.subgraphs[0].tensors}
    stored = np.asarray(model.buffers[tensors["branch/kernel"].buffer].data, np.uint8).tobytes()
    kernel = case.graph["branch"].weights["kernel"]
    np.testing.assert_array_equal(np.frombuffer(stored, np.float16), kernel[0, 0].T.astype(np.float16).ravel())


def test_sizes_count_two_bytes_a_float16_weight():
    sizes = {
        p: measure_size(mixed(operator_graphs.residual(), {"last": p}).content) for p in ("int8", "float16", "float32")
    }
    graph = operator_graphs.residual()
    count = {n.name: max(w.size for w in n.weights.values()) for n in graph.nodes if n.weights}
    total = sum(count.values())
    for precision, size in sizes.items():
        assert size.weights == total
        bits = {"int8": 8, "float16": 16, "float32": 32}[precision]
        assert size.stored_weight_bits == pytest.approx(8 + (bits - 8) * count["last"] / total)
    assert sizes["float32"].file_bytes - sizes["float16"].file_bytes > 1.5 * count["last"]


def test_float16_restores_a_layer_that_int8_destroys():
    graph = operator_graphs.outlier()
    lost = {}
    for precision in ("int8", "float16", "float32"):
        case = mixed(graph, {"second": precision})
        model, feeds = TfliteModel(case.content), case.samples["image"]
        values = np.concatenate([model.run({"image": feeds[i : i + 1]})[0] for i in range(len(feeds))])
        reference = predict_list(build_model(graph, outputs=graph.outputs), [feeds])
        lost[precision] = float(divergence(reference, [values]).mean())
    assert lost["int8"] > 0.5  # of the output's power
    assert lost["float16"] < 1e-3
    assert lost["float16"] == pytest.approx(lost["float32"], abs=1e-4)


def test_weights_that_float16_cannot_hold_are_refused():
    graph = operator_graphs.outlier()
    kernel = graph["second"].weights["kernel"] * 300
    graph = graph.replace_nodes(
        [n.replace(weights={"kernel": kernel}) if n.name == "second" else n for n in graph.nodes]
    )
    with pytest.raises(UserError, match=r"layer 'second' has a weight of magnitude 9e\+04.*use float32"):
        mixed(graph, {"second": "float16"})


@pytest.mark.parametrize(
    ("precisions", "message"),
    [
        ({"mean": FLOAT32}, "'mean' is no weighted layer"),
        ({"absent": FLOAT32}, "'absent' is no weighted layer"),
        ({"slopes": Precision("int16x8")}, "'slopes' is no weighted layer"),
    ],
)
def test_impossible_precisions_are_refused(precisions, message):
    graph = operator_graphs.residual()
    with pytest.raises(ValueError, match=message):
        operator_graphs.specified(graph, operator_graphs.draw(graph), precisions=precisions)


def test_calls_of_one_layer_have_one_precision():
    graph = operator_graphs.shared()
    with pytest.raises(ValueError, match="calls of the Keras layer that 'conv_left' calls are to have different"):
        operator_graphs.specified(graph, operator_graphs.draw(graph), precisions={"conv_left": FLOAT32})


def test_storage_by_node_name():
    wanted = dict.fromkeys(LAYERS, Precision(weight_bits=4)) | {"stem": Precision(weight_bits=4, storage="packed")}
    case = operator_graphs.exported(operator_graphs.residual(), wanted)
    verify_structure(case.content, case.model)
    stored = {x.name: x.weight_grids["kernel"].storage for x in case.model.layers if "kernel" in x.weights}
    assert stored == {"stem": "int4", "branch": "int8", "last": "int8", "dense": "int8"}


def test_a_layer_that_the_converter_quantised_by_itself_is_refused(monkeypatch):
    """Without the barrier behind it, the converter computes a float layer between two grids in int8."""
    monkeypatch.setattr("tfq.export.convert.with_barriers", lambda model: model)
    with pytest.raises(RuntimeError, match="the converter made kernel of float layer 'branch' int8"):
        mixed(operator_graphs.residual(), ["branch"])


def test_the_same_inputs_give_the_same_bytes():
    graph = operator_graphs.residual()
    case = mixed(graph, ["stem", "dense"])
    again = export_quantized(dataclasses.replace(case.model), operator_graphs.representative(case.samples))
    assert again == case.content
