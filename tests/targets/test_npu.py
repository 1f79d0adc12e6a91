"""Every row of the accelerator's table is an operation of LiteRT's; which of them it takes, its compiler said.

Rows that the CPU's table has too are asked there.
"""

from __future__ import annotations

import pytest
from single_operation import asked, operation

from tfq.targets.cpu import CPU
from tfq.targets.npu import NPU
from tfq.targets.target import FAST, PLAIN, REFUSED, Kernel

_ASKED = {(row.operator, row.types) for row in (*CPU.kernels, *CPU.plain)}
ROWS = [row for row in (*NPU.kernels, *NPU.plain) if (row.operator, row.types) not in _ASKED]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.operator}-{'-'.join(row.types)}")
def test_the_runtime_has_the_kernel_of_the_row(row: Kernel) -> None:
    made = operation(row.operator, row.types)
    assert NPU.verdict(made)[0] == (FAST if row in NPU.kernels else PLAIN)
    assert asked(made) != REFUSED


def test_a_product_of_activations_of_16_bits_runs_beside_it() -> None:
    assert NPU.verdict(operation("BATCH_MATMUL", ("int8",)))[0] == FAST
    assert NPU.verdict(operation("BATCH_MATMUL", ("int16",)))[0] == PLAIN
    assert NPU.verdict(operation("HARD_SWISH", ("int16",)))[0] == REFUSED
