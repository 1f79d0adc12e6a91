"""Operators that move values and compute nothing, as nodes of the graph: slices, joins, new axes (`operations`)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfq.models.flatten import Call, OperatorRow, Tensor
from tfq.models.operations import Value, positive_axis, reshape

MOST_COPIES = 64


def squeeze(call: Call, x: Tensor, axis: Any = None) -> Tensor:
    axes = {i for i in range(1, x.rank) if x.shape[i] == 1}
    if not axes or (axis is None and call.flattener.batch == 1):
        raise call.refuse(f"it squeezes {list(x.shape)}", "name the axis to squeeze")
    if axis is not None and np.size(axis):
        axes = {positive_axis(call, x, int(a)) for a in np.reshape(axis, -1)}
    return reshape(call, x, [None, *(x.shape[i] for i in range(1, x.rank) if i not in axes)])


def expand_dims(call: Call, x: Tensor, axis: Any) -> Tensor:
    shape = list(x.shape)
    for a in sorted(np.reshape(axis, -1)):
        shape.insert(positive_axis(call, x, int(a), len(shape) + 1), 1)
    return reshape(call, x, shape)


def transpose(call: Call, x: Tensor, order: Sequence[int] | None) -> Tensor:
    axes = [int(a) % x.rank for a in np.reshape(order, -1)] if order is not None else list(range(x.rank))[::-1]
    if axes[0] != 0:
        raise call.forbid(f"it transposes the axes to {axes}, which moves the batch axis", "keep axis 0 first")
    if axes == list(range(x.rank)):
        return x
    return call.add("Permute", {"dims": tuple(axes[1:])}, [x], shape=tuple(x.shape[a] for a in axes))


def swap_axes(call: Call, x: Tensor, a: int, b: int) -> Tensor:
    order = list(range(x.rank))
    order[a], order[b] = order[b], order[a]
    return transpose(call, x, order)


def concatenate(call: Call, xs: Sequence[Value], axis: int) -> Tensor:
    if not all(isinstance(x, Tensor) for x in xs):
        raise call.refuse("it joins a constant to a tensor", "rebuild the model without the constant")
    found = positive_axis(call, xs[0], axis)
    if len(xs) == 1:
        return xs[0]
    shape = list(xs[0].shape)
    shape[found] = sum(x.shape[found] for x in xs)
    return call.add("Concatenate", {"axis": found}, list(xs), shape=shape)


def tile(call: Call, x: Tensor, counts: Any) -> Tensor:
    """Copies of the whole, so many along each axis."""
    numbers = [int(count) for count in np.reshape(counts, -1)]
    if len(numbers) != x.rank or numbers[0] != 1 or not 0 < max(numbers) <= MOST_COPIES or min(numbers) < 1:
        raise call.refuse(f"it makes {numbers} copies of {list(x.shape)}")
    for axis, count in enumerate(numbers):
        x = concatenate(call, [x] * count, axis) if count > 1 else x
    return x


def repeat(call: Call, x: Tensor, count: Any, axis: int | None) -> Tensor:
    """Copies of every place of an axis, one behind the other."""
    if np.ndim(count) or axis is None:
        raise call.refuse(f"it repeats {count} times along the axis {axis}")
    found, count = positive_axis(call, x, axis), int(count)
    shape = list(x.shape)
    shape[found] = (shape[found] or 0) * count
    apart = expand_dims(call, x, found + 1)
    return reshape(call, tile(call, apart, [1 if i != found + 1 else count for i in range(apart.rank)]), shape)


def roll(call: Call, x: Tensor, shift: Any, axis: Any) -> Tensor:
    """The last places of an axis in front of the others."""
    if axis is None:
        raise call.refuse("it rolls all axes as one", "name the axis")
    for shift_, axis_ in np.broadcast(shift, axis):
        found = positive_axis(call, x, int(axis_))
        cut = -int(shift_) % (x.shape[found] or 1)
        x = concatenate(call, split_at(call, x, [cut], found)[::-1], found) if cut else x
    return x


def stack(call: Call, xs: Sequence[Value], axis: int) -> Tensor:
    if not all(isinstance(x, Tensor) for x in xs):
        raise call.refuse("it joins a constant to a tensor", "rebuild the model without the constant")
    found = positive_axis(call, xs[0], axis, xs[0].rank + 1)
    return concatenate(call, [expand_dims(call, x, found) for x in xs], found)


def pad(call: Call, x: Tensor, width: Any, mode: str = "constant", value: Any = 0) -> Tensor:
    """Zeros in front of and behind the axes; other axes than height and width are padded as the width of an image."""
    if mode.lower() != "constant" or (value is not None and np.any(np.asarray(value))):
        raise call.refuse(f"it pads in mode {mode} with {value}", "pad with zeros")
    around = np.broadcast_to(np.asarray(width, int), (x.rank, 2)).tolist()
    if any(around[0]):
        raise call.refuse(f"it pads {list(x.shape)} by {around}, the batch axis too", "leave the batch axis alone")
    shape = (None, *(size + sum(a) for size, a in zip(x.shape[1:], around[1:], strict=True) if size is not None))
    if x.rank in (3, 4) and not any(around[-1]):
        spatial = tuple(map(tuple, around[1:-1]))
        config = {"padding": spatial if x.rank == 4 else spatial[0]}
        return call.add(f"ZeroPadding{x.rank - 2}D", config, [x], shape=shape)
    for axis in (axis for axis in range(1, x.rank) if any(around[axis])):
        before, size, behind = math.prod(x.sample[: axis - 1]), x.sample[axis - 1], math.prod(x.sample[axis:])
        rows = reshape(call, x, (None, before, size, behind))
        grown = size + sum(around[axis])
        padding = {"padding": ((0, 0), tuple(around[axis]))}
        rows = call.add("ZeroPadding2D", padding, [rows], shape=(None, before, grown, behind))
        x = reshape(call, rows, (None, *x.sample[: axis - 1], grown, *x.sample[axis:]))
    return x


def _part(call: Call, x: Tensor, slices: Sequence[slice]) -> Tensor:
    """One slice for every axis but the batch."""
    if all(s in (slice(None), slice(0, size)) for s, size in zip(slices, x.shape[1:], strict=True)):
        return x
    shape = [None, *(len(range(size or 0)[s]) for s, size in zip(slices, x.shape[1:], strict=True))]
    if 0 in shape:
        raise call.refuse(f"it slices nothing out of {list(x.shape)}")
    triples = {name: tuple(getattr(s, a) for s in slices) for name, a in (("begin", "start"), ("end", "stop"))}
    return call.add("Slice", {**triples, "strides": tuple(s.step for s in slices)}, [x], shape=shape)


def get_item(call: Call, x: Tensor, key: Any) -> Tensor:
    """x[key] with numbers, slices, `...` and None."""
    items = list(key) if isinstance(key, (tuple, list)) else [key]
    given = sum(item is not None and item is not Ellipsis for item in items)
    if Ellipsis not in items:
        items.append(Ellipsis)
    at = items.index(Ellipsis)
    items[at : at + 1] = [slice(None)] * (x.rank - given)
    slices: list[slice] = []
    shape: list[int | None] = []
    for item in items:
        if item is None:
            shape.append(1)
        elif isinstance(item, slice):
            size = x.shape[len(slices)] if len(slices) < x.rank else 0
            shape.append(None if size is None else len(range(size)[item]))
            slices.append(item)
        elif isinstance(item, (int, np.integer)):
            slices.append(slice(int(item), int(item) + 1 if item != -1 else None))
        else:
            raise call.refuse(f"it slices with {item!r}", "slice with numbers")
    if len(slices) != x.rank or slices[0] != slice(None) or items[0] is None:
        raise call.forbid(f"it slices the batch axis: {key!r}", "keep the batch axis: x[:, ...]")
    return reshape(call, _part(call, x, slices[1:]), [None, *shape[1:]])


def _along(x: Tensor, axis: int, part: slice) -> list[slice]:
    return [part if i == axis else slice(None) for i in range(1, x.rank)]


def split(call: Call, x: Tensor, parts: Any, axis: int) -> list[Tensor]:
    """`parts` equal parts, or parts of the sizes given."""
    size = x.shape[positive_axis(call, x, axis)] or 0
    if np.ndim(parts) == 0:
        return split_at(call, x, parts, axis)
    sizes = [int(p) for p in parts]
    sizes = [size - sum(s for s in sizes if s >= 0) if s < 0 else s for s in sizes]
    return split_at(call, x, [sum(sizes[:i]) for i in range(1, len(sizes))], axis)


def split_at(call: Call, x: Tensor, places: Any, axis: int) -> list[Tensor]:
    """`places` equal parts, or cut at the places given."""
    found = positive_axis(call, x, axis)
    size = x.shape[found] or 0
    if np.ndim(places) == 0:
        if size % int(places):
            raise call.refuse(f"it splits axis {found} of {list(x.shape)} into {int(places)} parts")
        places = range(size // int(places), size, size // int(places))
    cuts = [0, *map(int, places), size]
    return [_part(call, x, _along(x, found, slice(a, b))) for a, b in itertools.pairwise(cuts)]


def unstack(call: Call, x: Tensor, axis: int) -> list[Tensor]:
    found = positive_axis(call, x, axis)
    return [squeeze(call, part, found) for part in split(call, x, x.shape[found], found)]


def depth_to_space(call: Call, x: Tensor, block: int) -> Tensor:
    """Channels [block, block, c] of every pixel become a square of pixels: [h, w, b b c] -> [h b, w b, c]."""
    height, width, channels = _image(call, x)
    apart = reshape(call, x, (None, height, width, block, block, channels // block**2))
    return reshape(
        call, transpose(call, apart, (0, 1, 3, 2, 4, 5)), (None, height * block, width * block, channels // block**2)
    )


def space_to_depth(call: Call, x: Tensor, block: int) -> Tensor:
    """The inverse of `depth_to_space`."""
    height, width, channels = _image(call, x)
    apart = reshape(call, x, (None, height // block, block, width // block, block, channels))
    shape = (None, height // block, width // block, channels * block**2)
    return reshape(call, transpose(call, apart, (0, 1, 3, 2, 4, 5)), shape)


def _image(call: Call, x: Tensor) -> tuple[int, int, int]:
    if x.rank != 4:
        raise call.refuse(f"it takes images and reads {list(x.shape)}", "reshape to [height, width, channels] first")
    height, width, channels = x.sample
    return height, width, channels


ROWS = (
    OperatorRow(
        squeeze, {"Squeeze": "x axis"}, {"squeeze": "input axis", "compat.v1.squeeze": "input axis|squeeze_dims"}
    ),
    OperatorRow(
        expand_dims,
        {"ExpandDims": "x axis"},
        {"expand_dims": "input axis", "compat.v1.expand_dims": "input axis|dim"},
    ),
    OperatorRow(transpose, {"Transpose": "x axes"}, {"transpose": "a perm", "compat.v1.transpose": "a perm"}),
    OperatorRow(swap_axes, {"Swapaxes": "x axis1 axis2"}, {}),
    OperatorRow(concatenate, {"Concatenate": "xs axis"}, {"concat": "values axis"}),
    OperatorRow(tile, {"Tile": "x repeats"}, {"tile": "input multiples"}),
    OperatorRow(repeat, {"Repeat": "x repeats axis"}, {"repeat": "input repeats axis"}),
    OperatorRow(roll, {"Roll": "x shift axis"}, {"roll": "input shift axis"}),
    OperatorRow(stack, {"Stack": "x axis"}, {"stack": "values axis"}),
    OperatorRow(
        pad,
        {"Pad": "x pad_width mode constant_values"},
        dict.fromkeys(("pad", "compat.v1.pad"), "tensor paddings mode constant_values"),
    ),
    OperatorRow(get_item, {"GetItem": "x key"}, {"__operators__.getitem": "tensor slice_spec"}),
    OperatorRow(split, {}, {"split": "value num_or_size_splits axis"}),
    OperatorRow(split_at, {"Split": "x indices_or_sections axis"}, {}),
    OperatorRow(unstack, {"Unstack": "x axis"}, {"unstack": "value axis"}),
    OperatorRow(depth_to_space, {"DepthToSpace": "x block_size"}, {"nn.depth_to_space": "input block_size"}),
    OperatorRow(space_to_depth, {"SpaceToDepth": "x block_size"}, {"nn.space_to_depth": "input block_size"}),
)
