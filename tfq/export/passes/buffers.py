"""Constants of equal bytes stored once; what nobody reads dropped.

To that belongs CONVERSION_METADATA, the converter's note on itself: its hash of the SavedModel it was given says
nothing about the finished file, and differs between conversions that the passes make equal.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer

_CONVERTERS_NOTE = "CONVERSION_METADATA"


def share_buffers(model: Any) -> None:
    """Store equal constants once and drop what nobody reads: tensors, their buffers, operator codes, that note."""
    model.metadata = [entry for entry in model.metadata or () if flatbuffer.text(entry.name) != _CONVERTERS_NOTE]
    _drop_unused_operator_codes(model)
    for index in range(len(model.subgraphs)):
        _drop_unused_tensors(model, index)
    empty = schema.BufferT()
    kept, position = [empty], {}
    tensors = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    for holder in (*tensors, *model.metadata):
        data = model.buffers[holder.buffer].data
        if data is None or len(data) == 0:
            holder.buffer = 0
            continue
        key = hashlib.sha256(np.asarray(data, np.uint8).tobytes()).hexdigest()
        if key not in position:
            position[key] = len(kept)
            kept.append(model.buffers[holder.buffer])
        holder.buffer = position[key]
    model.buffers = kept


def _drop_unused_operator_codes(model: Any) -> None:
    operators = [operator for subgraph in model.subgraphs for operator in subgraph.operators]
    used = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[i] for i in used]
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)


def _drop_unused_tensors(model: Any, index: int) -> None:
    subgraph = model.subgraphs[index]
    used = {int(i) for operator in subgraph.operators for i in (*operator.inputs, *operator.outputs) if i >= 0}
    used |= {int(i) for i in (*subgraph.inputs, *subgraph.outputs)}
    used |= {int(i) for operator in subgraph.operators for i in _intermediates(operator)}
    place = {old: new for new, old in enumerate(sorted(used))}
    place[-1] = -1
    subgraph.tensors = [subgraph.tensors[i] for i in sorted(used)]
    for holder in (*subgraph.operators, subgraph):
        holder.inputs = np.asarray([place[int(i)] for i in holder.inputs], np.int32)
        holder.outputs = np.asarray([place[int(i)] for i in holder.outputs], np.int32)
    for operator in subgraph.operators:
        if len(_intermediates(operator)):
            operator.intermediates = np.asarray([place[int(i)] for i in operator.intermediates], np.int32)
    for signature in (s for s in model.signatureDefs or () if s.subgraphIndex == index):
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = place[int(entry.tensorIndex)]


def _intermediates(operator: Any) -> Any:
    """Tensors that a recurrent operation works in."""
    return () if operator.intermediates is None else operator.intermediates
