"""Every step that improves a quantised model, on one that is partly float: it gains, and leaves the floats alone."""

import functools

import numpy as np
import operator_graphs
import pytest
from keras_outputs import predict_list
from operator_graphs import calibration_of

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.data.samples import Samples
from tfq.export.package import export_quantized
from tfq.models.graph import build_model
from tfq.models.widths import activation_bits, assign_precisions, is_weighted, precisions_of, separate_inputs
from tfq.operations.table import OPERATORS
from tfq.precision import FLOAT16, FLOAT32, Precision
from tfq.reconstruction.batch_norm import tune_batch_norm
from tfq.reconstruction.learner import Rates
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.network_tuning import Schedule, tune_network
from tfq.reconstruction.reconstruct import Reconstruction, reconstruct, reconstructed_names
from tfq.simulate.divergence import divergence
from tfq.simulate.weights import snap
from tfq.simulate.wrap import build_simulation
from tfq.spec import Specification
from tfq.verify.structure import verify_structure

FLOATS = {"stem": FLOAT16, "depthwise": FLOAT32, "last": FLOAT16}


def with_floats(graph, precision):
    """The precision of every weighted layer but those of `FLOATS`, which have theirs."""
    return precisions_of(graph, precision) | FLOATS


@functools.cache
def start():
    """(float graph, samples, model on 3 bits where it is int8)."""
    graph = operator_graphs.residual()
    samples = operator_graphs.draw(graph)
    return graph, samples, operator_graphs.specified(graph, samples, with_floats(graph, Precision(weight_bits=3)))


def lost(reference, model, samples):
    feeds = [samples[n] for n in reference.inputs]
    simulation = build_simulation(model, outputs=model.outputs)
    floats = predict_list(build_model(reference, outputs=reference.outputs), feeds)
    return divergence(floats, predict_list(simulation, feeds)).mean()


def recalibrated(graph, samples):
    return calibrate(graph, [samples], method="minmax", total=operator_graphs.SAMPLES).ranges


def in_sequence(graph, model, samples):
    return reconstruct(
        graph, model, calibration_of(samples), Reconstruction("least_squares", METHODS["least_squares"])
    )[0]


def in_parallel(graph, model, samples):
    return reconstruct(
        graph,
        model,
        calibration_of(samples),
        Reconstruction("least_squares", METHODS["least_squares"], mode="parallel"),
    )[0]


def batch_norm(graph, model, samples):
    again = functools.partial(recalibrated, samples=samples)
    return tune_batch_norm(graph, model, Samples.of(samples), recalibrate=again)


def network(graph, model, _):
    """With more samples: by a handful held back no gain is beyond chance."""
    samples = calibration_of(operator_graphs.draw(graph, count=96))
    return tune_network(graph, model, samples, schedule=Schedule(Rates(), 40))


@pytest.mark.parametrize("improve", [in_sequence, in_parallel, batch_norm, network], ids=lambda f: f.__name__)
def test_steps_improve_the_int8_layers_and_leave_the_float_ones(improve):
    graph, samples, model = start()
    improved = improve(graph, model, samples)
    assert lost(graph, improved, samples) < lost(graph, model, samples)
    before, after = snap(model), snap(improved)
    decided = [{x.name: x for x in Specification.of(found).layers} for found in (model, improved)]
    for name in FLOATS:
        assert decided[0][name] == decided[1][name]
        for weight, values in before[name].weights.items():
            np.testing.assert_array_equal(after[name].weights[weight], values)
    assert set(improved.grids) == set(model.grids)
    content = export_quantized(improved, operator_graphs.representative(samples))
    verify_structure(content, improved)


def test_reconstructed_are_the_int8_layers():
    _, _, model = start()
    assert reconstructed_names(model) == ["branch", "dense"]


def test_few_bit_inputs_of_the_layers_that_are_not_float():
    """Copies on 4 bits for int8 layers alone; a float layer reads no copy."""
    graph, samples, _ = start()
    narrow = [n.name for n in graph.nodes if is_weighted(n) and n.name not in FLOATS]
    separated = separate_inputs(graph, narrow)
    precisions = with_floats(separated, Precision(weight_bits=4, activation_bits=4))
    bits = activation_bits(separated, precisions)
    assert bits == {separated[name].inputs[0]: 4 for name in narrow}
    found = calibrate(separated, [samples], method="minmax", total=operator_graphs.SAMPLES, bits=bits)
    model = specify(separated, found.ranges, precisions)
    assert {model.grids[separated[name].inputs[0]].bits for name in narrow} == {4}
    read = {separated[name].inputs[0] for name in FLOATS} & set(model.grids)
    assert {model.grids[name].bits for name in read} == {8}
    assert np.isfinite(lost(graph, model, samples))


def test_a_copy_that_a_float_layer_reads_of_a_float_tensor_is_float():
    """A float layer behind another one reads no grid, although copies were made for all layers."""
    graph, samples, _ = start()
    separated, precisions = assign_precisions(graph, Precision(activation_bits=4))
    bits = activation_bits(separated, precisions)
    assert bits
    found = calibrate(separated, [samples], method="minmax", total=operator_graphs.SAMPLES, bits=bits)
    model = specify(separated, found.ranges, FLOAT32, input_type="float32", output_type="float32")
    assert not model.grids
    assert lost(graph, model, samples) < 1e-9
    assert all(layer.precision == FLOAT32 for layer in model.layers if OPERATORS[layer.kind].kernel)
