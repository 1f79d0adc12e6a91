"""From the name of a source to the samples of one run: open, select, preprocess, check."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfq.data import checks, selection
from tfq.data.annotations import read_annotations
from tfq.data.arrays import ArraySource, NpySource, NpzSource
from tfq.data.features import PooledProjection
from tfq.data.functions import StreamSource, import_function
from tfq.data.images import ImageFolder
from tfq.data.location import locate
from tfq.data.objects import Given, open_object
from tfq.data.preprocess import Normalization, normalizations
from tfq.data.samples import InputSignature, Samples, SampleWriter
from tfq.data.sources import RawSample, Source
from tfq.data.tfrecords import TFRecordSource
from tfq.errors import UserError
from tfq.execution.progress import Progress
from tfq.execution.resources import DEFAULT, Resources

SELECTIONS = ("first", "random", "balanced", "coverage")
COVERAGE_CANDIDATES = 20_000
_EMBED_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which samples of a source are taken.

    Attributes:
      limit: number of samples wanted (calibration), or None for all of them in order (evaluation).
        A source with fewer gives all it has.
      how: "first"; "random", every subset alike; "balanced", over the classes in turn;
        "coverage", farthest first in a feature space, out of at most COVERAGE_CANDIDATES at random.
        Whatever is selected comes in source order. "balanced" and "coverage" take two passes over
        the source, the others one.
      seed: of the draw and of coverage's random projection.
    """

    limit: int | None = None
    how: str = "first"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in SELECTIONS:
            raise UserError(f"selection is {self.how!r}; it must be one of {', '.join(SELECTIONS)}")


ALL = Selection()


def load_samples(
    source: str | Given,
    signatures: Sequence[InputSignature],
    selected: Selection = ALL,
    *,
    preprocess: str = "none",
    require_labels: bool = False,
    class_names: Sequence[str] = (),
    annotations: str | os.PathLike[str] = "",
    resources: Resources = DEFAULT,
) -> Samples:
    """Read, select, preprocess and check the samples of a source.

    Args:
      source: path of an .npz or .npy file, of a folder of images, of a TFRecord file or a pattern
        such as "train-*.tfrecord", "module:function", or an object of the caller's; see the module of each.
      signatures: the model's inputs.
      selected: which samples are taken.
      preprocess: "none" or a key of `preprocess.NORMALIZATIONS`.
      require_labels: raise where a sample has no label.
      class_names: of the model's classes, by which the sub-folders of a folder of images are numbered; may be empty.
      annotations: boxes or masks of a folder of images (`tfq.data.annotations`); "" for none.
      resources: arrays beyond the memory limit live in a temporary file; arrays that are given as the model takes
        them are not copied. Progress is told about every pass over the source.

    Returns:
      The samples, with warnings about their number and values.

    Raises:
      UserError: the source is missing, damaged, empty, or does not fit the model.
    """
    limit = selected.limit
    if not source:
        raise UserError("no data is named; give an .npz or .npy file, a folder of images, TFRecords or module:function")
    opened = open_source(source, signatures, preprocess=preprocess, class_names=class_names)
    if annotations:
        opened = _annotated(opened, Path(annotations), str(source), class_names)
    reader = _Reader(opened, str(source), signatures, preprocess, resources.progress)
    views = reader.views if limit is None or selected.how == "first" else {}
    placed = reader.all() if limit is None else reader.chosen(limit, selected.how, selected.seed)
    writer = SampleWriter(resources.memory_limit)
    watches = {s.name: checks.InputWatch() for s in signatures}
    taken: dict[int, tuple[int, str]] = {}
    label_kind = None
    for slot, sample in placed:
        inputs = reader.convert(sample, watches)
        label = reader.label(sample, required=require_labels)
        kind = "missing" if label is None else f"{label.dtype} of shape {label.shape}"
        label_kind = label_kind or kind
        if kind != label_kind:
            raise UserError(f"the label of {_where(sample)} is {kind}, those before are {label_kind}; make all alike")
        writer.write(slot, {} if views else inputs, label)
        taken[slot] = sample.index, sample.name
    if not taken:
        raise UserError(f"{source} holds no samples")
    arrays, labels = writer.finish()
    arrays |= {name: array[: len(taken)] for name, array in views.items()}
    indices, names = zip(*(taken[slot] for slot in range(len(taken))), strict=True)
    samples = Samples(
        arrays,
        np.array(indices, np.int64),
        labels,
        names if any(names) else (),
        opened.class_names,
    )
    if (np.diff(samples.indices) < 0).any():
        samples = samples.take(np.argsort(samples.indices))
    warnings = [*opened.warnings, *checks.input_warnings(watches, signatures, reader.normalized, len(samples))]
    if limit is not None:
        warnings += checks.calibration_warnings(samples, exhausted=len(samples) < limit or len(samples) == opened.count)
    return dataclasses.replace(samples, warnings=tuple(warnings))


def open_source(
    source: str | Given,
    signatures: Sequence[InputSignature],
    *,
    preprocess: str = "none",
    class_names: Sequence[str] = (),
) -> Source:
    """The source behind what the user gave; arguments and errors as in `load_samples`."""
    if isinstance(source, Given):
        return open_object(source, signatures)
    where = locate(source)
    if where.kind == "function":
        return StreamSource(source, import_function(source), signatures)
    if where.kind == "tfrecords":
        return TFRecordSource(where.paths, signatures, preprocess)
    (path,) = where.paths
    if where.kind == "images":
        return ImageFolder(path, signatures, preprocess, class_names)
    return (NpzSource if where.kind == "npz" else NpySource)(path, signatures)


