"""The network of a report.json, parsed, as a page draws it: one row a layer, lanes for what runs beside it.

Rows are in topological order, as `git log --graph` draws commits. A tensor keeps its lane down to the last layer that
reads it; a layer stands in the lane of the first of its inputs that ends with it, or else in the first that is free. So
no line crosses a layer.

Colours have five levels, 0 to 4: the more, the more error, the fewer bits, the more time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfq.report import words
from tfq.report.table import decibel

ROW, LANE, MOST_WIDTH = 32, 14, 160  # pixels
_ERROR_DB, _TIME_SHARES = (50, 40, 30, 20), (1, 3, 7, 15)
_FLOAT_BITS = {"float16": 16, "float32": 32}
LEGENDS = {
    "error": ("50 dB or more", "40 to 50 dB", "30 to 40 dB", "20 to 30 dB", "under 20 dB"),
    "bits": ("float", "8 bits", "5 to 7 bits", "4 bits", "under 4 bits"),
    "time": ("under 1 %", "1 to 3 %", "3 to 7 %", "7 to 15 %", "15 % or more"),
}
"""What the levels of each colouring are."""
TITLES = {
    "error": "Error that the layer itself adds (own SQNR; more dB is better)",
    "bits": "Bits of a weight",
    "time": "Time of the layer alone, as a share of all",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer, or input of the model.

    Attributes:
      name, kind: as in the report; the kind of an input is "input".
      x: of its dot, in pixels.
      own_sqnr_db: of the error that it adds; infinite where that is not known.
      colours: (level, text) by colouring; none where it has nothing of the kind.
      details: what is told of it when it is chosen, for the script of the page.
    """

    name: str
    kind: str
    x: int
    own_sqnr_db: float
    colours: Mapping[str, tuple[int, str]]
    details: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """Rows from the inputs down, the lines between them as an SVG path, and what it takes, in pixels."""

    rows: tuple[Row, ...]
    lines: str
    width: int
    height: int

    @property
    def colourings(self) -> list[str]:
        """Those that at least one row has."""
        return [name for name in LEGENDS if any(name in row.colours for row in self.rows)]

    @property
    def first(self) -> int:
        """The row to show first: of the layer that adds most error, or else the first."""
        own = [row.own_sqnr_db for row in self.rows]
        return min(range(len(own)), key=own.__getitem__, default=0)

    @property
    def details(self) -> list[dict[str, Any]]:
        """Of every row, for the script of the page."""
        return [{"name": row.name, "kind": row.kind, **row.details} for row in self.rows]


def network(report: Mapping[str, Any]) -> Network:
    """All layers of the report, and the inputs that they read."""
    layers = report["layers"]
    known = {layer["name"] for layer in layers}
    sources = dict.fromkeys(name for layer in layers for name in layer["inputs"] if name not in known)
    names = [*sources, *(layer["name"] for layer in layers)]
    inputs = [()] * len(sources) + [tuple(layer["inputs"]) for layer in layers]
    lanes = lanes_of(names, inputs)
    pitch = min(LANE, MOST_WIDTH / (max(lanes, default=0) + 1))
    x = [round(pitch * (lane + 0.7)) for lane in lanes]
    whole = sum(layer["time_ms"] or 0.0 for layer in layers)
    tensors = {tensor["name"]: tensor for tensor in report["tensors"]}
    causes = {
        found["layer"]: words.cause(**{k: found[k] for k in ("layer", "cause", "remedy")}) for found in report["causes"]
    }
    rows = [
        Row(name, "input", x[number], math.inf, {}, _of_tensor(tensors.get(name)))
        for number, name in enumerate(sources)
    ]
    for number, layer in enumerate(layers, len(sources)):
        details = _of_layer(layer) | _of_tensor(tensors.get(layer["name"]))
        details["cause"] = causes.get(layer["name"], "").replace("`", "")
        own = math.inf if layer["own_sqnr_db"] is None else layer["own_sqnr_db"]
        rows.append(Row(layer["name"], layer["kind"], x[number], own, _colours(layer, whole), details))
    width = max(x, default=0) + LANE
    return Network(tuple(rows), _lines(names, inputs, x), width, ROW * len(rows))


def lanes_of(names: Sequence[str], inputs: Sequence[Sequence[str]]) -> list[int]:
    """The lane of each of these layers, in topological order.

    Args:
      inputs: of each layer, names of earlier ones.
    """
    last = {source: row for row, read in enumerate(inputs) for source in read}
    taken: list[str | None] = []  # by lane: the tensor that is still read
    lane_of: dict[str, int] = {}
    for row, (name, read) in enumerate(zip(names, inputs, strict=True)):
        ended = sorted({lane_of[source] for source in read if last[source] == row})
        for lane in ended:
            taken[lane] = None
        lane = ended[0] if ended else taken.index(None) if None in taken else len(taken)
        taken += [None] * (lane + 1 - len(taken))
        lane_of[name] = lane
        if name in last:
            taken[lane] = name
    return [lane_of[name] for name in names]


