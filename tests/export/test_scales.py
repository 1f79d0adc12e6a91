"""Scales that no runtime takes are told in one line before anything is converted."""

import operator_graphs
import pytest

from tfq.errors import UserError
from tfq.export.scales import require_runnable
from tfq.grid import activation_grid


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
