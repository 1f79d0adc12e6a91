"""Bytes of every constant and every option of every operation changed: found, or shown to be without effect."""

import numpy as np
import pytest
from damaged_files import CASES, File, case

from tfq.errors import VerificationError
from tfq.execution.interpreter import TfliteModel
from tfq.verify.structure import verify_structure


def passes(file, made):
    """None where the file verifies; else what was said."""
    try:
        verify_structure(file.content, made.graph, made.spec)
    except VerificationError as error:
        return str(error)
    return None


def layer_outputs(content, seed):
    """All tensors of the file on random inputs, inputs over the whole of their grids."""
    model = TfliteModel(content, delegate=False, preserve_all=True)
    rng = np.random.default_rng(seed)
    raw = {}
    for info in model.inputs:
        if info.quantized:
            limits = np.iinfo(info.dtype)
            raw[info.name] = rng.integers(limits.min, limits.max, info.shape, info.dtype, endpoint=True)
        elif info.dtype.kind == "f":
            raw[info.name] = rng.normal(size=info.shape).astype(np.float32)
        else:
            raw[info.name] = rng.integers(0, 50, info.shape, info.dtype)
    model.run_raw(raw)
    return {name: value.raw for name, value in model.tensors().items()}


def without_effect(one, other):
    """Whether all tensors of two files are the same on random inputs; of float ones as far as a float layer is held."""
    for seed in range(8):
        first, second = layer_outputs(one, seed), layer_outputs(other, seed)
        for name, values in first.items():
            size = 1e-4 * np.abs(values).max() if values.dtype == np.float32 else 0
            if not np.allclose(values, second[name], rtol=0, atol=size):
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
            assert said is not None or without_effect(plain.content, file.content), (constant, change, place)
            found += said is not None
    assert found > len(constants) / 2


ENUMERATIONS = {"padding": (0, 1), "fusedActivationFunction": (0, 1, 2, 3)}
# The kernel that reads this would read beyond its tensors.
LEFT_OUT = ("weightsFormat",)
# Both forms of GELU are one but for a fiftieth of a step: less than the bound allows, and enough to turn a rounding.
WITHIN_ROUNDING = ("approximate",)


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
                if field not in WITHIN_ROUNDING and passes(file, made) is None:
                    assert without_effect(plain.content, file.content), (number, field, other)
