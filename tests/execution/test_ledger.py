"""The journal of measured numbers: what is in it lasts, what is not its own is refused."""

import json
import math
import os
from pathlib import Path

import bad_inputs
import pytest

from tfq.errors import UserError
from tfq.execution.ledger import Ledger

NUMBERS = {("conv", "w2"): 0.1 + 0.2, ("conv", "w3"): 1e-300, ("dense", "w2"): 3.0}


def opened(path, digest="d"):
    return Ledger(path, measures="loss", depends_on=digest)


def test_numbers_are_read_back_without_loss(tmp_path):
    path = tmp_path / "folder" / "journal.jsonl"
    with opened(path) as ledger:
        for key, value in NUMBERS.items():
            ledger.add(key, value)
        assert ledger.values == NUMBERS
    with opened(path) as ledger:
        assert ledger.values == NUMBERS
    assert len(path.read_text().splitlines()) == 1 + len(NUMBERS)


def test_every_number_is_in_the_file_as_soon_as_it_is_added(tmp_path):
    path = tmp_path / "journal.jsonl"
    with opened(path) as ledger:
        ledger.add(("conv", "w2"), 0.5)
        assert json.loads(path.read_text().splitlines()[-1]) == {"key": ["conv", "w2"], "value": 0.5}


@pytest.mark.parametrize("lost", range(1, 30))
def test_a_half_written_line_is_dropped_and_measured_again(tmp_path, lost):
    path = tmp_path / "journal.jsonl"
    with opened(path) as ledger:
        for key, value in NUMBERS.items():
            ledger.add(key, value)
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    with opened(path) as ledger:
        assert ledger.values == {key: NUMBERS[key] for key in list(NUMBERS)[:2]}
        ledger.add(("dense", "w2"), 3.0)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_a_half_written_first_line_is_written_anew(tmp_path, kept):
    path = tmp_path / "journal.jsonl"
    opened(path).__exit__(None, None, None)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with opened(path) as ledger:
        assert ledger.values == {}
    assert path.read_bytes() == whole


def test_a_journal_of_another_run_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "journal.jsonl"
    with opened(path) as ledger:
        ledger.add(("conv", "w2"), 0.5)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"another model, other samples or another method; delete it"):
        opened(path, "other")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no newline", b"a picture\n", b'{"measures": 1}\n{"key": 3}\n', b"[]\n"])
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="journal"):
        opened(path)
    assert path.read_bytes() == content


def test_two_runs_cannot_write_one_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    with opened(path), pytest.raises(UserError, match="another run writes the journal"):
        opened(path)
    with opened(path):  # the first has closed it
        pass


def test_a_folder_is_no_journal(tmp_path):
    with pytest.raises(UserError, match="cannot write the journal"):
        opened(tmp_path)


@pytest.mark.parametrize("name", bad_inputs.JOURNALS)
def test_what_is_no_journal_is_refused_and_stays_as_it_is(name, tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(bad_inputs.JOURNALS[name])
    with pytest.raises(UserError) as caught:
        Ledger(path, measures="m", depends_on="e" if name == "of another run" else "d")
    assert "journal" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == bad_inputs.JOURNALS[name]


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (
        tmp_path / "pipe",
        tmp_path / "loop",
        tmp_path,
        Path("/dev/zero"),
        tmp_path / ("x" * 300),
        Path("a\0b"),
    ):
        with pytest.raises(UserError, match="cannot write the journal"):
            opened(path)


def test_what_is_not_finite_is_not_noted_down(tmp_path):
    with opened(tmp_path / "journal.jsonl") as ledger:
        ledger.add(("a",), math.inf)
        assert ledger.values == {("a",): math.inf}
    with opened(tmp_path / "journal.jsonl") as ledger:
        assert ledger.values == {}
