"""Bytes for large bodies, the same in every process, in which a shifted or lost part shows."""

import random
import zlib

MEGABYTE = 1 << 20
# A prime length: no buffer size is a multiple of it.
_BLOCK = random.Random(0).randbytes(65_521)


def payload(size):
    """The first `size` bytes of the stream."""
    return (_BLOCK * (size // len(_BLOCK) + 1))[:size]


def chunks(size):
    """The same in pieces."""
    while size > 0:
        yield _BLOCK[:size]
        size -= len(_BLOCK)


class Checksum:
    """Counts and sums up what is fed to it; equal when count and sum are."""

    def __init__(self, data=b""):
        self.size = 0
        self.crc = 0
        self.feed(data)

    def feed(self, data):
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def __str__(self):
        return f"{self.size}:{self.crc:08x}"
