"""Random small models of everything that the frontends accept, and whether tfq deals with them.

A model either becomes files that compute what it computes, or is refused on loading or preparation in one line.

    python -m random_graphs --seeds 0:100 --library keras      (from tests/, or with tests/ on the path)

prints what was neither, and a summary. What the int8 file may lose is measured, not assumed: the prepared graph is
run in float with noise of half a step added to every tensor that has a grid and to every kernel.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # after hundreds of models it fails: "reorder primitive"

import collections
import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from random_layers import OTHER_LAYERS, rank, sample
from random_operators import FRAMEWORKS, STEPS

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.errors import UserError
from tfq.execution.predict import predict
from tfq.export.package import export_plain, export_quantized
from tfq.models.equality import node_function
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.grids import grid_groups
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.operations.table import OPERATORS
from tfq.targets.cpu import CPU
from tfq.verify.structure import verify_structure

SAMPLES = 24
# What calibration and export say of models that have no int8 form.
_OF_THE_MODEL = ("holds NaN or Inf for calibration sample", "cannot be computed in int8")
_JUMPS = ("sign", "floor", "ceil")
_SHAPES = ((6,), (4,), (1,), (5, 4), (8, 3), (1, 6), (6, 6, 3), (5, 7, 2), (4, 4, 1), (1, 1, 5), (2, 3, 4, 2))
_DTYPES = ("float32",) * 8 + ("float16", "float64", "uint8", "int8", "int16", "int32", "int64")
_INDEX_DTYPES = ("float32", "float32", "int32", "int32", "int64", "uint8", "int8", "int16", "float16")


class Unsuited(Exception):  # noqa: N818
    """Keras refuses what was drawn; says nothing about tfq."""


class Maker:
    """What is drawn of one model so far.

    Attributes:
      tensors: float ones, the latest last.
      trace: the names of the steps.
    """

    def __init__(self, library: str, rng: np.random.Generator):
        self.library, self.rng = library, rng
        self.keras, self.layers = FRAMEWORKS[library], FRAMEWORKS[library].layers
        self.batch = int(rng.choice([1, 4])) if rng.random() < 0.1 else None
        self.inputs: list[Any] = []
        self.samples: dict[str, np.ndarray] = {}
        self.tensors: list[Any] = []
        self.trace: list[str] = []
        self._made: dict[Any, Any] = {}
        self._indices: list[tuple[Any, int]] = []

    def input(self, shape: tuple[int, ...], dtype: str, values: np.ndarray) -> Any:
        name = f"x{len(self.inputs)}"
        options = {"batch_size": self.batch} if self.batch else {}
        self.inputs.append(self.layers.Input(shape, dtype=dtype, name=name, **options))
        self.samples[name] = values.astype("float32" if dtype in ("float16", "float64") else dtype)
        self.trace.append(f"Input({shape}, {dtype})")
        return self.inputs[-1]

    def float_input(self) -> None:
        shape = _SHAPES[int(self.rng.integers(len(_SHAPES)))]
        dtype = str(self.rng.choice(_DTYPES))
        if dtype.startswith("float"):
            values = self.rng.normal(size=(SAMPLES, *shape)) * float(self.rng.choice([1.0, 1.0, 0.05, 30.0]))
            self.tensors.append(self.input(shape, dtype, values))
            return
        low = 0 if dtype == "uint8" else -100
        x = self.input(shape, dtype, self.rng.integers(low, 101, (SAMPLES, *shape)))
        self.tensors.append(self.layers.Rescaling(1 / 50.0, offset=-0.3)(x))

    def indices(self) -> tuple[Any, int]:
        """A tensor of indices and how many values they have: an input's, or some columns of a float input."""
        if self._indices and self.rng.random() < 0.4:
            return self._indices[-1]
        tokens, length = int(self.rng.integers(2, 12)), int(self.rng.integers(1, 5))
        if self.rng.random() < 0.25:
            numbers = self.rng.integers(0, tokens, (SAMPLES, length))
            values = np.concatenate([numbers, self.rng.normal(size=(SAMPLES, 3))], 1)
            mixed = self.input((length + 3,), "float32", values)
            self.tensors.append(mixed[:, length:])
            found = mixed[:, :length]
        else:
            dtype = str(self.rng.choice(_INDEX_DTYPES))
            found = self.input((length,), dtype, self.rng.integers(0, tokens, (SAMPLES, length)))
        self._indices.append((found, tokens))
        return self._indices[-1]

    def knows_activation(self, name: str) -> bool:
        try:
            self.keras.activations.get(name)
        except ValueError:
            return False
        return True

    def make(self, kind: str, **config: Any) -> Any:
        if not hasattr(self.layers, kind):
            raise Unsuited(kind)
        return getattr(self.layers, kind)(**config)

    def layer(self, kind: str, inputs: Any, **config: Any) -> Any:
        """A layer's output; now and then of a layer that was called before."""
        shapes = [tuple(x.shape) for x in inputs] if isinstance(inputs, list) else tuple(inputs.shape)
        key = repr((kind, shapes))
        if key not in self._made or self.rng.random() < 0.5:
            self._made[key] = self.make(kind, **config)
            self.trace.append(f"{kind}({config})")
        else:
            self.trace.append(f"{kind} again")
        return self._made[key](inputs)

    def partner(self, x: Any, *, same: bool = False) -> Any:
        """A second operand for `x`: of its shape, or (not `same`) one that is broadcast."""
        alike = [t for t in self.tensors if sample(t) == sample(x)]
        if alike and self.rng.random() < 0.5:
            return alike[int(self.rng.integers(len(alike)))]
        if not same and rank(x) == 3 and self.rng.random() < 0.4:
            return self.layers.GlobalAveragePooling2D(keepdims=True)(x)
        if self.rng.random() < 0.4:
            return self.layers.Activation(str(self.rng.choice(["relu", "sigmoid", "tanh"])))(x)
        return self.layers.Dense(sample(x)[-1])(x)

    def step(self, name: str) -> None:
        recent = self.tensors[-3:]
        x = recent[int(self.rng.integers(len(recent)))] if self.rng.random() < 0.4 else self.tensors[-1]
        self.trace.append(f"[{name} on {sample(x)}]")
        made = {**STEPS[self.library], **OTHER_LAYERS}[name](self, x)
        if made is None:
            self.trace.pop()
            return
        for tensor in made if isinstance(made, list) else [made]:
            if int(np.prod(sample(tensor))) > 2000 or rank(tensor) > 5:
                raise Unsuited("too large")
            self.tensors.append(tensor)

    def model(self) -> Any:
        last = self.tensors[-1]
        outputs = [last]
        while self.rng.random() < 0.25:
            outputs.append(self.tensors[int(self.rng.integers(len(self.tensors)))])
        if self.rng.random() < 0.05:
            outputs.append(last)
        structure: Any = outputs[0] if len(outputs) == 1 else outputs
        if len(outputs) > 1 and self.rng.random() < 0.3:
            structure = {f"out{i}": tensor for i, tensor in enumerate(outputs)}
        return self._randomised(self.keras.Model(self.inputs, structure))

    def _randomised(self, model: Any) -> Any:
        for layer in model.layers:
            values = []
            for variable, value in zip(layer.weights, layer.get_weights(), strict=True):
                name = variable.name.split("/")[-1].split(":")[0]
                if name in ("gamma", "moving_variance"):
                    value = self.rng.uniform(0.5, 1.5, value.shape)
                elif name in ("bias", "beta", "moving_mean"):
                    value = self.rng.normal(0, 0.3, value.shape)
                elif name == "alpha":
                    value = self.rng.uniform(-0.3, 0.5, value.shape)
                values.append(value)
            if values and not any("seed" in v.name for v in layer.weights):
                layer.set_weights(values)
        return model


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A random model, samples by input name and how it was drawn."""

    model: Any
    samples: Mapping[str, np.ndarray]
    trace: str


def draw(library: str, seed: int, steps: list[str] | None = None) -> Drawn:
    """The model of this seed; `steps` fixes their names.

    Raises:
      Unsuited: what was drawn is no model.
    """
    rng = np.random.default_rng([seed, len(library)])
    maker = Maker(library, rng)
    maker.keras.utils.set_random_seed(seed)
    try:
        for _ in range(1 + int(rng.random() < 0.2)):
            maker.float_input()
        usual, others = list(STEPS[library]), list(OTHER_LAYERS)
        wanted = [str(rng.choice(others if rng.random() < 0.02 else usual)) for _ in range(rng.integers(2, 9))]
        for name in steps or wanted:
            maker.step(name)
        model = maker.model()
    except Exception as error:
        raise Unsuited(str(error)[:200]) from error
    names = [tensor.name.split(":")[0] for tensor in model.inputs]
    return Drawn(model, {n: v for n, v in maker.samples.items() if n in names}, " ".join(maker.trace))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What tfq made of a model: "works", "refused" or "fault", and why."""

    kind: str
    message: str = ""
    sqnr: float = np.inf