def _annotated(opened: Source, annotations: Path, name: str, class_names: Sequence[str]) -> Source:
    if not isinstance(opened, ImageFolder):
        raise UserError(
            f"`annotations` are of a folder of images, and {name} is none; leave them out, or give a folder"
        )
    labels, warnings = read_annotations(annotations, opened.files, opened.size, class_names)
    return opened.with_labels(labels, warnings)


class _Reader:
    """One source with what is needed to make its samples the model's."""

    def __init__(
        self, source: Source, name: str, signatures: Sequence[InputSignature], preprocess: str, progress: Progress
    ):
        self.source = source
        self._name = name
        self._signatures = signatures
        self._normalizations: dict[str, Normalization] = normalizations(signatures, preprocess)
        self._progress = progress

    @property
    def normalized(self) -> frozenset[str]:
        return frozenset(self._normalizations)

    @property
    def views(self) -> dict[str, np.ndarray]:
        """The arrays of the source where they are what the model takes; empty where they have to be made."""
        if type(self.source) is not ArraySource or self._normalizations:  # a file may change
            return {}
        found = self.source.arrays
        return found if all(found[s.name].dtype == s.dtype for s in self._signatures) else {}

    def convert(
        self, sample: RawSample, watches: Mapping[str, checks.InputWatch] | None = None
    ) -> dict[str, np.ndarray]:
        """Inputs as the model takes them, each checked."""
        inputs = {}
        for signature in self._signatures:
            stored, where = sample.inputs[signature.name], sample.where[signature.name]
            checks.check_dtype(stored.dtype, signature, where)
            checks.check_shape(stored.shape, signature, where)
            checks.check_finite(stored, signature, where)
            if watches is not None:
                watches[signature.name].see(stored)
            normalize = self._normalizations.get(signature.name)
            inputs[signature.name] = checks.converted(normalize(stored) if normalize else stored, signature, where)
        return inputs

    def label(self, sample: RawSample, *, required: bool) -> np.ndarray | None:
        """The label, checked."""
        if sample.label is None and required:
            raise UserError(f"{self._name} has no labels; {self.source.label_hint}")
        return None if sample.label is None else checks.checked_label(sample.label, _where(sample))

    def all(self) -> Iterator[tuple[int, RawSample]]:
        """(slot, sample) of every sample."""
        return enumerate(self._tracked("read", self.source.read(None), self.source.count))

    def chosen(self, limit: int, how: str, seed: int) -> Iterator[tuple[int, RawSample]]:
        """(slot, sample) of at most `limit` samples; a slot that comes again replaces what it held."""
        count = self.source.count
        if how == "first" or (count is not None and limit >= count):
            return self._at(range(limit if count is None else min(limit, count)), exactly=False)
        if how == "random":
            return self._random(limit, seed)
        if how == "balanced":
            labels = self.source.labels()
            if labels is None or labels.reshape(len(labels), -1).shape[1] != 1:
                raise UserError(f"`selection='balanced'` needs one class label a sample; {self.source.label_hint}")
            return self._at(selection.balanced_positions(labels.reshape(-1), limit, seed))
        return self._at(self._coverage(limit, seed))

    def _random(self, limit: int, seed: int) -> Iterator[tuple[int, RawSample]]:
        if self.source.count is not None:
            yield from self._at(selection.random_positions(self.source.count, limit, seed))
            return
        reservoir = selection.Reservoir(limit, seed)
        for sample in self._tracked("read", self.source.read(None), None):
            slot = reservoir.slot(sample.index)
            if slot is not None:
                yield slot, sample

    def _at(self, positions: Sequence[int] | np.ndarray, *, exactly: bool = True) -> Iterator[tuple[int, RawSample]]:
        found = 0
        for sample in self._tracked("read", self.source.read(positions), len(positions)):
            yield found, sample
            found += 1
        if exactly and found != len(positions):
            raise UserError(f"{self._name} gave fewer samples on its second pass; it must give the same each time")

    def _coverage(self, limit: int, seed: int) -> np.ndarray:
        """Positions by coverage; holds one row of features for each candidate."""
        embeds = [PooledProjection(s, seed) for s in self._signatures]
        positions: dict[int, int] = {}
        rows: dict[int, np.ndarray] = {}
        for batch in _batched(self._random(COVERAGE_CANDIDATES, seed), _EMBED_BATCH):
            inputs = [self.convert(sample) for _, sample in batch]
            stacked = {s.name: np.stack([i[s.name] for i in inputs]) for s in self._signatures}
            features = [np.asarray(f(stacked), np.float32).reshape(len(batch), -1) for f in embeds]
            for k, (slot, sample) in enumerate(batch):
                positions[slot], rows[slot] = sample.index, np.concatenate([f[k] for f in features])
        if not rows:
            raise UserError(f"{self._name} holds no samples")
        matrix = np.stack([rows[slot] for slot in range(len(rows))])
        widths = np.cumsum([f.shape[1] for f in features])[:-1]
        for block in np.split(matrix, widths, axis=1):
            block /= max(float(block.std()), np.finfo(np.float32).tiny)
        candidates = np.array([positions[slot] for slot in range(len(rows))])
        order = np.argsort(candidates)
        return candidates[order][selection.coverage_positions(matrix[order], limit)]

    def _tracked(self, what: str, samples: Iterable[RawSample], total: int | None) -> Iterator[RawSample]:
        with self._progress.task(f"{what} {self._name}", total or 0) as advance:
            for sample in samples:
                yield sample
                advance(1)


def _where(sample: RawSample) -> str:
    return next(iter(sample.where.values()))


def _batched(items: Iterator[tuple[int, RawSample]], size: int) -> Iterator[list[tuple[int, RawSample]]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
