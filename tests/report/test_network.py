"""The network as a page draws it: where layers stand, what the lines join, what colours say."""

import random

from tfq.report.network import ROW, bits_level, error_level, lanes_of


def test_a_chain_has_one_lane_and_a_shortcut_a_second():
    assert lanes_of("abcd", [(), ("a",), ("b",), ("c",)]) == [0, 0, 0, 0]
    residual = [(), ("a",), ("b",), ("a", "c"), ("d",)]
    assert lanes_of("abcde", residual) == [0, 1, 1, 0, 0]


def test_branches_get_lanes_side_by_side_and_give_them_back():
    inception = [(), ("a",), ("a",), ("a",), ("b", "c", "d"), ("e",)]
    assert lanes_of("abcdef", inception) == [0, 1, 2, 0, 0, 0]


def test_no_layer_stands_on_a_tensor_that_is_still_read():
    draw = random.Random(0)
    for _ in range(50):
        names = [f"n{i}" for i in range(30)]
        inputs = [tuple({names[draw.randrange(i)] for _ in range(draw.randint(1, 3))}) if i else () for i in range(30)]
        lanes = lanes_of(names, inputs)
        for row, name in enumerate(names):
            last = max((r for r, read in enumerate(inputs) if name in read), default=row)
            assert all(lanes[between] != lanes[row] for between in range(row + 1, last))


def test_levels_rise_with_error_and_with_few_bits():
    assert [error_level(db) for db in (60, 45, 35, 25, 5)] == [0, 1, 2, 3, 4]
    assert [bits_level(bits) for bits in (32, 16, 8, 6, 4, 2)] == [0, 0, 1, 2, 3, 4]
    assert ROW >= 24  # pixels that a finger needs
