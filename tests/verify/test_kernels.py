"""Scales that a target's kernels do not take are told, those that it refuses are an error."""

import operator_graphs
import pytest

from tfq.errors import VerificationError
from tfq.grid import activation_grid
from tfq.targets.cpu import CPU
from tfq.targets.micro import MICRO
from tfq.verify.kernels import verify_kernels


def with_scale(name, factor):
    model = operator_graphs.case("arithmetic").model
    return model.with_nodes(model[name].replace(grid=activation_grid(model.grids[name].scale[0] * factor, 0)))


def test_usual_scales_are_taken():
    for name in ("arithmetic", "convolutions", "islands"):
        model = operator_graphs.case(name).model
        assert verify_kernels(model, CPU) == verify_kernels(model, MICRO) == ()


@pytest.mark.parametrize(("layer", "factor"), [("difference", 2.0**-12), ("product", 2.0**-20)])
def test_scales_beyond_a_bound_are_told(layer, factor):
    told = verify_kernels(with_scale(layer, factor), CPU)[0]
    assert told.startswith(f"layer 'keras_{layer}' (")
    assert " runs outside XNNPACK: its scales have the ratio " in told


def test_what_the_target_refuses_is_an_error():
    with pytest.raises(VerificationError, match="Subtract 'difference' is refused by the target micro: its scales"):
        verify_kernels(with_scale("difference", 2.0**-21), MICRO)
