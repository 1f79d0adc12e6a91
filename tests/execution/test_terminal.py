"""Names from files do not steer the terminal."""

import io
import os

from hypothesis import given
from hypothesis import strategies as st

from tfq.execution.progress import Lines
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
