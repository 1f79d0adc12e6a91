"""Bytes of every constant and every option of every operation changed: found, or shown to be without effect."""

import numpy as np
import pytest
from damaged_files import CASES, File, case
from operator_graphs import draw

from tfq.errors import VerificationError
from tfq.execution.interpreter import TfliteModel
from tfq.execution.tflite import parse_tflite
from tfq.verify.structure import verify_structure


def passes(file, made):
    """None where the file verifies; else what was said."""
    try:
        verify_structure(file.content, made.model)
    except VerificationError as error:
        return str(error)
    return None


def layer_outputs(content, made, seed):
    """All tensors of the file on random inputs, inputs over the whole of their grids."""
    model = TfliteModel(content, delegate=False, preserve_all=True)
    rng, drawn = np.random.default_rng(seed), draw(made.graph, seed=seed, count=1)
    raw = {}
    for info in model.inputs:
        limits = np.iinfo(info.dtype) if info.quantized else None
        raw[info.name] = (
            info.to_raw(drawn[info.name])
            if limits is None
            else rng.integers(limits.min, limits.max, info.shape, info.dtype, endpoint=True)
        )
    model.run_raw(raw)
    made = {index for operator in parse_tflite(content).subgraphs[0].operators for index in operator.outputs}
    return {info.name: model.constant(info.index) for info in model.all_tensors if info.index in made}


def without_effect(one, other, made, steps=0):
    """Whether all tensors of two files are the same on random inputs, but for so many steps of the grids.

    Float tensors: as far as a float layer is held.
    """
    for seed in range(8):
        first, second = layer_outputs(one, made, seed), layer_outputs(other, made, seed)
        for name, values in first.items():
            floats = values.dtype == np.float32
            bound = 1e-4 * np.abs(values).max() if floats else steps
            both = [v if floats else v.astype(np.int64) for v in (values, second[name])]
            if not np.allclose(*both, rtol=0, atol=bound):
                return False
    return True


SOME = [name if name == "square" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", SOME)
def test_bytes_of_constants_changed_at_random(name):
    made, rng = case(name), np.random.default_rng(0)
    plain = File(made.content)
    constants = [t.name.decode() for t in plain.graph.tensors if plain.model.buffers[t.buffer].data is not None]
    found = 0
    for constant in constants:
        for change in ("flip", "permute"):
            file = File(made.content)
            array = np.atleast_1d(file.array(constant))
            values = array.view(np.uint8).reshape(-1)
            place = rng.integers(0, values.size)
            if change == "flip":
                values[place] ^= 1 << rng.integers(0, 8)
            else:
                order = np.arange(len(array.reshape(-1)))
                some = rng.permutation(order)[:4]
                order[some] = np.roll(order[some], 1)
                flat = array.reshape(-1)
                flat[...] = flat[order]
            if file.content == plain.content:
                continue
            said = passes(file, made)
            assert said is not None or without_effect(plain.content, file.content, made), (constant, change, place)
            found += said is not None
    assert found > len(constants) / 2


ENUMERATIONS = {"padding": (0, 1), "fusedActivationFunction": (0, 1, 2, 3)}
# The kernel that reads this would read beyond its tensors.
LEFT_OUT = ("weightsFormat",)
# Both forms of GELU are one but for a fiftieth of a step: less than the bound allows, and enough to turn a rounding.
WITHIN_ROUNDING = {"approximate": 2}


def other_values(field, value):
    if field in ENUMERATIONS:
        return [v for v in ENUMERATIONS[field] if v != value]
    if isinstance(value, bool | np.bool_):
        return [not value]
    if isinstance(value, float):
        return [value * 1.05, -value]
    if isinstance(value, int | np.integer):
        return [v for v in (value - 1, value + 1) if v > 0 or field in ("axis", "batchDims") or field.endswith("Mask")]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_option_of_every_operation_changed(name):
    made = case(name)
    plain = File(made.content)
    for number, operator in enumerate(plain.graph.operators):
        for field, value in vars(operator.builtinOptions).items() if operator.builtinOptions else ():
            for other in () if field in LEFT_OUT else other_values(field, value):
                file = File(made.content)
                setattr(file.graph.operators[number].builtinOptions, field, other)
                if passes(file, made) is None:
                    steps = WITHIN_ROUNDING.get(field, 0)
                    assert without_effect(plain.content, file.content, made, steps), (number, field, other)
