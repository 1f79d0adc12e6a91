"""How many partitions XNNPACK makes of a file, and what it leaves out."""

import operator_graphs

from tfq.execution.delegation import delegation
from tfq.execution.interpreter import TfliteModel


def graph(*kinds):
    make = operator_graphs._Builder(0)
    make.input("image", (6, 6, 4))
    source = make.conv("first", "image", 4, 4)
    for index, kind in enumerate(kinds):
        source = make.conv(f"conv{index}", make.node(f"own{index}", kind, source), 4, 4)
    return make.graph((source,))


def test_each_operation_that_is_left_out_cuts_the_file_in_two():
    content = operator_graphs.exported(graph("HardSwish", "Gelu", "HardSwish")).content
    found = delegation(TfliteModel(content))
    assert (found.partitions, found.operators) == (4, 7)
    assert list(found.outside.items()) == [("HARD_SWISH", 2), ("GELU", 1)]


def test_without_the_delegate_all_is_left_out():
    found = delegation(TfliteModel(operator_graphs.exported(graph("Tanh")).content, delegate=False))
    assert (found.partitions, found.operators, sum(found.outside.values())) == (0, 3, 3)
    assert delegation(TfliteModel(operator_graphs.exported(graph("Tanh")).content)).outside == {}
