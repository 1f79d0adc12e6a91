"""Messages are one line that a terminal can show, whatever name out of a file stands in them."""

from __future__ import annotations

import pytest

from tfq.errors import UserError, VerificationError, printable


@pytest.mark.parametrize("kind", [UserError, VerificationError])
@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain words, 'quoted'; more", "plain words, 'quoted'; more"),
        ("Grüße 你好", "Grüße 你好"),
        ("two\nlines\tand\r\nmore", "two lines and  more"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("back\bspace \x9b31m", r"back\x08space \x9b31m"),
        ("\u202eright to left", r"\u202eright to left"),
        ("path \udcff.keras", r"path \udcff.keras"),
    ],
)
def test_a_message_is_one_line_that_can_be_shown(kind, given, shown):
    message = str(kind(given))
    assert message == shown
    assert message.isprintable()
    message.encode()


def test_what_is_printable_stays():
    text = "".join(map(chr, range(32, 127)))
    assert printable(text) == text
