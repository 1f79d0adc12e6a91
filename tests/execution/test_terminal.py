"""Names from files do not steer the terminal."""

import io
import os
import re

from hypothesis import given
from hypothesis import strategies as st

from tfq.execution.progress import Course, Lines, Planned, entered
from tfq.execution.terminal import PrintableStream, one_line, printable
from tfq.report.table import format_table

HOSTILE = "a\x1b[2Jb\rc\nd\x9be\u202ef\x00"
SHOWN = r"a\x1b[2Jb\rc" + "{}" + r"d\x9be\u202ef\x00"


def test_control_characters_are_written_as_python_writes_them():
    assert printable(HOSTILE) == SHOWN.format("\n")
    assert one_line(HOSTILE) == SHOWN.format(r"\n")
    assert printable("stra\u00dfe \u4e2d \U0001f600\tx\n") == "stra\u00dfe \u4e2d \U0001f600\tx\n"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text):
    shown = one_line(text)
    assert shown.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
    assert len(shown.splitlines()) <= 1
    assert one_line(shown) == shown


def test_a_stream_escapes_what_its_encoding_lacks_and_keeps_what_is_tfqs_own():
    reading, writing = os.pipe()
    stream = PrintableStream(writing, encoding="ascii", line_buffering=False)
    stream.write("\x1b\u00e9\udce9\n")
    stream.write_control("\r\x1b[K")
    stream.flush()
    os.close(writing)
    assert os.read(reading, 100) == b"\\x1b\\xe9\\udce9\n\r\x1b[K"
    os.close(reading)


def test_names_in_progress_and_tables_stay_on_their_line():
    stream = io.StringIO()
    with Lines(stream).task(HOSTILE, 1):
        pass
    assert stream.getvalue().startswith(SHOWN.format(r"\n") + ": done in ")
    assert stream.getvalue().count("\n") == 1
    table = format_table(["name", "x"], [[HOSTILE, "1"]])
    assert table.splitlines()[2:] == [SHOWN.format(r"\n") + "  1"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_run_is_one_line_that_tells_its_stage_and_how_long_the_rest_takes(monkeypatch):
    """By a clock of the test's own: the stages ended took a second a share."""
    now = [0.0]
    monkeypatch.setattr("tfq.execution.progress.time.monotonic", lambda: now[0])
    plan = {"a": Planned("load", 10), "b": Planned("fit", 100), "c": Planned("check", 40)}
    course = Course(io.StringIO(), plan)
    with entered(course, "a"):
        now[0] += 10
    with entered(course, "b"), course.task("inner", 20) as advance:
        now[0] += 30
        assert course._left(plan["b"], 30.0) == 70 + 40  # by the pace
        advance(5)
        assert course._left(plan["b"], 30.0) == 30 / 5 * 15 + 40  # by the steps of the task, which are slower
        with entered(course, "a"):  # again, in a stage that follows it
            assert course._place == 2


def test_a_log_has_a_line_for_every_stage_and_a_terminal_none_that_stays():
    plan = {"a": Planned("load", 1), "b": Planned("fit", 1)}
    for stream in (io.StringIO(), Terminal()):
        course = Course(stream, plan)
        with course.task("before any stage", 3):
            pass
        with entered(course, "a"), course.task("inner", 2) as advance:
            advance(2)
        with entered(course, "not planned"):
            pass
        lines = [line for line in re.sub(r"[\d.]+ s$", "T", stream.getvalue(), flags=re.MULTILINE).split("\n") if line]
        if stream.isatty():
            assert stream.getvalue().count("\n") == 0
            assert stream.getvalue().endswith("\x1b[K")
            assert "1 of 2, load ..." in stream.getvalue()
        else:
            assert lines == ["before any stage: done in T", "1 of 2, load: done in T", "1 of 2, not planned: done in T"]