def _lines(names: Sequence[str], inputs: Sequence[Sequence[str]], x: Sequence[int]) -> str:
    """From each tensor straight down its lane, and in the last row over to the layer that reads it."""
    place = {name: row for row, name in enumerate(names)}
    path = []
    for row, read in enumerate(inputs):
        for source in dict.fromkeys(read):
            start, end = (ROW * number + ROW // 2 for number in (place[source], row))
            a, b, turn = x[place[source]], x[row], end - ROW
            middle = turn + ROW // 2
            path.append(f"M{a} {start}" + (f"V{end}" if a == b else f"V{turn}C{a} {middle} {b} {middle} {b} {end}"))
    return "".join(path)


def bits_of(layer: Mapping[str, Any]) -> int | None:
    """Bits of a weight, on a coarse grid in an ideal code, of clusters those of their number; None without weights."""
    if not layer["parameters"]:
        return None
    clusters = max(layer["clusters"] - 1, 0).bit_length()
    found: int | None = clusters or layer["entropy_bits"] or layer["weight_bits"] or _FLOAT_BITS.get(layer["precision"])
    return found


def bits_level(bits: int) -> int:
    return sum(bits < bound for bound in (9, 8, 5, 4))


def error_level(own_sqnr_db: float) -> int:
    return sum(own_sqnr_db < bound for bound in _ERROR_DB)


def _colours(layer: Mapping[str, Any], whole_ms: float) -> dict[str, tuple[int, str]]:
    found = {}
    if layer["own_sqnr_db"] is not None:
        found["error"] = (error_level(layer["own_sqnr_db"]), decibel(layer["own_sqnr_db"]))
    bits = bits_of(layer)
    if bits is not None:
        found["bits"] = (bits_level(bits), _precision(layer) if bits > 8 else words.counted(bits, "bit"))
    if layer["time_ms"] is not None:
        share = 100 * layer["time_ms"] / max(whole_ms, 1e-12)
        found["time"] = (sum(share >= bound for bound in _TIME_SHARES), f"{share:.1f} %")
    return found


def _precision(layer: Mapping[str, Any]) -> str:
    return words.precision(layer["precision"], layer["weight_bits"])


def _of_layer(layer: Mapping[str, Any]) -> dict[str, Any]:
    bits = bits_of(layer)
    stored = f", stored as {layer['storage']}" if layer["storage"] else ""
    coded = f", compress to {layer['entropy_bits']}" if layer["entropy_bits"] else ""
    coded += f", {layer['clusters']} clusters" if layer["clusters"] else ""
    facts = {
        "Your layers": " + ".join(layer["keras_layers"]),
        "Reads": ", ".join(layer["inputs"]),
        "Precision": _precision(layer) + (f": {layer['reason']}" if layer["reason"] else ""),
        "Weights": f"{bits} bits{coded}{stored}, {layer['parameters']:,} parameters" if bits else "",
        "Own SQNR": decibel(layer["own_sqnr_db"]),
        "SQNR, all error up to here": decibel(layer["sqnr_db"]),
        "Time alone": "" if layer["time_ms"] is None else words.milliseconds(layer["time_ms"]),
        "File against simulation": _apart(layer["parity_max_steps"]),
    }
    for found in layer["reconstruction"]:
        kept = "" if found["kept"] else ", undone"
        facts[f"Reconstruction, {found['method']}"] = f"error {found['before']:.3g} to {found['after']:.3g}{kept}"
    return {"facts": {label: text for label, text in facts.items() if text}}


def _apart(steps: int | None) -> str:
    if steps is None:
        return ""
    return f"{words.counted(steps, 'step')} apart at most" if steps else "equal"


def _of_tensor(tensor: Mapping[str, Any] | None) -> dict[str, Any]:
    """The range of a layer's output and the histogram it is seen in, as far as there are any."""
    if tensor is None:
        return {}
    ranges = {"Grid of its output": f"{_span(tensor['range'])}, {tensor['bits']} bits"}
    if tensor["observed"] is not None:
        ranges["Values seen"] = _span(tensor["observed"])
    ranges["Range chosen by"] = tensor["method"] + (" (another lost to it)" if tensor["rolled_back"] else "")
    if tensor["group"] != tensor["name"]:
        ranges["Shares its grid with"] = tensor["group"]
    found: dict[str, Any] = {"ranges": ranges, "grid": tensor["range"]}
    if tensor["histogram"] is not None and tensor["histogram"]["counts"]:
        edges = tensor["histogram"]["edges"]
        found["histogram"] = {"ends": [edges[0], edges[-1]], "counts": tensor["histogram"]["counts"]}
        ranges["Zeros"] = f"{tensor['histogram']['zeros']:,}, not drawn"
    return found


def _span(ends: Sequence[float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"
