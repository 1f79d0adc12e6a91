"""Random damage of a file, through the real reader of its kind, in a process that is watched.

    python tests/fuzzing.py KIND FILE COUNT SEED

prints {"accepted": number, "refused": number, "peak_mb": resident memory}; anything but a UserError ends it with a
traceback.
"""

from __future__ import annotations

import json
import pathlib
import random
import re
import sys
import tempfile
from collections.abc import Callable

from tfq.data.loading import Selection, load_samples
from tfq.data.samples import InputSignature
from tfq.errors import UserError
from tfq.execution.journal import peak_memory_mb
from tfq.recipe import Recipe
from tfq.spec import Specification

SIGNATURE = (InputSignature("image", (8, 8, 1), "float32"),)


def damaged(content: bytes, generator: random.Random) -> bytes:
    """The content with 1 to 8 bytes of other values, some missing or twice, or its end missing."""
    found = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 8))):
        place = generator.randrange(len(found))
        if generator.random() < 0.5:  # most of an archive is values, of which any is fine: what matters is at both ends
            place = generator.choice((place % 300, -1 - place % 400)) % len(found)
        found[place] = generator.choice((found[place] ^ 1 << generator.randrange(8), 0, 255, generator.randrange(256)))
    how = generator.random()
    if how < 0.15:
        del found[generator.randrange(len(found)) :]
    elif how < 0.25:
        place = generator.randrange(len(found))
        del found[place : place + generator.randrange(1, 20)]
    elif how < 0.3:
        place = generator.randrange(len(found))
        found[place:place] = found[place : place + 20]
    return bytes(found)


def read_data(path: pathlib.Path) -> None:
    for limit, selection in ((16, "first"), (16, "random"), (None, "first")):
        load_samples(str(path), SIGNATURE, Selection(limit, selection))


def read_recipe(path: pathlib.Path) -> None:
    Recipe.from_json(Recipe.read(path, what=str(path)).to_json())


def read_spec(path: pathlib.Path) -> None:
    text = path.read_bytes().decode("utf-8", "replace")
    Specification.from_json(Specification.from_json(text).to_json())


def read_result(path: pathlib.Path) -> None:
    from tfq_tools.batch import row_of

    from tfq.report.comparison import compare, comparison_page, read_runs
    from tfq.report.devices import read_report, rendered
    from tfq.report.layers import layer_table, stage_table

    report = read_report(path.parent)
    for sort in ("order", "error"):
        layer_table(report, re.compile(""), sort)
    stage_table(report)
    row_of("run", "done", path.parent)
    rendered(report, path)
    comparison_page(compare(read_runs([path.parent])))


READERS: dict[str, tuple[str, Callable[[pathlib.Path], None]]] = {
    "npz": ("data.npz", read_data),
    "npy": ("data.npy", read_data),
    "recipe": ("recipe.json", read_recipe),
    "spec": ("spec.json", read_spec),
    "report": ("report.json", read_result),
}


def main(kind: str, file: str, count: int, seed: int) -> None:
    name, read = READERS[kind]
    content, generator = pathlib.Path(file).read_bytes(), random.Random(seed)
    outcomes = {"accepted": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, name)
        path.write_bytes(content)
        read(path)
        for number in range(count):
            path.write_bytes(damaged(content, generator))
            try:
                read(path)
                outcomes["accepted"] += 1
            except UserError as error:
                outcomes["refused"] += 1
                if len(str(error).split("\n")) > 1 or len(str(error)) > 2000:
                    raise RuntimeError(f"number {number} is told in more than a line: {error}") from error
            except BaseException:
                print(f"number {number} of seed {seed}", file=sys.stderr)
                raise
    print(json.dumps(outcomes | {"peak_mb": peak_memory_mb()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
