"""Every step that improves a quantised model, on one that is partly float: it gains, and leaves the floats alone."""

import functools

import numpy as np
import operator_graphs
import pytest

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.export.package import export_quantized
from tfq.models.graph import build_model
from tfq.models.widths import assign_widths, is_weighted, separate_inputs
from tfq.operations.table import OPERATORS
from tfq.reconstruction.batch_norm import tune_batch_norm
from tfq.reconstruction.bias_tuning import tune_biases
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.reconstruct import reconstruct, reconstructed_names
from tfq.simulate.judge import Version, divergence
from tfq.simulate.run import predict_list
from tfq.simulate.weights import snap
from tfq.simulate.wrap import build_simulation
from tfq.verify.structure import verify_structure

PRECISIONS = {"stem": "float16", "depthwise": "float32", "last": "float16"}


@functools.cache
def start():
    """(float graph, samples, version on 3 bits where it is int8)."""
    graph = operator_graphs.residual()
    samples = operator_graphs.draw(graph)
    spec = operator_graphs.specified(graph, samples, weight_bits=3, precisions=PRECISIONS)
    return graph, samples, Version("nearest", graph, spec)


def lost(reference, version, samples):
    feeds = [samples[n] for n in reference.inputs]
    simulation = build_simulation(version.graph, version.spec, outputs=version.graph.outputs)
    floats = predict_list(build_model(reference, outputs=reference.outputs), feeds)
    return divergence(floats, predict_list(simulation, feeds)).mean()


def recalibrated(graph, samples):
    return calibrate(graph, [samples], method="minmax", percentile=99.9, total=operator_graphs.SAMPLES).ranges


def in_sequence(graph, version, samples):
    return reconstruct(graph, version, samples, METHODS["least_squares"], name="least_squares")[0]


def in_parallel(graph, version, samples):
    return reconstruct(graph, version, samples, METHODS["least_squares"], name="least_squares", mode="parallel")[0]


def batch_norm(graph, version, samples):
    again = functools.partial(recalibrated, samples=samples)
    return tune_batch_norm(version, samples, reference=graph, recalibrate=again)


def biases(graph, version, _):
    """With more samples: by a handful held back no gain is beyond chance."""
    return tune_biases(graph, version, operator_graphs.draw(graph, count=96), steps=40)


@pytest.mark.parametrize("improve", [in_sequence, in_parallel, batch_norm, biases], ids=lambda f: f.__name__)
def test_steps_improve_the_int8_layers_and_leave_the_float_ones(improve):
    graph, samples, version = start()
    improved = improve(graph, version, samples)
    assert lost(graph, improved, samples) < lost(graph, version, samples)
    before, after = snap(graph, version.spec), snap(improved.graph, improved.spec)
    for name in PRECISIONS:
        assert improved.spec[name] == version.spec[name]
        for weight, values in before[name].weights.items():
            np.testing.assert_array_equal(after[name].weights[weight], values)
    assert set(improved.spec.activations) == set(version.spec.activations)
    content = export_quantized(improved.graph, improved.spec, operator_graphs.representative(samples))
    verify_structure(content, improved.graph, improved.spec)


def test_reconstructed_are_the_int8_layers():
    _, _, version = start()
    assert reconstructed_names(version.graph, version.spec) == ["branch", "dense"]


def test_few_bit_inputs_of_the_layers_that_are_not_float():
    """Copies on 4 bits for int8 layers alone; a float layer reads no copy."""
    graph, samples, _ = start()
    narrow = [n.name for n in graph.nodes if is_weighted(n) and n.name not in PRECISIONS]
    separated = separate_inputs(graph, narrow)
    bits = {separated[name].inputs[0]: 4 for name in narrow}
    found = calibrate(separated, [samples], method="minmax", percentile=99.9, total=operator_graphs.SAMPLES, bits=bits)
    spec = specify(separated, found.ranges, weight_bits=4, activation_bits=bits, precisions=PRECISIONS)
    assert {spec.activations[separated[name].inputs[0]].bits for name in narrow} == {4}
    read = {separated[name].inputs[0] for name in PRECISIONS} & set(spec.activations)
    assert {spec.activations[name].bits for name in read} == {8}
    assert np.isfinite(lost(graph, Version("narrow", separated, spec), samples))


def test_a_copy_that_a_float_layer_reads_of_a_float_tensor_is_float():
    """A float layer behind another one reads no grid, although copies were made for all layers."""
    graph, samples, _ = start()
    separated, widths = assign_widths(graph, weight_bits=8, activation_bits=4)
    found = calibrate(
        separated,
        [samples],
        method="minmax",
        percentile=99.9,
        total=operator_graphs.SAMPLES,
        bits=widths.activations,
    )
    floats = {n.name: "float32" for n in separated.nodes if is_weighted(n)}
    spec = specify(
        separated,
        found.ranges,
        activation_bits=widths.activations,
        precisions=floats,
        input_type="float32",
        output_type="float32",
    )
    assert not spec.activations
    assert lost(graph, Version("float", separated, spec), samples) < 1e-9
    assert all(layer.precision == "float32" for layer in spec.layers if OPERATORS[layer.kind].kernel)
