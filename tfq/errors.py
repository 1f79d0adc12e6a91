"""The one exception type for what a user can cause and can put right."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey: white space becomes a blank, the rest an escape.

    Names out of files stand in messages. A newline in one would look like a second message, an escape sequence
    could hide the first, and a lone surrogate (a byte of a path that is not UTF-8) cannot be printed at all.
    """
    return "".join(
        c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode("ascii") for c in text
    )


class UserError(Exception):
    """Bad input or an impossible request, said in one line.

    The message says what was got, what was expected and what to do. It is raised where the input
    enters; the commands in `tools/` print it without a traceback and exit with code 2. Whatever was
    put into it, the message is one line that a terminal can show.
    """

    def __init__(self, message: object = ""):
        super().__init__(printable(str(message)))


def described(error: BaseException) -> str:
    """Kind and message of an error in the user's code, on one line. An exit is called by its name."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r}), which would end tfq"
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


class VerificationError(UserError):
    """The exported file is not what the `QuantizedModel` says; names the tensor and its layer."""
