"""Each cause of a loss, by what the report shows of the layer."""

import numpy as np
import pytest

from tfq.recipe import Recipe
from tfq.report.causes import causes
from tfq.report.report import LayerReport, TensorReport


def layer(name="conv", db=12.0, bits=8):
    return LayerReport(name, (name,), "Conv2D", "int8", "", bits, "int8", 9, db, db)


def tensor(name="conv", group="conv", observed=(-1.0, 1.0), ends=(-1.0, 1.0), values=None, **changes):
    drawn = np.linspace(*(observed or ends), 10_000) if values is None else values
    counts, edges = np.histogram(drawn, 64)
    histogram = {"edges": edges.tolist(), "counts": counts.tolist(), "zeros": 0}
    given = {"bits": 8, "method": "minmax", "errors": {}, "rolled_back": False, "histogram": histogram}
    return TensorReport(name, group, observed, ends, **{**given, **changes})


def told(tensors=(), *, of=None, **options):
    recipe = Recipe(model="m.keras", calibration_data="x.npz", **options)
    return [(found.cause, found.remedy) for found in causes([of or layer()], tensors, recipe)]


def test_a_prescribed_grid():
    fixed = tensor(observed=None, ends=(0.0, 255 / 256), method="prescribed", histogram=None)
    assert told([fixed]) == [
        ("TFLite prescribes its grid, in steps of 0.00391", "end the model before it, if small values matter")
    ]


def test_a_grid_that_is_shared_with_something_larger():
    small = tensor(observed=(0.0, 1.0), ends=(0.0, 320.0), group="boxes")
    ((cause, _),) = told([tensor("boxes", "boxes", (0.0, 320.0), (0.0, 320.0)), small])
    assert cause == "it takes 0..1 of the grid over 0..320 that it shares with 'boxes'"
    assert told([small]) == [] or "shares" not in told([small])[0][0]


def test_a_range_that_a_few_values_set():
    values = np.r_[np.linspace(-1, 1, 100_000), 50.0]
    ((cause, remedy),) = told([tensor(observed=(-1.0, 50.0), ends=(-1.0, 50.0), values=values)])
    assert cause == "1 of 1,000 values sets most of its range, -1..50"
    assert "`pin='conv:float32'`" in remedy


@pytest.mark.parametrize(
    ("of", "options", "expected"),
    [
        (layer(bits=4), {"weight_bits": 4}, ("its weights have 4 bits", "try `pipeline='advanced'`")),
        (
            layer(bits=4),
            {"weight_bits": 4, "pipeline": "advanced"},
            ("its weights have 4 bits", "try `pin='conv:w8'` with a budget"),
        ),
        (layer(), {"per_channel": False}, ("its channels have one weight scale", "try `per_channel=True`")),
    ],
)
def test_bits_and_scales_of_weights(of, options, expected):
    assert told([tensor()], of=of, **options) == [expected]


def test_nothing_is_said_of_what_loses_little_or_for_no_known_reason():
    assert told([tensor()]) == []
    assert told([tensor()], of=layer(db=45.0, bits=4), weight_bits=4) == []
    assert told([tensor()], of=layer(db=None)) == []
