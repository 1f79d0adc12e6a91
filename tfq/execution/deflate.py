"""Deflate, as small as zlib makes it.

Weights are noise to a search for repetitions: matches of three or four bytes cost more than the bytes themselves
coded by how often they occur. zlib's strategies say how much it searches; which is best depends on the bits of the
weights (on 4-bit grids "filtered" takes some 10 % less than the default), so all are tried.
"""

from __future__ import annotations

import concurrent.futures
import zlib

ZLIB, GZIP, RAW = zlib.MAX_WBITS, 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
"""Frames: 6 bytes, 18 bytes, none."""
_LEVEL, _MEMORY = 9, 9
_WORTH_THREADS = 2**20  # bytes: costs deflate every layer at every precision, and most are far smaller
_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_RLE, zlib.Z_HUFFMAN_ONLY)


def deflated(content: bytes, *, frame: int = ZLIB) -> bytes:
    """`content` as a deflate stream of level 9 in the given frame, the shortest of all strategies; no name, no time."""

    def by(strategy: int) -> bytes:
        compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, frame, _MEMORY, strategy)
        return compressor.compress(content) + compressor.flush()

    if len(content) < _WORTH_THREADS:
        return min(map(by, _STRATEGIES), key=len)
    with concurrent.futures.ThreadPoolExecutor(len(_STRATEGIES)) as pool:  # zlib lets other threads run
        return min(pool.map(by, _STRATEGIES), key=len)
