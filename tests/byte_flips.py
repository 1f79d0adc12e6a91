"""Damaged copies of a file, tried in a process of its own, so that a crash is seen and not shared.

`survivors` hands every damaged copy to a child process and says how each ended. What must not be is a signal,
a hang, an exception that is no UserError, or a process that grows beyond the memory allowed.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import random
import resource
import traceback
from collections.abc import Callable, Iterator

_SECONDS, _SECONDS_TO_START = 300.0, 900.0
_LOADED = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one damaged copy ended: "taken", "refused", or what must not be: "crashed", "hung", "raised"."""

    kind: str
    damage: str
    detail: str = ""


def damaged(content: bytes, count: int, numbers: random.Random) -> Iterator[tuple[str, bytes]]:
    """`count` copies with one byte changed, some with a few, and one in twenty cut short: (what was done, the copy)."""
    for _ in range(count):
        if numbers.random() < 0.05:
            size = numbers.randrange(len(content))
            yield f"cut to {size}", content[:size]
            continue
        copy = bytearray(content)
        places = [numbers.randrange(len(content)) for _ in range(numbers.choice((1, 1, 1, 4)))]
        for place in places:
            copy[place] ^= numbers.randrange(1, 256)
        yield f"bytes {places} to {[copy[p] for p in places]}", bytes(copy)


def survivors(
    try_one: Callable[[pathlib.Path], None],
    place: pathlib.Path,
    cases: Iterator[tuple[str, bytes]],
    *,
    memory: int = 2 * 2**30,
) -> collections.Counter[str]:
    """How many cases were taken and refused.

    Args:
      try_one: a function of a module that a child process can import; it reads the file at `place`.
      place: the whole file; each damaged copy is written there.
      memory: bytes that the child process may have had at its peak.

    Raises:
      AssertionError: a case crashed, hung or raised something else than a UserError; the message lists such cases.
    """
    found = list(_outcomes(try_one, place, cases, memory))
    bad = [outcome for outcome in found if outcome.kind not in ("taken", "refused")]
    assert not bad, "\n".join(f"{o.kind}: {o.damage}: {o.detail}" for o in bad[:20])
    return collections.Counter(outcome.kind for outcome in found)


def _outcomes(
    try_one: Callable[[pathlib.Path], None], place: pathlib.Path, cases: Iterator[tuple[str, bytes]], memory: int
) -> Iterator[Outcome]:
    whole, child = place.read_bytes(), None
    try:
        for damage, content in cases:
            if child is None:  # the whole file first: a process that starts imports the libraries
                place.write_bytes(whole)
                child = _Child(try_one, place, memory)
                assert child.run(_SECONDS_TO_START) == ("taken", ""), "the file is not taken before it is damaged"
            place.write_bytes(content)
            kind, detail = child.run(_SECONDS)
            yield Outcome(kind, damage, detail)
            if kind in ("crashed", "hung"):
                child.stop()
                child = None
    finally:
        if child is not None:
            child.stop()


class _Child:
    """A process that tries the file again each time it is asked to."""

    def __init__(self, try_one: Callable[[pathlib.Path], None], place: pathlib.Path, memory: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, try_one, place, memory), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, seconds: float) -> tuple[str, str]:
        self._pipe.send("run")
        try:
            return self._pipe.recv() if self._pipe.poll(seconds) else ("hung", f"for {seconds} s")
        except EOFError:
            self._process.join()
            return "crashed", f"exit code {self._process.exitcode}"

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe, try_one: Callable[[pathlib.Path], None], place: pathlib.Path, memory: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries log
    from tfq.errors import UserError

    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        try:
            try_one(place)
            outcome = ("taken", "")
        except UserError as error:
            fine = str(error).isprintable() and str(error)
            outcome = ("refused", "") if fine else ("raised", f"a message that cannot be shown: {error!r}")
        except BaseException:
            outcome = ("raised", traceback.format_exc(limit=-4))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > memory:
            outcome = ("crashed", f"it took {peak} bytes")  # a new process takes its place
        pipe.send(outcome)


def load_a_model(path: pathlib.Path) -> None:
    """For `survivors`: reads a model file and runs it once."""
    import keras
    import numpy as np
    import tf_keras

    from tfq.models.load import load_model

    loaded = load_model(path)
    nodes = [loaded.graph[name] for name in loaded.graph.inputs]
    loaded.predict({n.name: np.zeros((1, *n.config["shape"]), n.config["dtype"]) for n in nodes})
    if next(_LOADED) % 100 == 0:  # it takes as long as several models
        keras.backend.clear_session()
        tf_keras.backend.clear_session()


def load_a_saved_model(path: pathlib.Path) -> None:
    """The same of a SavedModel, one of whose files is damaged."""
    load_a_model(path.parent)


def load_a_checkpoint(path: pathlib.Path) -> None:
    load_a_model(path.parent.parent)
