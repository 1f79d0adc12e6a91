"""A .tflite in the interpreter, spoken to in real values and in the names the user knows.

`TfliteModel` is one interpreter for one thread; `tfq.execution.predict` runs any number of samples on all cores.
Real values and integers are related by real = scale * (integer - zero_point); inputs are rounded to
the nearest integer, ties to even, and clipped to the range of the type.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfq.errors import UserError
from tfq.execution.tflite import arena_bytes, check_arena, parse_tflite, read_content, signature_names

RUNTIMES = ("litert", "tensorflow")
_MORE_BYTES, _SHARE = 3 << 30, 128  # of addresses: so many, and so many times the file
# What is put back at the end of every block: several threads may be in one at the same time.
_SOFT, _HARD = resource.getrlimit(resource.RLIMIT_AS)


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor of the main subgraph.

    Attributes:
      name: for inputs and outputs the name in the model's signature, or else the tensor name without
        "serving_default_" and ":0"; for all others the tensor name as it stands in the file.
      index: number of the tensor in the file.
      shape: its shape; -1 for a dimension that may be resized.
      dtype: its element type.
      scale, zero_point: of length 0 (not quantised), 1, or one per channel of `axis`.
      axis: channel axis of the scales; 0 where there is one scale.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int = 0

    @property
    def quantized(self) -> bool:
        return bool(self.scale)

    def to_raw(self, values: np.ndarray) -> np.ndarray:
        """Real values as the integers of this tensor's grid, rounded and clipped; a cast where it has none.

        Raises UserError where integers are needed and `values` holds fractions or values out of range.
        """
        values = np.asarray(values)
        if self.dtype.kind not in "iu":
            return values.astype(self.dtype, copy=False)
        limits = np.iinfo(self.dtype)
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise UserError(f"input {self.name!r} takes {self.dtype} elements, and the data holds NaN; repair the data")
        if self.quantized:
            raw = np.rint(values.astype(np.float32) / self._grid(self.scale, np.float32))
            return np.clip(raw + self._grid(self.zero_point, np.float32), limits.min, limits.max).astype(self.dtype)
        if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
            raise UserError(f"input {self.name!r} takes {self.dtype} numbers such as indices; the data holds fractions")
        if values.size and (values.min() < limits.min or values.max() > limits.max):
            raise UserError(
                f"input {self.name!r} takes {self.dtype} numbers; the data reaches {values.min()} to {values.max()}"
            )
        return values.astype(self.dtype, copy=False)

    def to_real(self, raw: np.ndarray) -> np.ndarray:
        """The float32 values that the tensor's elements stand for."""
        if not self.quantized:
            return raw.astype(np.float32, copy=False)
        offset = raw.astype(np.int64 if self.dtype.itemsize > 2 else np.int32) - self._grid(self.zero_point, np.int32)
        return (offset * self._grid(self.scale, np.float32).astype(np.float64)).astype(np.float32)

    def _grid(self, values: tuple[Any, ...], dtype: type) -> np.ndarray:
        """Scales or zero-points, shaped to broadcast against the tensor."""
        if len(values) == 1:
            return np.asarray(values[0], dtype)
        return np.asarray(values, dtype).reshape([-1 if i == self.axis else 1 for i in range(len(self.shape))])


