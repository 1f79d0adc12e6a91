"""Files that a user names: only regular ones are opened, and no more of them is read than fits.

A pipe would wait for ever, a device such as /dev/zero never ends, and a socket cannot be read at all. So what is no
regular file is refused before it is opened for reading, and what is larger than its kind can be before it is read.
"""

from __future__ import annotations

import codecs
import os
import stat
import tempfile
from pathlib import Path

from tfq.errors import UserError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def kind_of(path: Path) -> str:
    """What is there, links followed: "a file", "a directory", "a pipe", "a socket", "a device", or "" for nothing.

    Raises OSError where the system cannot tell, and ValueError for a name that no file can have.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "a file")


def check_regular(path: Path, what: str) -> None:
    """Raises UserError, which calls the file `what`, unless it is a regular one that may be read."""
    try:
        kind = kind_of(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{what} cannot be read: {_reason(error)}") from error
    if not kind:
        raise UserError(f"{what} cannot be read: no such file")
    if kind != "a file":
        raise UserError(f"{what} cannot be read: it is {kind}, not a regular file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{what} may not be read by this user; change its permissions")


def read_regular(path: Path, *, what: str, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes, which messages call `what`.

    Raises UserError where it is not there, no regular file, too large, or cannot be read.
    """
    check_regular(path, what)
    try:
        # The file may have become a pipe since: that must not wait.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UserError(f"{what} cannot be read: {_reason(error)}") from error
    if len(content) > most:
        raise UserError(
            f"{what} is larger than the {most >> 20} MiB that are read of such a file; is it the right one?"
        )
    return content


def read_text(path: Path, *, what: str, most: int) -> str:
    """The text of a regular UTF-8 file, without a byte order mark; arguments and errors as in `read_regular`."""
    return decoded(read_regular(path, what=what, most=most), what)


def decoded(content: bytes, what: str) -> str:
    """UTF-8 as text, a byte order mark left out. Raises UserError, which calls it `what`, for anything else."""
    if content.startswith(_UTF_16):
        raise UserError(f"{what} is UTF-16 text; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is no UTF-8 text (byte {error.start} is 0x{content[error.start]:02x})") from error
    if "\0" in text:
        raise UserError(f"{what} is no text: it holds null bytes")
    return text


def check_encodable(text: str, what: str) -> None:
    """Raises UserError for text with null bytes, or from bytes that are no UTF-8, which no report could hold."""
    if "\0" in text:
        raise UserError(f"{what} is {text!a}, which holds a null byte")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{what} is {text!a}, whose bytes are no UTF-8; rename it") from error


def check_room(size: int, what: str) -> None:
    """Raises UserError where the folder for temporary files has no room for `size` bytes."""
    folder = tempfile.gettempdir()
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if size > free:
        raise UserError(
            f"{what} needs {size / 2**30:.1f} GiB of temporary files, and {folder} has {free / 2**30:.1f} GiB free;"
            " make room, set TMPDIR to another folder, or take fewer samples"
        )


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
