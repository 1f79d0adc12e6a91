"""Whether the kernels of the target take the scales of a model, by the conditions of its table (`tfq.targets`).

Checked are operations whose kernels ask something of the ratio of their scales: those of nodes with a `tflite` in
`tfq.operations.table`. That the file has these scales is checked elsewhere (`tfq.verify.structure`).
"""

from __future__ import annotations

from collections.abc import Iterator

from tfq.errors import VerificationError
from tfq.grid import copied_wide
from tfq.models.graph import Node
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.targets.target import FAST, REFUSED, Operand, Operation, Target


def verify_kernels(model: QuantizedModel, target: Target) -> tuple[str, ...]:
    """What runs outside the target's fast path because of its scales, in words.

    Raises:
      VerificationError: the target would refuse the file.
    """
    found = []
    for node, operation in _operations(model):
        verdict, why = target.verdict(operation)
        if verdict == REFUSED:
            raise VerificationError(f"{node.kind} {node.name!r} is refused by the target {target.name}: {why}")
        if verdict != FAST:
            found.append(f"layer {node.origin[0]!r} ({node.kind}) runs outside {target.path}: {why}")
    return tuple(found)


def _operations(model: QuantizedModel) -> Iterator[tuple[Node, Operation]]:
    for node in model.layers:
        read = [model.grids[name] for name in node.inputs if name in model.grids]
        if not OPERATORS[node.kind].tflite or node.grid is None or len(read) < len(node.inputs):
            continue
        given = node.grid
        if node.precision.is_int16:
            *read, given = map(copied_wide, (*read, given))
        inputs = [Operand(grid.storage, (), grid.scale, grid.zero_point) for grid in read]
        if "constant" in node.config:
            inputs.append(Operand(read[0].storage, (), (abs(node.config["constant"]) / 255,), constant=True))
        output = Operand(given.storage, (), given.scale, given.zero_point)
        options = {name: node.config[name] for name in ("alpha",) if name in node.config}
        yield node, Operation(OPERATORS[node.kind].tflite, tuple(inputs), (output,), options)
