"""One operator of a .tflite, and what it reads: tensors of the graph under the shapes that the file gives them.

A file holds its batch axis in its shapes, a graph does not. The file is read as what it computes of *one* sample: its
batch axis has size 1, and is an axis like any other. A tensor of the file whose first axis has size 1 is a tensor
[batch, *rest] of the graph; any other, such as [positions, channels] in front of a matrix product, is [batch, *shape],
and so is a vector.
The first can be read in the second form too, by a reshape that costs nothing: that is how an operator gets at the axis
in front (`whole`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfq.errors import UserError
from tfq.models import operations
from tfq.models.flatten import Call, Tensor

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph, and its shape in the file, which for one sample has as many elements."""

    tensor: Tensor
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def in_front(self) -> int:
        """Axes of the tensor in front of those of the file: 0, or 1 where the file's first axis is not the batch."""
        return self.tensor.rank - self.rank

    def axis(self, axis: int) -> int:
        """An axis of the file, counted from either end, as one of the tensor."""
        return int(axis) % self.rank + self.in_front


@dataclasses.dataclass(frozen=True)
class Blocks(Value):
    """An image cut into every `block`-th row and column, [rows columns, height, width, channels], and not cut yet.

    The tensor is the whole image. A convolution of the parts is a dilated one of the image: that is all that may be
    done with it, until the parts are put together again.
    """

    block: tuple[int, int] = (1, 1)


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operator as its rule sees it.

    Attributes:
      kind: TFLite's name of it.
      call: where its nodes go.
      inputs: values, constants as arrays, and None for what is left out.
      options: the file's own object of its fields; None where it has none.
      readers: TFLite's names of the operators that read its first output.
    """

    kind: str
    call: Call
    inputs: Sequence[Value | np.ndarray | None]
    options: Any
    readers: Sequence[str] = ()

    def refuse(self, reason: str, way_out: str = "export the model without it") -> UserError:
        return self.call.refuse(f"{self.kind}: {reason}", way_out)

    def option(self, name: str, default: Any = 0) -> Any:
        """A field of the options; what a file leaves out is 0."""
        return getattr(self.options, name, default)

    def value(self, place: int) -> Value:
        """An input that the model's inputs decide on."""
        found = self.inputs[place]
        if not isinstance(found, Value):
            raise self.refuse(f"its input {place} is a constant")
        return found

    def constant(self, place: int) -> np.ndarray:
        """An input that is the same for every sample."""
        found = self.inputs[place] if place < len(self.inputs) else None
        if not isinstance(found, np.ndarray):
            raise self.refuse(f"its input {place} is not a constant", "export it with fixed shapes and weights")
        return found

    def optional(self, place: int) -> np.ndarray | None:
        """A constant that may be left out."""
        return None if place >= len(self.inputs) or self.inputs[place] is None else self.constant(place)

    def image(self, place: int = 0) -> Tensor:
        """An input [1, height, width, channels] as a tensor."""
        found = self.value(place)
        if found.rank != 4 or found.in_front or isinstance(found, Blocks):
            raise self.refuse(f"it reads {list(found.shape)}", "give it images [1, height, width, channels]")
        return found.tensor

    def shaped(self, value: Value, shape: Sequence[int]) -> Value:
        """The value's elements in another shape of the file."""
        shape = tuple(int(size) for size in shape)
        if math.prod(shape) != math.prod(value.shape):
            raise self.refuse(f"it reshapes {list(value.shape)} to {list(shape)}")
        return Value(operations.reshape(self.call, value.tensor, batched(shape)), shape)

    def whole(self, value: Value) -> Tensor:
        """The tensor [batch, *shape]: all axes of the file behind the batch."""
        return operations.reshape(self.call, value.tensor, (None, *value.shape))

    def along(self, values: Sequence[Value], free: bool) -> tuple[list[Tensor], int]:
        """Tensors of values of one rank whose axes match, and the axes in front of those of the file.

        Args:
          free: the operator leaves the file's first axis alone.
        """
        if free and not any(value.in_front for value in values):
            return [value.tensor for value in values], 0
        return [self.whole(value) for value in values], 1

    def of(self, tensor: Tensor) -> Value:
        """The value of a tensor [batch, *rest] whose first axis is the file's own, of size 1."""
        shape = (1, *tensor.sample)
        return Value(operations.reshape(self.call, tensor, batched(shape)), shape)

    def of_whole(self, tensor: Tensor) -> Value:
        """The value of a tensor [batch, *shape]."""
        shape = tensor.sample
        return Value(operations.reshape(self.call, tensor, batched(shape)), shape)

    def made(self, tensor: Tensor, in_front: int) -> Value:
        """The value of a tensor with so many axes in front of those of the file."""
        return self.of_whole(tensor) if in_front else self.of(tensor)


Rule = Callable[[Operation], Value | Sequence[Value]]


def batched(shape: Sequence[int]) -> tuple[int | None, ...]:
    """The shape in the graph of a tensor that has this one in the file."""
    return (None, *shape[1:]) if len(shape) > 1 and shape[0] == 1 else (None, *shape)