@dataclasses.dataclass(frozen=True)
class RuntimeOperation:
    """An operation as the runtime has it: TFLite's name of its operator, tensors that it reads and writes."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class TfliteModel:
    """One interpreter over one .tflite, for use by one thread at a time.

    Args:
      model: the file's content, or its path.
      threads: threads of one invocation.
      delegate: True: the XNNPACK delegate, as on a device; False: the builtin kernels only.
      preserve_all: keep every intermediate tensor readable by `tensors`; costs memory.
      runtime: "litert" (ai-edge-litert) or "tensorflow" (`tf.lite`).

    Its `arena_bytes` are those of the activations needed at once, where dimensions that may be resized are 1.

    Raises UserError for a broken file, or a model that needs operators the runtime does not have.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int = 1,
        delegate: bool = True,
        preserve_all: bool = False,
        runtime: str = "litert",
    ):
        source = "the model" if isinstance(model, bytes) else str(model)
        self.content = read_content(model)
        self._preserve_all = preserve_all
        self._has_run = False
        parsed = parse_tflite(self.content, source=source)
        graph = parsed.subgraphs[0]
        self._stateful = any(tensor.isVariable for tensor in graph.tensors)
        self._interpreter = _make_interpreter(
            self.content, source, threads=threads, delegate=delegate, preserve_all=preserve_all, runtime=runtime
        )
        names = signature_names(parsed)
        details = [detail for detail in self._interpreter.get_tensor_details() if detail["index"] < len(graph.tensors)]
        self.arena_bytes = _arena_bytes(parsed, details, self.content, source)
        self._by_index = {detail["index"]: _tensor_info(detail, detail["name"]) for detail in details}
        self.inputs = tuple(_tensor_info(d, names.get(d["index"])) for d in self._interpreter.get_input_details())
        self.outputs = tuple(_tensor_info(d, names.get(d["index"])) for d in self._interpreter.get_output_details())
        self._shapes = {d["index"]: tuple(d["shape"].tolist()) for d in self._interpreter.get_input_details()}

    @property
    def all_tensors(self) -> tuple[TensorInfo, ...]:
        """Every tensor of the main subgraph, constants included."""
        return tuple(self._by_index.values())

    def shapes(self) -> dict[int, tuple[int, ...]]:
        """The shape every tensor has now, by index, as the runtime made it out."""
        details = self._interpreter.get_tensor_details()
        return {d["index"]: tuple(d["shape"].tolist()) for d in details if d["index"] in self._by_index}

    def operations(self) -> tuple[RuntimeOperation, ...]:
        """Those of the file, and behind them those that a delegate put in place of some."""
        details = self._interpreter._get_ops_details()
        return tuple(RuntimeOperation(d["op_name"], tuple(d["inputs"]), tuple(d["outputs"])) for d in details)

    def run(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """Real values in, float32 out, one array per output.

        Args:
          inputs: one array per input name, of the input's shape, batch axis included, in real values
            whatever their dtype: integers too are values, not elements of the grid (`run_raw`).
        """
        self._check_names(inputs)
        raw = self.run_raw({info.name: info.to_raw(inputs[info.name]) for info in self.inputs})
        return tuple(info.to_real(value) for info, value in zip(self.outputs, raw, strict=True))

    def run_raw(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """Elements in, elements out: arrays of exactly the inputs' dtypes, one array per output."""
        self._check_names(inputs)
        for info in self.inputs:
            if inputs[info.name].dtype != info.dtype:
                raise UserError(f"input {info.name!r} takes {info.dtype} elements, got {inputs[info.name].dtype}")
        self._resize({info: inputs[info.name].shape for info in self.inputs})
        if self._stateful:
            self._interpreter.reset_all_variables()
        for info in self.inputs:
            self._interpreter.set_tensor(info.index, inputs[info.name])
        # the first run makes what the later ones use
        with contextlib.nullcontext() if self._has_run else bounded_memory(len(self.content)):
            self.invoke()
        self._has_run = True
        return tuple(self._interpreter.get_tensor(info.index) for info in self.outputs)

    def constant(self, index: int) -> np.ndarray:
        """Elements of a tensor whose values lie in the file, as the runtime reads them: INT4 one a byte."""
        return self._interpreter.get_tensor(index)

    def invoke(self) -> None:
        """Run once more on the inputs that are set; what a latency measurement times."""
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError, MemoryError) as error:
            raise UserError(f"the model cannot be run: {_first_line(error)}") from error

    def tensors(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The real float32 values that tensors held after the last run, by their names. Needs `preserve_all`."""
        if not self._preserve_all:
            raise ValueError("intermediate tensors are only kept with preserve_all=True")
        by_name = {info.name: info for info in self.all_tensors}
        return {name: by_name[name].to_real(self.constant(by_name[name].index)) for name in names}

    def _check_names(self, inputs: Mapping[str, np.ndarray]) -> None:
        expected = [info.name for info in self.inputs]
        if set(inputs) != set(expected):
            raise UserError(f"the model's inputs are {', '.join(expected)}; got {', '.join(inputs) or 'none'}")

    def _resize(self, shapes: Mapping[TensorInfo, tuple[int, ...]]) -> None:
        changed = {info: shape for info, shape in shapes.items() if shape != self._shapes[info.index]}
        if not changed:
            return
        for info, shape in changed.items():  # all are checked before the first is touched
            fits = len(shape) == len(info.shape) and all(e in (-1, g) for e, g in zip(info.shape, shape, strict=True))
            if not fits:
                raise UserError(f"input {info.name!r} has the shape {written(info.shape)}, got {written(shape)}")
        for info, shape in changed.items():
            self._interpreter.resize_tensor_input(info.index, shape)
            self._shapes[info.index] = shape
        try:
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            shape_text = ", ".join(f"{info.name!r} {written(shape)}" for info, shape in changed.items())
            raise UserError(f"the model cannot be run with the input {shape_text}: {_first_line(error)}") from error


@contextlib.contextmanager
def bounded_memory(file_bytes: int) -> Iterator[None]:
    """Within the block this process gets at most 3 GiB of addresses, and 128 times the file, beyond what it has.

    With several threads in such blocks the bound ends with the first that leaves.
    What asks for more is told that there is none: a MemoryError, or an error of the runtime.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _MORE_BYTES + _SHARE * file_bytes
    others = [limit for limit in (_SOFT, _HARD) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([most, *others]), _HARD))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (_SOFT, _HARD))


