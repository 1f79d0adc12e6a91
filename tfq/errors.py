"""The one exception type for what a user can cause and can put right."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or an impossible request, said in one line.

    The message says what was got, what was expected and what to do. It is raised where the input
    enters; the commands in `tools/` print it without a traceback and exit with code 2.
    """


def described(error: BaseException) -> str:
    """Kind and message of an error in the user's code, on one line. An exit is called by its name."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r}), which would end tfq"
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


class VerificationError(UserError):
    """The exported file is not what the `QuantizationSpec` says; names the tensor and its layer."""
