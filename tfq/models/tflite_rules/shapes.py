"""Operators of a .tflite that move values, pool or resize."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tfq.models import operations, shaping
from tfq.models.flatten import Tensor
from tfq.models.tflite_rules.operation import Blocks, Operation, Rule, Value
from tfq.models.tflite_rules.weighted import dense, padding, strides

_ENDLESS = -1e30  # numbers below it stand for minus infinity


def reshape(op: Operation) -> Value:
    given = op.inputs[1] if len(op.inputs) > 1 else None
    target = op.option("newShape", None) if given is None else op.constant(1)
    sizes = [int(size) for size in np.reshape([] if target is None else target, -1)]
    x = op.value(0)
    if -1 in sizes:
        known = int(np.prod([size for size in sizes if size != -1]))
        sizes[sizes.index(-1)] = int(np.prod(x.shape)) // max(1, known)
    return op.shaped(x, sizes)


def squeeze(op: Operation) -> Value:
    x = op.value(0)
    named = op.option("squeezeDims", None)
    axes = {int(axis) % x.rank for axis in (() if named is None else named)}
    axes = axes or {axis for axis, size in enumerate(x.shape) if size == 1}
    return op.shaped(x, [size for axis, size in enumerate(x.shape) if axis not in axes])


def expand_dims(op: Operation) -> Value:
    x = op.value(0)
    return op.shaped(x, _inserted(x, int(op.constant(1).reshape(()))))


def _inserted(x: Value, axis: int) -> list[int]:
    shape = list(x.shape)
    shape.insert(axis % (x.rank + 1), 1)
    return shape


def transpose(op: Operation) -> Value:
    x, order = op.value(0), op.constant(1).tolist()
    (tensor,), front = op.along([x], free=order[0] == 0)
    return op.made(shaping.transpose(op.call, tensor, [*range(front), *(axis + front for axis in order)]), front)


def _joined(op: Operation, values: Sequence[Value], axis: int) -> Value:
    tensors, front = op.along(values, free=axis > 0)
    return op.made(shaping.concatenate(op.call, tensors, axis + front), front)


def concatenation(op: Operation) -> Value:
    """A constant at either end, such as the class token of a transformer, is added to zeros."""
    values = [x for x in op.inputs if isinstance(x, Value)]
    constant = [not isinstance(x, Value) for x in op.inputs]
    first, last = constant.index(False), len(constant) - constant[::-1].index(False)
    if any(constant[first:last]):
        raise op.refuse("it joins a constant between two tensors", "put constants at the ends")
    axis = op.option("axis") % values[0].rank
    joined = _joined(op, values, axis)
    if not any(constant):
        return joined
    parts = [op.constant(place) if held else np.zeros(x.shape, np.float32)  # type: ignore[union-attr]
             for place, (held, x) in enumerate(zip(constant, op.inputs, strict=True))]  # fmt: skip
    sizes = [part.shape[axis] for part in parts]
    around = [(0, 0)] * joined.rank
    around[axis] = (sum(sizes[:first]), sum(sizes[last:]))
    (tensor,), front = op.along([joined], free=axis > 0)
    padded = shaping.pad(op.call, tensor, [(0, 0)] * front + around)
    return op.made(operations.add(op.call, padded, np.concatenate(parts, axis)), front)


def pack(op: Operation) -> Value:
    values = [op.value(place) for place in range(len(op.inputs))]
    axis = op.option("axis") % (values[0].rank + 1)
    return _joined(op, [op.shaped(x, _inserted(x, axis)) for x in values], axis)


def _part(op: Operation, x: Value, slices: Sequence[slice]) -> Value:
    """One slice for every axis of the file."""
    whole = len(range(x.shape[0])[slices[0]]) == x.shape[0] and (slices[0].step or 1) > 0
    (tensor,), front = op.along([x], free=whole)
    key = slices if front else [slice(None), *slices[1:]]
    return op.made(shaping.get_item(op.call, tensor, (*(slice(None),) * front, *key)), front)


def _split(op: Operation, x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    cuts = [0, *itertools.accumulate(sizes)]
    if cuts[-1] != x.shape[axis]:
        raise op.refuse(f"it splits axis {axis} of {list(x.shape)} into {list(sizes)}")
    everywhere = [slice(None)] * x.rank
    return [
        _part(op, x, [*everywhere[:axis], slice(a, b), *everywhere[axis + 1 :]]) for a, b in itertools.pairwise(cuts)
    ]


def split(op: Operation) -> list[Value]:
    x, parts = op.value(1), op.option("numSplits")
    axis = int(op.constant(0).reshape(())) % x.rank
    return _split(op, x, axis, [x.shape[axis] // parts] * parts)


def split_v(op: Operation) -> list[Value]:
    x, sizes = op.value(0), op.constant(1).tolist()
    axis = int(op.constant(2).reshape(())) % x.rank
    return _split(op, x, axis, [x.shape[axis] - sum(sizes) - 1 if size == -1 else size for size in sizes])


def unpack(op: Operation) -> list[Value]:
    x = op.value(0)
    axis = op.option("axis") % x.rank
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return [op.shaped(part, shape) for part in _split(op, x, axis, [1] * x.shape[axis])]


def slice_(op: Operation) -> Value:
    begin, size = op.constant(1).tolist(), op.constant(2).tolist()
    return _part(op, op.value(0), [slice(b, None if s == -1 else b + s) for b, s in zip(begin, size, strict=True)])


def strided_slice(op: Operation) -> Value:
    """begin, end and strides by axis; bits of the masks leave an end open or drop the axis."""
    x = op.value(0)
    if op.option("ellipsisMask") or op.option("newAxisMask"):
        raise op.refuse("it slices with an ellipsis or a new axis", "name all axes")
    slices, shape = [], []
    for axis, triple in enumerate(zip(*(op.constant(place).tolist() for place in (1, 2, 3)), strict=True)):
        begin, end, step = triple
        drops, no_begin, no_end = (
            op.option(f"{name}Mask") >> axis & 1 for name in ("shrinkAxis", "begin", "end")
        )  # fmt: skip
        if drops:
            begin, end = begin % x.shape[axis], begin % x.shape[axis] + 1
        slices.append(slice(None if no_begin and not drops else begin, None if no_end and not drops else end, step))
        if not drops:
            shape.append(len(range(x.shape[axis])[slices[-1]]))
    rest = x.shape[len(slices) :]
    return op.shaped(_part(op, x, [*slices, *(slice(None),) * len(rest)]), [*shape, *rest])


def reverse(op: Operation) -> Value:
    x = op.value(0)
    axes = {int(axis) % x.rank for axis in op.constant(1).reshape(-1)}
    return _part(op, x, [slice(None, None, -1 if axis in axes else None) for axis in range(x.rank)])


def _around(op: Operation, x: Value) -> list[tuple[int, int]]:
    around = [(int(a), int(b)) for a, b in op.constant(1)]
    if len(around) != x.rank:
        raise op.refuse(f"it pads {list(x.shape)} by {around}")
    return around


def pad(op: Operation) -> Value:
    """Zeros, or another number v, as pad(x - v) + v; minus infinity in front of a maximum as copies of the edge."""
    x = op.value(0)
    around = _around(op, x)
    number = 0.0 if len(op.inputs) < 3 else float(op.constant(2).reshape(()))
    if number < _ENDLESS:
        if set(op.readers) != {"MAX_POOL_2D"}:
            raise op.refuse(f"it pads with {number}", "pad with zeros")
        return _bordered(op, x, [([0] * before, [-1] * behind) for before, behind in around])
    (tensor,), front = op.along([x], free=not any(around[0]))
    shifted = operations.affine(op.call, tensor, 1.0, -number)
    padded = shaping.pad(op.call, shifted, [(0, 0)] * front + around)
    return op.made(operations.affine(op.call, padded, 1.0, number), front)


def mirror_pad(op: Operation) -> Value:
    """What lies behind the edge, mirrored: with the edge itself (SYMMETRIC) or without it (REFLECT)."""
    x, first = op.value(0), 0 if op.option("mode") == 1 else 1
    sides = [
        ([*range(first, first + before)][::-1], [-1 - place for place in range(first, first + behind)])
        for before, behind in _around(op, x)
    ]
    return _bordered(op, x, sides)


def _bordered(op: Operation, x: Value, sides: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Value:
    """With copies of single places along every axis in front of it and behind it."""
    for axis, (before, behind) in enumerate(sides):
        if len(before) + len(behind) > shaping.MOST_COPIES:
            raise op.refuse(f"it pads by {len(before)} and {len(behind)}", "pad by less")
        everywhere, size = [slice(None)] * x.rank, x.shape[axis]
        front, back = (
            [_part(op, x, [*everywhere[:axis], slice(p % size, p % size + 1), *everywhere[axis + 1 :]]) for p in places]
            for places in (before, behind)
        )
        x = _joined(op, [*front, x, *back], axis) if front or back else x
    return x


def tile(op: Operation) -> Value:
    return _copied(op, op.value(0), op.constant(1).tolist())


def broadcast_to(op: Operation) -> Value:
    return widened(op, op.value(0), op.constant(1).tolist())


def widened(op: Operation, x: Value, wanted: Sequence[int]) -> Value:
    """The value broadcast to a shape: along the last axis by a product with ones, along others by copies."""
    x = op.shaped(x, (1,) * (len(wanted) - x.rank) + x.shape)
    if x.shape[-1] != wanted[-1]:
        (tensor,), front = op.along([x], free=x.rank > 1)
        x = op.made(dense(op, tensor, np.ones((1, wanted[-1]), np.float32)), front)
    return _copied(op, x, [w // size for w, size in zip(wanted, x.shape, strict=True)])


def _copied(op: Operation, x: Value, copies: Sequence[int]) -> Value:
    if max(copies) > shaping.MOST_COPIES:
        raise op.refuse(f"it makes {max(copies)} copies", "let the operator behind it broadcast")
    for axis, count in enumerate(copies):
        x = _joined(op, [x] * count, axis) if count > 1 else x
    return x


def max_pool(op: Operation) -> Value:
    return op.of(_pooled(op, "MaxPooling2D", op.image()))


def average_pool(op: Operation) -> Value:
    """Over the whole image it is what Keras calls global pooling."""
    x = op.image()
    if _window(op) == x.sample[:2] and padding(op) == "valid":
        return op.of(op.call.add("GlobalAveragePooling2D", {"keepdims": True}, [x]))
    return op.of(_pooled(op, "AveragePooling2D", x))


def _window(op: Operation) -> tuple[int, int]:
    return op.option("filterHeight"), op.option("filterWidth")


def _pooled(op: Operation, kind: str, x: Tensor) -> Tensor:
    return op.call.add(kind, {"pool_size": _window(op), "strides": strides(op), "padding": padding(op)}, [x])


def resize(method: str) -> Rule:
    def rule(op: Operation) -> Value:
        x, (height, width) = op.image(), map(int, op.constant(1))
        corners, centres = op.option("alignCorners", False), op.option("halfPixelCenters", False)
        config = {"height": height, "width": width, "interpolation": method}
        whole = not (height % x.sample[0] or width % x.sample[1])
        if corners or not (centres or (method == "nearest" and whole)):
            config["aligned"] = "corners" if corners else "edges"
        return op.of(op.call.add("Resizing", config, [x], shape=(None, height, width, x.sample[-1])))

    return rule


def depth_to_space(op: Operation) -> Value:
    return op.of(shaping.depth_to_space(op.call, op.image(), op.option("blockSize")))


def space_to_depth(op: Operation) -> Value:
    return op.of(shaping.space_to_depth(op.call, op.image(), op.option("blockSize")))


def space_to_batch(op: Operation) -> Value:
    """The first half of a dilated convolution: every so many rows and columns as an image of its own."""
    x, (rows, columns) = op.image(), map(int, op.constant(1).reshape(-1))
    padded = shaping.pad(op.call, x, [(0, 0), *op.constant(2).tolist(), (0, 0)])
    height, width, channels = padded.sample
    return Blocks(padded, (rows * columns, height // rows, width // columns, channels), (rows, columns))


def batch_to_space(op: Operation) -> Value:
    """The second half: the images put together again, and their edges cut off."""
    x = op.value(0)
    if not isinstance(x, Blocks) or tuple(op.constant(1).tolist()) != x.block:
        raise op.refuse("it puts together what was not cut", "export it as a dilated convolution")
    whole = op.of(x.tensor)
    sides = [(0, 0), *op.constant(2).tolist(), (0, 0)]
    return _part(op, whole, [slice(a, size - b) for (a, b), size in zip(sides, whole.shape, strict=True)])


RULES: Mapping[str, Rule] = {
    "RESHAPE": reshape,
    "SQUEEZE": squeeze,
    "EXPAND_DIMS": expand_dims,
    "TRANSPOSE": transpose,
    "CONCATENATION": concatenation,
    "PACK": pack,
    "UNPACK": unpack,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SLICE": slice_,
    "STRIDED_SLICE": strided_slice,
    "REVERSE_V2": reverse,
    "PAD": pad,
    "PADV2": pad,
    "MIRROR_PAD": mirror_pad,
    "TILE": tile,
    "BROADCAST_TO": broadcast_to,
    "SPACE_TO_BATCH_ND": space_to_batch,
    "BATCH_TO_SPACE_ND": batch_to_space,
    "MAX_POOL_2D": max_pool,
    "AVERAGE_POOL_2D": average_pool,
    "RESIZE_BILINEAR": resize("bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": resize("nearest"),
    "DEPTH_TO_SPACE": depth_to_space,
    "SPACE_TO_DEPTH": space_to_depth,
}
