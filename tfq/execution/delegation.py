"""How much of a file XNNPACK takes, asked of the runtime.

The delegate takes runs of operations and puts one operation, DELEGATE, in place of each: a partition. What it does not
take runs in the plain kernels between them. What a partition holds is found by walking from its outputs back to its
inputs.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

from tfq.execution.interpreter import TfliteModel

_DELEGATE = "DELEGATE"


@dataclasses.dataclass(frozen=True)
class Delegation:
    """What the delegate makes of a file.

    Attributes:
      partitions: runs of operations that it takes.
      operators: operations of the file.
      outside: operator -> how many it does not take, the most frequent first.
    """

    partitions: int
    operators: int
    outside: Mapping[str, int]


def delegation(model: TfliteModel) -> Delegation:
    """Of a model that was loaded with the delegate."""
    operations = model.operations()
    own = [operation for operation in operations if operation.name != _DELEGATE]
    partitions = [operation for operation in operations if operation.name == _DELEGATE]
    writer = {tensor: index for index, operation in enumerate(own) for tensor in operation.outputs}
    taken: set[int] = set()
    for partition in partitions:
        waiting, known = list(partition.outputs), set(partition.inputs)
        while waiting:
            tensor = waiting.pop()
            if tensor in known or tensor not in writer:
                continue
            known.add(tensor)
            taken.add(writer[tensor])
            waiting += own[writer[tensor]].inputs
    outside = collections.Counter(operation.name for index, operation in enumerate(own) if index not in taken)
    return Delegation(len(partitions), len(own), dict(outside.most_common()))
