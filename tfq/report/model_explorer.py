"""Figures of the layers for Google's Model Explorer, which lays them over the graph of model.tflite.

One file a figure, as its custom node data has it:

    {GRAPH: {"results": {TENSOR: {"value": number}, ...}, "gradient": [{"stop": 0, "bgColor": ...}, ...]}}

GRAPH is the name of the subgraph, TENSOR the name of any output of an operation: a layer's, which tfq gives it. The
gradient goes from the least value, at stop 0, to the largest.

Source: node_data_builder.py of model-explorer (`ModelNodeData`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tfq.execution.files import EXPLORER_NAMES

_GRAPH = "main"
_CALM, _STRIKING = "#fff8e1", "#d84315"
# figure -> field of a layer, and the colours of its least and its largest value
_FIGURES = {
    "error": ("own_sqnr_db", _STRIKING, _CALM),  # few dB are much error
    "bits": ("weight_bits", _CALM, _STRIKING),
    "time": ("time_ms", _CALM, _STRIKING),
}


def node_data(layers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Files by name, of the layers of a report.json: own SQNR in dB, bits of weights, time in ms.

    A figure that no layer has is left out.
    """
    found = {}
    for figure, (field, least, largest) in _FIGURES.items():
        results = {layer["name"]: {"value": layer[field]} for layer in layers if layer[field] is not None}
        if results:
            gradient = [{"stop": 0, "bgColor": least}, {"stop": 1, "bgColor": largest}]
            found[EXPLORER_NAMES[figure]] = (
                json.dumps({_GRAPH: {"results": results, "gradient": gradient}}, indent=1) + "\n"
            )
    return found