def outcome(drawn: Drawn) -> Outcome:
    """Load, prepare, export, run and compare."""
    stop = "load"
    try:
        loaded = load_model(drawn.model)
        stop = "prepare"
        few = {n: v[:8] for n, v in drawn.samples.items()}
        prepared = prepare(loaded.graph, few, original=loaded, target=CPU)
    except UserError as error:
        jumps = stop == "prepare" and any(n.config.get("function") in _JUMPS for n in loaded.graph.nodes)
        if "\n" in str(error) or ("defect of tfq" in str(error) and not jumps):
            return Outcome("fault", f"{stop}: {error}")
        return Outcome("refused", str(error))
    except Exception as error:
        return Outcome("fault", f"{stop}: {type(error).__name__}: {str(error)[:300]}\n{_last_line(error)}")
    try:
        expected = loaded.predict(drawn.samples)
        if not all(np.isfinite(y).all() for y in expected):
            return Outcome("refused", "the model gives NaN or infinity")
        stop = "export"
        graph, samples = prepared.graph, dict(drawn.samples)
        one_by_one = [{n: v[i : i + 1] for n, v in samples.items()} for i in range(SAMPLES)]
        plain = export_plain(prepared.plain, "float32", lambda: iter(one_by_one))
        ranges = calibrate(graph, iter([samples]), method="minmax", total=SAMPLES).ranges
        model = specify(graph, ranges)
        content = export_quantized(model, lambda: iter(one_by_one))
        stop = "verify"
        verify_structure(content, model)
        stop = "run"
        runs = {
            "float": predict(plain, samples, threads=1),
            "litert": predict(content, samples, threads=1),
            "builtin kernels": predict(content, samples, threads=1, delegate=False),
            "tensorflow": predict(content, samples, threads=1, runtime="tensorflow"),
        }
    except Exception as error:
        if isinstance(error, UserError) and any(said in str(error) for said in _OF_THE_MODEL):
            return Outcome("refused", str(error))
        return Outcome("fault", f"{stop}: {type(error).__name__}: {str(error)[:400]}\n{_last_line(error)}")
    bound = 10 * max([1e-4, *(check.bound for check in prepared.checks)])
    return _judged(graph, samples, expected, runs, bound)


