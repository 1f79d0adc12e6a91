"""Shards of a batch: who does what, once, whatever is killed when."""

import collections
import pathlib
import random
import subprocess
import sys
import time

import pytest
from tfq_tools.shards import DONE, Shard, worked_off

from tfq.errors import UserError
from tfq.execution.files import write_atomic
from tfq.execution.resources import Resources

JOBS = {f"job{number:03}": number for number in range(40)}


def work(folder, name, seconds):
    """A job of so many seconds; what it gives appears at its end."""
    with (pathlib.Path(folder) / "begun").open("a") as file:
        print(name, file=file)
    time.sleep(seconds)
    write_atomic(pathlib.Path(folder) / f"{name}.out", name.encode())
    return DONE


def run_shard(folder, text, seconds):
    shard = Shard.read(text)
    calls = {name: (str(folder), name, seconds) for name in shard.part(JOBS)}
    journal = folder / f"{shard.named('batch')}.jsonl"
    done = {path.stem for path in folder.glob("*.out")}
    yield from worked_off(calls, work, is_done=done.__contains__, journal=journal, resources=Resources())


@pytest.mark.parametrize("count", [1, 3, 16, 41])
def test_every_job_has_one_shard(count):
    parts = [Shard(number, count).part(JOBS) for number in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == list(JOBS)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len({Shard(number, count).named("batch") for number in range(1, count + 1)}) == count


@pytest.mark.parametrize(
    ("text", "last"),
    [("0/4", "4/4"), ("5/4", "4/4"), *((text, "16/16") for text in ("3", "a/b", "1/0", "-1/4", "1/4/2"))],
)
def test_what_is_no_shard_is_told(text, last):
    with pytest.raises(UserError, match=f"it must be a part and the number of parts, from .* to {last}"):
        Shard.read(text)


def test_a_failure_is_told_and_tried_again(tmp_path):
    calls = {"good": ("done",), "bad": ("out of luck",)}
    options = {"is_done": lambda _: False, "journal": tmp_path / "j", "resources": Resources()}
    assert dict(worked_off(calls, str, **options)) == {"good": "done", "bad": "out of luck"}
    found = worked_off(calls, str, **options | {"is_done": {"good"}.__contains__})
    assert next(found) == ("good", DONE)
    with pytest.raises(UserError, match="another run writes the journal"):
        list(worked_off(calls, str, **options))
    assert list(found) == [("bad", "out of luck")]


def test_shards_that_are_killed_do_every_job_once(tmp_path):
    path = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[2])]
    code = f"import sys; sys.path[:0] = {path!r}; import pathlib, test_shards as t;"
    code += f" list(t.run_shard(pathlib.Path({str(tmp_path)!r}), sys.argv[1], 0.02))"
    chance = random.Random(0)

    def start(text):
        return subprocess.Popen([sys.executable, "-c", code, text], stderr=subprocess.PIPE, text=True)

    for kills in (1, 1, 0):
        running = [start(f"{number}/2") for number in (1, 2)]
        if kills:
            before = len(list(tmp_path.glob("*.out")))
            while len(list(tmp_path.glob("*.out"))) < before + chance.randrange(4, 9):
                time.sleep(0.01)
        for process in running:
            if kills:
                process.kill()
            _, errors = process.communicate(timeout=60)
            assert kills or process.returncode == 0, errors
    assert sorted(path.stem for path in tmp_path.glob("*.out")) == list(JOBS)
    noted = [line for number in (1, 2) for line in (tmp_path / f"batch-{number}-of-2.jsonl").read_text().splitlines()]
    assert len(noted) == len(JOBS) + 2
    begun = collections.Counter((tmp_path / "begun").read_text().split())
    assert set(begun) == set(JOBS)
    assert sum(begun.values()) <= len(JOBS) + 4  # each kill may cost a shard the job that it was at
