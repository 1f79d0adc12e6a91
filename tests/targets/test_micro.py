"""Every row of TFLite Micro's table, held against its interpreter, where that is installed (`.[micro]`)."""

from __future__ import annotations

import numpy as np
import pytest
from single_operation import SHAPES, file_of, in_a_child, operation

from tfq.targets.cpu import CPU
from tfq.targets.micro import MICRO
from tfq.targets.target import FAST, REFUSED, Kernel, Operation

micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="tflite-micro is not installed")
_ARENA = 1 << 20
_OPERATORS = sorted({*SHAPES, *(row.operator for row in (*CPU.kernels, *CPU.plain))})
_SCALED = sorted({row.operator for row in MICRO.kernels if row.demands})
_PACKED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def asked(made: Operation) -> str:
    """What the interpreter does with the operation: FAST or REFUSED."""

    def ask() -> str:
        interpreter = micro.Interpreter.from_bytes(file_of(made, 1), arena_size=_ARENA)
        for place, operand in enumerate(operand for operand in made.inputs if not operand.constant):
            interpreter.set_input(np.ones(operand.shape, operand.dtype), place)
        interpreter.invoke()
        return FAST

    return in_a_child(ask)


@pytest.mark.parametrize("name", _OPERATORS)
def test_the_runtime_agrees_with_the_table_where_it_has_a_row_and_where_it_has_none(name: str) -> None:
    for types in (("int8",), ("float32",), *((("int8", "int4"), ("float32", "int8")) if name in _PACKED else ())):
        made = operation(name, types)
        assert MICRO.verdict(made)[0] == asked(made), types


@pytest.mark.parametrize("row", [row for row in MICRO.kernels if row.types[0] == "int16"], ids=lambda row: row.operator)
def test_it_has_the_kernels_of_16_bit_layers(row: Kernel) -> None:
    assert asked(operation(row.operator, row.types)) == MICRO.verdict(operation(row.operator, row.types))[0] == FAST


@pytest.mark.parametrize("name", _SCALED)
def test_scales_are_judged_as_the_runtime_judges_them(name: str) -> None:
    rng = np.random.default_rng(0)
    for spread in (1, 8, 20, 40):
        for _ in range(8):
            scales = tuple(float(np.float32(0.02 * 2.0 ** rng.uniform(-spread, spread))) for _ in range(4))
            made = operation(name, ("int8",), scales)
            verdict, why = MICRO.verdict(made)
            assert (verdict, why) == (asked(made), why), f"{scales}: {why}"


@pytest.mark.parametrize(
    ("name", "bound", "output"),
    [("ADD", 2**19, 0.02), ("SUB", 2**19, 0.02), ("HARD_SWISH", 2**7, 0.02), ("SOFTMAX", 2**-18, 1 / 256)],
)
def test_both_sides_of_every_bound_are_met(name: str, bound: float, output: float) -> None:
    verdicts = []
    for factor in (0.9, 1.1):
        made = operation(name, ("int8",), (factor * bound * output, output, output))
        verdicts.append(MICRO.verdict(made)[0])
        assert asked(made) == verdicts[-1]
    assert sorted(verdicts) == sorted([FAST, REFUSED])


def test_a_kernel_of_few_bits_is_refused_where_its_layer_has_no_kernel_for_it() -> None:
    verdict, why = MICRO.verdict(operation("FULLY_CONNECTED", ("int8", "int4")))
    assert (verdict, why) == (REFUSED, "FULLY_CONNECTED on int8 has no kernel")
