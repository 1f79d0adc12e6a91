import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq.errors import UserError
from tfq.grid import Grid
from tfq.precision import ARITHMETICS
from tfq.spec import LayerSpec, Specification

NAMES = st.text(min_size=1, max_size=8)
SCALES = st.floats(np.float32(2.0**-100), 2.0**20, width=32)


@st.composite
def activations(draw):
    return Grid((draw(SCALES),), draw(st.integers(-128, 127)), 8, "int8", symmetric=False)


@st.composite
def weights(draw):
    scale = tuple(draw(st.lists(SCALES, min_size=1, max_size=5)))
    bits = draw(st.integers(2, 8))
    storage = draw(st.sampled_from(("int4", "int8") if bits <= 4 else ("int8",)))
    axis = draw(st.integers(0, 3)) if len(scale) > 1 or draw(st.booleans()) else None
    return Grid(scale, 0, bits, storage, symmetric=True, axis=axis)


@st.composite
def layers(draw):
    name, precision = draw(NAMES), draw(st.sampled_from(ARITHMETICS))
    return LayerSpec(
        name,
        draw(st.sampled_from(("Conv2D", "Add", "ELU"))),
        precision,
        tuple(draw(st.lists(NAMES, max_size=3))),
        name,
        draw(st.dictionaries(NAMES, weights(), max_size=2)),
        tuple(draw(st.lists(NAMES, min_size=1, max_size=3))),
        "" if precision == "int8" else draw(NAMES),
    )


SPECS = st.builds(
    Specification,
    st.lists(layers(), max_size=4).map(tuple),
    st.dictionaries(NAMES, activations(), max_size=4),
    st.sampled_from(("int8", "uint8", "float32")),
    st.sampled_from(("int8", "uint8", "float32")),
)


@given(SPECS)
def test_json_round_trip(spec):
    again = Specification.from_json(spec.to_json())
    assert again == spec
    assert again.to_json() == spec.to_json()


TENSOR = {"scale": [0.5], "zero_point": 0, "bits": 8, "storage": "int8", "symmetric": False}
LAYER = {"name": "a", "kind": "Add", "precision": "int8", "inputs": ["x"], "output": "a"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": {}}, "layers is an object of 0 fields; expected an array"),
        ({"layers": [1]}, r"layers\[0\] is 1; expected an object"),
        ({"layers": [LAYER | {"inputs": "x"}]}, r"layers\[0\].inputs is 'x'; expected an array"),
        ({"layers": [LAYER | {"precision": "int7"}]}, r"layers\[0\]: precision .='int7'. must be one of"),
        ({"layers": [LAYER | {"precision": "float32"}]}, "is float32 without a reason"),
        ({"activations": {"x": TENSOR | {"bits": 10**9}}}, "activations.x: bits .=1000000000. must be 1 to 40"),
        ({"activations": {"x": TENSOR | {"bits": True}}}, "activations.x.bits is true; expected a whole number"),
        ({"activations": {"x": TENSOR | {"scale": []}}}, "activations.x: scales must be finite and above 0"),
        ({"activations": {"x": TENSOR | {"scale": [-1]}}}, "scales must be finite and above 0"),
        ({"activations": {"x": TENSOR | {"scale": 1.0}}}, "activations.x.scale is 1.0; expected an array"),
        ({"activations": {"x": TENSOR | {"zero_point": 500}}}, "zero_point .=500. lies outside"),
        ({"activations": {"x": TENSOR | {"storage": "int5"}}}, "storage .='int5'. must be one of"),
        ({"activations": {"x": TENSOR | {"more": 1}}}, "unknown field activations.x.more"),
        ({"input_type": 8}, "input_type is 8; expected a text"),
    ],
)
def test_a_specification_of_wrong_types_is_named(change, message):
    good = {"layers": [LAYER], "activations": {"x": TENSOR}}
    Specification.from_json(json.dumps(good))
    with pytest.raises(UserError, match=message):
        Specification.from_json(json.dumps(good | change))


@pytest.mark.parametrize("bits", range(2, 9))
def test_integer_ranges(bits):
    weights = Grid((1.0,), 0, bits, "int8", symmetric=True).integer_range
    full = Grid((1.0,), 0, bits, "int8", symmetric=False).integer_range
    assert full == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert weights == (full if bits < 8 else (-127, 127))


def test_real_range_follows_the_zero_point():
    assert Grid((0.5,), -128, 8, "int8", symmetric=False).real_range == (0.0, 127.5)
    assert Grid((0.5,), 0, 8, "int8", symmetric=True).real_range == (-63.5, 63.5)


GRID = Grid((0.5,), 0, 8, "int8", symmetric=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"storage": "int3"}, "storage (='int3') must be one of int2, int4, int8, int16, int32, int64"),
        ({"scale": ()}, "finite and above 0"),
        ({"scale": (0.0,)}, "finite and above 0"),
        ({"scale": (-1.0,)}, "finite and above 0"),
        ({"scale": (float("nan"),)}, "finite and above 0"),
        ({"scale": (float("inf"),)}, "finite and above 0"),
        ({"scale": (1.0, 2.0)}, "2 scales without a channel axis"),
        ({"zero_point": 128}, "zero_point (=128) lies outside [-128, 127]"),
        ({"zero_point": -128, "symmetric": True}, "zero_point (=-128) lies outside [-127, 127]"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(GRID, **wrong)


def test_a_layer_says_why_it_is_not_int8():
    with pytest.raises(ValueError, match="layer 'elu' is float32 without a reason"):
        LayerSpec("elu", "ELU", "float32", ("x",), "elu")
    with pytest.raises(ValueError, match="precision"):
        LayerSpec("elu", "ELU", "int4", ("x",), "elu", reason="none")
