"""Where the points of a frontier stand on its page."""

import pytest

from tfq.report.frontier_page import ticks


@pytest.mark.parametrize("values", [[0.0, 97.9], [-1.3, 0.0], [5.0, 5.0], [99.2, 100.0], [0.0, 1e-7]])
def test_ticks_are_round_few_and_enclose_all(values):
    found = ticks(values)
    assert found[0] <= min(values) <= max(values) <= found[-1]
    assert 2 <= len(found) <= 9
    assert all(len(f"{value:g}") <= 6 for value in found)
