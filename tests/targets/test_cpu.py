"""Every row of the CPU's table, held against the installed runtime."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from single_operation import asked, operation

from tfq.execution.delegation import delegation
from tfq.execution.interpreter import TfliteModel
from tfq.targets.cpu import CPU
from tfq.targets.target import FAST, PLAIN, REFUSED, Kernel, Operation, Target

ROWS = [*CPU.kernels, *CPU.plain]
# All whose scales can be chosen.
_SCALED = sorted({row.operator for row in CPU.kernels if row.types == ("int8",)} - {"LOGISTIC", "TANH"})


def agrees(target: Target, made: Operation) -> bool:
    return target.verdict(made)[0] == asked(made)


def row_id(row: Kernel) -> str:
    return f"{row.operator}-{'-'.join(row.types)}"


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_the_runtime_agrees_with_the_row(row: Kernel) -> None:
    made = operation(row.operator, row.types)
    expected = FAST if row in CPU.kernels else PLAIN
    assert CPU.verdict(made)[0] == expected
    assert asked(made) == expected


@pytest.mark.parametrize("types", [("int8", "int4"), ("float32", "int4"), ("int8", "int2"), ("float32", "int2")])
def test_rows_of_packed_weights_must_end_on_whole_bytes(types: tuple[str, ...]) -> None:
    for channels in range(4, 13):
        assert agrees(CPU, operation("FULLY_CONNECTED", types, channels=channels)), channels


@pytest.mark.parametrize("name", _SCALED)
def test_scales_from_the_whole_range_are_judged_as_the_runtime_judges_them(name: str) -> None:
    rng = np.random.default_rng(0)
    for spread in (2, 12, 40):
        for _ in range(10):
            scales = tuple(float(np.float32(0.02 * 2.0 ** rng.uniform(-spread, spread))) for _ in range(4))
            made = operation(name, ("int8",), scales)
            verdict, why = CPU.verdict(made)
            assert (verdict, why) == (asked(made), why), f"{scales}: {why}"


def test_every_condition_is_met_with_on_both_sides() -> None:
    # a bound that the random scales never reach would never be tested
    seen = {FAST: 0, PLAIN: 0, REFUSED: 0}
    rng = np.random.default_rng(1)
    for name in ("ADD", "MUL", "LEAKY_RELU", "QUANTIZE", "CONV_2D", "FULLY_CONNECTED"):
        for _ in range(40):
            scales = tuple(0.02 * 2.0 ** rng.uniform(-12, 12) for _ in range(4))
            seen[CPU.verdict(operation(name, ("int8",), scales))[0]] += 1
    assert min(seen.values()) > 10, seen


def test_a_false_row_is_found_out() -> None:
    false = dataclasses.replace(CPU, kernels=(*CPU.kernels, Kernel("HARD_SWISH", ("int8",))))
    assert not agrees(false, operation("HARD_SWISH", ("int8",)))


@pytest.mark.parametrize(("count", "outside"), [(5, {}), (6, {"CONCATENATION": 1})])
def test_xnnpack_joins_five_tensors_and_no_more(count: int, outside: dict[str, int]) -> None:
    layers = tf_keras.layers
    x = tf_keras.Input((4, 4, 2))
    joined = layers.Concatenate()([layers.Conv2D(1, 1)(x) for _ in range(count)])
    content = tf.lite.TFLiteConverter.from_keras_model(tf_keras.Model(x, layers.Conv2D(1, 1)(joined))).convert()
    assert delegation(TfliteModel(content)).outside == outside
