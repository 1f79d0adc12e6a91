"""A bound on what native code may take that trusts a file; the shapes that it computes are known to it alone."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

_MORE_BYTES, _SHARE = 3 << 30, 128
# What is put back at the end of every block: several threads may be in one at the same time.
_SOFT, _HARD = resource.getrlimit(resource.RLIMIT_AS)


@contextlib.contextmanager
def bounded_memory(file_bytes: int) -> Iterator[None]:
    """Within the block this process gets at most 3 GiB of addresses, and 128 times the file, beyond what it has.

    With several threads in such blocks the bound ends with the first that leaves.
    What asks for more is told that there is none: a MemoryError, or an error of the runtime.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _MORE_BYTES + _SHARE * file_bytes
    others = [limit for limit in (_SOFT, _HARD) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([most, *others]), _HARD))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (_SOFT, _HARD))
