"""Damaged .tflite files, and what commands do with them; a program, so that a crash is seen and not suffered.

    python tests/fuzz_tflite.py MODEL FIRST LAST [inspect]

For every seed it prints a line when it is through with the file that the seed makes of MODEL; after the last the
process's peak of memory, MiB. What is not a UserError ends it with a traceback. Without `inspect` the files are only
evaluated, which needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import random
import struct
import sys
import warnings
from pathlib import Path

import numpy as np

from tfq.evaluation.latency import Timing

_EXTREMES = (0, 1, 2, 255, 256, 32767, 65536, 100_000, 2**20, 2**30, 2**31 - 1, -1, -2, -(2**31))
_TABLES_BYTES = 24_000  # the tables of a small model stand at the end of its file, behind constants


def damaged(content: bytes, seed: int) -> bytes:
    """A tenth are cut off; of the others bytes are flipped, or integers overwritten by extremes; most in the tables."""
    chosen = random.Random(seed)
    kind = chosen.randrange(10)
    if kind == 0:
        return content[: chosen.randrange(8, len(content))]
    found = bytearray(content)
    for _ in range(1 if chosen.random() < 0.6 else chosen.randrange(2, 9)):
        first = 0 if chosen.random() < 0.4 else max(0, len(found) - _TABLES_BYTES)
        place = chosen.randrange(first, len(found))
        if kind < 6:
            found[place] ^= 1 << chosen.randrange(8) if chosen.random() < 0.5 else chosen.randrange(256)
        else:
            place = min(place, len(found) - 4) // 4 * 4
            found[place : place + 4] = struct.pack("<i", chosen.choice(_EXTREMES))
    return bytes(found)


def inspected(content: bytes, whole: bytes) -> None:
    """What tfq-inspect does with a file, alone and beside the file that it was."""
    from tfq.errors import UserError
    from tfq.evaluation.inspection import compare_operations, operations

    with contextlib.suppress(UserError):
        operations(content)
    with contextlib.suppress(UserError):
        compare_operations(content, whole, {name: array[:2] for name, array in inputs(whole).items()})


def evaluated(content: bytes, whole: bytes, *, alone: bool) -> None:
    """What tfq-evaluate does with a file, alone or beside the file that it was."""
    from tfq.data.samples import Samples
    from tfq.errors import UserError
    from tfq.evaluation.evaluate import evaluate, input_signatures

    samples = Samples(inputs(whole), np.arange(8))
    with contextlib.suppress(UserError):
        input_signatures(content)
        models = {"damaged": content} if alone else {"whole": whole, "damaged": content}
        evaluate(models, samples, metric="sqnr", timing=Timing(runs=2, seconds=0.0))


def inputs(whole: bytes) -> dict[str, np.ndarray]:
    from tfq.evaluation.evaluate import input_signatures

    drawn = np.random.default_rng(0)
    return {s.name: drawn.normal(size=(8, *s.shape)).astype(np.float32) for s in input_signatures(whole)}


def main() -> None:
    warnings.simplefilter("ignore")
    whole, first, last = Path(sys.argv[1]).read_bytes(), int(sys.argv[2]), int(sys.argv[3])
    for seed in range(first, last):
        content = damaged(whole, seed)
        evaluated(content, whole, alone=seed % 2 == 0)
        if "inspect" in sys.argv[4:]:
            inspected(content, whole)
        print(seed, flush=True)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) // 1024)


if __name__ == "__main__":
    main()
