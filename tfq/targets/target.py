"""The vocabulary of a target table: an operation as a runtime sees it, and what a kernel asks of it.

A table says three things of an operation:

    fast    a kernel of the target's fast path takes it
    plain   it runs, but outside the fast path
    refused the runtime does not prepare the file that holds it, or ends the process

and why. A row (`Kernel`) is one operator with the element types that it is made for; `Condition`s say for which
scales and shapes. With s the scale of a tensor, most of them bound the factor by which a kernel multiplies its
integers:

    ratio = s_1 s_2 ... / s_output
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol

FAST, PLAIN, REFUSED = "fast", "plain", "refused"


@dataclasses.dataclass(frozen=True)
class Operand:
    """One tensor that an operation reads or writes.

    Attributes:
      dtype: "float32", "int8", "int4", ...
      shape: with the batch axis.
      scale: none, one, or one for each channel.
      zero_point: of a tensor with one scale.
      constant: it is stored in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    scale: tuple[float, ...] = ()
    zero_point: int = 0
    constant: bool = False


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a file: TFLite's name of its operator, its operands in TFLite's order, its numeric options."""

    operator: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    options: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Condition(Protocol):
    """Something that a kernel asks of an operation."""

    def broken(self, operation: Operation) -> str:
        """What is wrong, with the numbers; empty where the condition holds."""
        ...


@dataclasses.dataclass(frozen=True)
class Ratio:
    """low <= s_1 s_2 ... / s_output < high, for each of the channels and for each input alone if `each`.

    Attributes:
      inputs: positions of the inputs whose scales are multiplied.
      each: one ratio for each of them, instead of their product.
      closed: `high` itself is allowed.
    """

    low: float
    high: float
    inputs: tuple[int, ...] = (0,)
    each: bool = False
    closed: bool = False

    def broken(self, operation: Operation) -> str:
        (output,) = operation.outputs[0].scale or (1.0,)
        scales = [operation.inputs[i].scale or (1.0,) for i in self.inputs]
        if not self.each:
            scales = [tuple(math.prod(found) for found in _broadcast(scales))]
        for ratio in (s / output for found in scales for s in found):
            if not (self.low <= ratio < self.high or (self.closed and ratio == self.high)):
                return f"its scales have the ratio {ratio:.3g}, outside [{self.low:.3g}, {self.high:.3g}]"
        return ""


@dataclasses.dataclass(frozen=True)
class SlopeRatio:
    """|slope s_input / s_output| lies in [low, high]: what LEAKY_RELU multiplies negative values by."""

    low: float
    high: float

    def broken(self, operation: Operation) -> str:
        ratio = abs(operation.options["alpha"]) * operation.inputs[0].scale[0] / operation.outputs[0].scale[0]
        return "" if self.low <= ratio <= self.high else f"its slope times the ratio of its scales is {ratio:.3g}"


@dataclasses.dataclass(frozen=True)
class SameScale:
    """All inputs that have a scale share it, to within `within`, and the zero-point, with the output."""

    within: float = 0.0

    def broken(self, operation: Operation) -> str:
        output = operation.outputs[0]
        for operand in (o for o in operation.inputs if o.scale):
            apart = abs(operand.scale[0] - output.scale[0]) if output.scale else 0.0
            if apart > self.within or operand.zero_point != output.zero_point:
                return "its inputs and its output lie on different grids"
        return ""


@dataclasses.dataclass(frozen=True)
class NormalScales:
    """Every scale is a normal number of float32, not one of the tiny ones below 2^-126."""

    def broken(self, operation: Operation) -> str:
        for scale in (s for o in (*operation.inputs, *operation.outputs) for s in o.scale):
            if not 2.0**-126 <= scale < math.inf:
                return f"it has the scale {scale:.3g}, which is below the least normal float32, 2^-126"
        return ""


@dataclasses.dataclass(frozen=True)
class Multiple:
    """The last axis of an input is a multiple of `of`."""

    of: int
    input: int = 0

    def broken(self, operation: Operation) -> str:
        size = operation.inputs[self.input].shape[-1]
        return "" if size % self.of == 0 else f"it has {size} input channels, no multiple of {self.of}"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One row: an operator for given element types.

    Attributes:
      operator: TFLite's name, as "CONV_2D".
      types: element type of the first input and, where the weights are of another kind, theirs: ("int8", "int4").
      fast: the kernel of the fast path takes the operation if these hold.
      demands: the runtime refuses the file, or dies, unless these hold.
    """

    operator: str
    types: tuple[str, ...]
    fast: tuple[Condition, ...] = ()
    demands: tuple[Condition, ...] = ()


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime with its fast path.

    Attributes:
      name: as in the option `target`.
      path: what its fast path is called.
      kernels: what the fast path takes.
      plain: operators, with their types, that run outside it. Whatever is in neither list is not known to run.
      most_taps: of a depthwise kernel that its fast kernels take at once, more make them slow; None: any number.
      most_joined: tensors that its fast CONCATENATION takes; None: any number.
      most_interleaved: parts of channels in turn that one TRANSPOSE tells apart faster than a SLICE each; None: none.
      integers_only: floats are out of place among int8 layers, where these are not needed for accuracy.
    """

    name: str
    path: str
    kernels: tuple[Kernel, ...]
    plain: tuple[Kernel, ...]
    most_taps: int | None = None
    most_joined: int | None = None
    most_interleaved: int | None = None
    integers_only: bool = False

    def verdict(self, operation: Operation) -> tuple[str, str]:
        """(FAST, PLAIN or REFUSED, why it is not fast); `why` is empty for FAST."""
        rows = [row for row in self.kernels if _fits(row, operation)]
        others = [row for row in self.plain if _fits(row, operation)]
        for row in (*rows, *others):
            for condition in row.demands:
                if why := condition.broken(operation):
                    return REFUSED, why
        if not rows:
            what = f"{operation.operator} on {operation.inputs[0].dtype}"
            return (PLAIN, f"{what} has no fast kernel") if others else (REFUSED, f"{what} has no kernel")
        reasons = [next(filter(None, (c.broken(operation) for c in row.fast)), "") for row in rows]
        return (FAST, "") if "" in reasons else (PLAIN, reasons[0])


def types_of(operation: Operation) -> tuple[str, ...]:
    """The element types by which a row is found: of the activations, then of constant weights of another type."""
    kernel = operation.inputs[1] if len(operation.inputs) > 1 and operation.inputs[1].constant else None
    first = next(o.dtype for o in operation.inputs if not o.constant)
    if kernel is None or kernel.dtype in (first, "int32"):
        return (first,)
    return first, kernel.dtype


def _fits(row: Kernel, operation: Operation) -> bool:
    return row.operator == operation.operator and row.types == types_of(operation)


def _broadcast(scales: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """One tuple of factors for every channel."""
    channels = max(map(len, scales))
    return [tuple(s[c] if len(s) > 1 else s[0] for s in scales) for c in range(channels)]