def _judged(
    graph: Graph,
    samples: Mapping[str, np.ndarray],
    expected: tuple[np.ndarray, ...],
    runs: Mapping[str, tuple[np.ndarray, ...]],
    bound: float,
) -> Outcome:
    if any(node.config.get("function") in _JUMPS for node in graph.nodes):
        return Outcome("works")  # one step may change everything
    noises = noise(graph, samples)
    worst = np.inf
    for index, (name, wanted, loss) in enumerate(zip(graph.output_names, expected, noises, strict=True)):
        wanted = wanted.astype(np.float64)
        peak, step = max(np.abs(wanted).max(), 1e-6), _step(wanted)
        for run, found in runs.items():
            given = found[index].astype(np.float64)
            if run != "float" and not loss <= 50 * step:
                continue  # noise alone makes it useless: it divides by what may round to 0
            if given.shape != wanted.shape or not np.isfinite(given).all():
                return Outcome("fault", f"compare: output {name!r} of {run}: {given.shape}, expected {wanted.shape}")
            error = given - wanted
            if run == "float" and np.abs(error).max() > bound * peak:
                return Outcome(
                    "fault", f"compare: output {name!r} of the float file is {np.abs(error).max() / peak} off"
                )
            if run != "float":
                rms = float(np.sqrt(np.mean(error**2)))
                if rms > 4 * loss + step:
                    where = f"output {name!r} of the int8 file in {run}"
                    return Outcome("fault", f"compare: {where} is {rms / step:.1f} steps off, noise {loss / step:.1f}")
                signal = float(np.sqrt(np.mean((wanted - wanted.mean()) ** 2)))
                worst = min(worst, 20 * np.log10(max(signal, 1e-12) / max(rms, 1e-12)))
    return Outcome("works", sqnr=worst)