def _make_interpreter(
    content: bytes, source: str, *, threads: int, delegate: bool, preserve_all: bool, runtime: str
) -> Any:
    interpreter_class, resolvers = _runtime(runtime)
    resolver = resolvers.AUTO if delegate else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with warnings.catch_warnings(), bounded_memory(len(content)):
            # tf.lite warns that it is deprecated, preserve_all that it costs memory; both are known here
            warnings.simplefilter("ignore", UserWarning)
            interpreter = interpreter_class(
                model_content=content,
                num_threads=threads,
                experimental_op_resolver_type=resolver,
                experimental_preserve_all_tensors=preserve_all,
            )
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError, MemoryError) as error:
        raise UserError(f"{source} cannot be run by {runtime}: {_first_line(error)}") from error
    return interpreter


def _arena_bytes(parsed: Any, details: Iterable[Mapping[str, Any]], content: bytes, source: str) -> int:
    """Bytes of the activations by the shapes that the interpreter has found; constants, as of paddings, decide on some.

    It has reserved the memory and not yet touched it. Raises UserError where it is too much for the file.
    """
    for detail in details:
        parsed.subgraphs[0].tensors[detail["index"]].shape = detail["shape"]
    needed = arena_bytes(parsed)
    try:
        check_arena(needed, len(content))
    except ValueError as error:
        raise UserError(f"{source} is not run: {error}; export it again") from error
    return needed


def _runtime(name: str) -> tuple[Any, Any]:
    """Interpreter class and op resolver types of a runtime; TensorFlow is imported only when asked for."""
    if name == "litert":
        from ai_edge_litert import interpreter

        return interpreter.Interpreter, interpreter.OpResolverType
    if name == "tensorflow":
        import tensorflow as tf

        return tf.lite.Interpreter, tf.lite.experimental.OpResolverType
    raise ValueError(f"runtime (={name!r}) must be one of {', '.join(RUNTIMES)}")


def _tensor_info(detail: Mapping[str, Any], name: str | None) -> TensorInfo:
    grid = detail["quantization_parameters"]
    return TensorInfo(
        name=detail["name"].removeprefix("serving_default_").removesuffix(":0") if name is None else name,
        index=detail["index"],
        shape=tuple(detail["shape_signature" if len(detail["shape_signature"]) else "shape"].tolist()),
        dtype=np.dtype(detail["dtype"]),
        scale=tuple(grid["scales"].tolist()),
        zero_point=tuple(grid["zero_points"].tolist()),
        axis=int(grid["quantized_dimension"]),
    )


def written(shape: Iterable[int]) -> str:
    return "[" + ", ".join("any" if size == -1 else str(size) for size in shape) + "]"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