def _step(values: np.ndarray) -> float:
    """Of an 8-bit grid over all values and 0."""
    return max((max(values.max(), 0.0) - min(values.min(), 0.0)) / 255, 1e-9)


def noise(graph: Graph, samples: Mapping[str, np.ndarray], draws: int = 3) -> list[float]:
    """RMS error of every output when each tensor with a grid, and each kernel, is off by up to half a step."""
    clean = _run(graph, samples, lambda _, value: value, lambda node: node)
    groups = grid_groups(graph)
    members: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    for name, group in groups.items():
        members[group].append(clean[name].numpy())
    steps = {group: _step(np.concatenate([m.ravel() for m in found])) for group, found in members.items()}
    for node in graph.nodes:
        if node.kind != INPUT and OPERATORS[node.kind].fixed is not None:
            steps[groups[node.name]] = OPERATORS[node.kind].fixed[0]  # type: ignore[index]
    rng = np.random.default_rng(0)

    def shaken(node: Node, value: Any) -> Any:
        if node.name not in groups:
            return value
        return value + (rng.uniform(-0.5, 0.5, value.shape) * steps[groups[node.name]]).astype(np.float32)

    def blurred(node: Node) -> Node:
        kernel = OPERATORS[node.kind].kernel
        if not kernel or node.kind == "Embedding":
            return node
        weights, axis = node.weights[kernel], OPERATORS[node.kind].channel_axis
        axes = tuple(i for i in range(weights.ndim) if i != axis)
        scale = np.abs(weights).max(axis=axes, keepdims=True) / 127
        moved = (weights + rng.uniform(-0.5, 0.5, weights.shape) * scale).astype(np.float32)
        return node.replace(weights={**node.weights, kernel: moved})

    total = np.zeros(len(graph.outputs))
    for _ in range(draws):
        found = _run(graph, samples, shaken, blurred)
        total += [float(np.mean((found[n].numpy() - clean[n].numpy().astype(np.float64)) ** 2)) for n in graph.outputs]
    return [float(v) for v in np.sqrt(total / draws)]


def _run(
    graph: Graph,
    samples: Mapping[str, np.ndarray],
    shaken: Callable[[Node, Any], Any],
    blurred: Callable[[Node], Node],
) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for node in graph.nodes:
        if node.kind == INPUT:
            value = tf.constant(np.asarray(samples[node.name], node.config["dtype"]))
        else:
            value = node_function(blurred(node))([tensors[i] for i in node.inputs])
        tensors[node.name] = shaken(node, value)
    return tensors


def _last_line(error: BaseException) -> str:
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "/tfq/" in f.filename]
    return f"{ours[-1].filename.split('/tfq/')[-1]}:{ours[-1].lineno} {ours[-1].line}" if ours else ""


def main(arguments: list[str]) -> None:
    """--seeds FIRST:LAST, --library, --minutes, --steps NAME,NAME: run and print what went wrong."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    library = options.get("--library", "keras")
    first, last = map(int, options.get("--seeds", "0:100").split(":"))
    end = time.monotonic() + 60 * float(options.get("--minutes", "600"))
    steps = options["--steps"].split(",") if "--steps" in options else None
    counts: collections.Counter[str] = collections.Counter()
    for seed in range(first, last):
        if time.monotonic() > end:
            break
        try:
            drawn = draw(library, seed, steps)
        except Unsuited:
            counts["unsuited"] += 1
            continue
        found = outcome(drawn)
        counts[found.kind] += 1
        poor = found.kind == "works" and found.sqnr < 8
        counts["poor"] += int(poor)
        if found.kind == "fault" or poor or "--show" in options:
            print(f"{library} {seed} {found.kind} {found.sqnr:.0f} dB {found.message}\n    {drawn.trace}", flush=True)
        elif found.kind == "refused":
            print(f"{library} {seed} refused {found.message}", flush=True)
        if not seed % 20:
            FRAMEWORKS[library].backend.clear_session()
    print(f"{library} {dict(counts)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
