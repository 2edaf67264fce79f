"""pipe.py on Windows: the pipes that have handles. What POSIX calls a pipe: test_pipe.py."""

import asyncio
import os

import pytest

from helpers import WINDOWS, RecordingProtocol
from tcp_helpers import in_executor, pattern, run, turns

pytestmark = [
    pytest.mark.skipif(not WINDOWS, reason="about pipes as Windows has them"),
    pytest.mark.proactor,
]

if WINDOWS:
    from asyncio.windows_utils import PipeHandle, pipe

MUCH = 1 << 20


def handles(duplex=True):
    """(reading, writing) PipeHandles; asyncio can only write to pipes that can be read, too."""
    return tuple(map(PipeHandle, pipe(duplex=duplex)))


def one_way():
    return handles(duplex=False)


def files():
    """The same as file objects, without overlapped I/O: what os.pipe() gives."""
    reading, writing = os.pipe()
    return open(reading, "rb", 0), open(writing, "wb", 0)


MADE_BY = [
    pytest.param(handles, id="handles"),
    pytest.param(one_way, id="one way", marks=pytest.mark.veloop_only("refuses them")),
    pytest.param(files, id="files", marks=pytest.mark.veloop_only("refuses os.pipe()")),
]


@pytest.mark.parametrize("make", MADE_BY)
def test_what_is_written_is_received(loop, make):
    async def main():
        reading, writing = make()
        reader, received = await loop.connect_read_pipe(lambda: RecordingProtocol(loop), reading)
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, writing)
        assert reader.get_extra_info("pipe") is reading
        writer.write(b"one")
        assert await received.received(3) == b"one"
        writer.write(b"two")
        assert await received.received(6) == b"onetwo"
        writer.close()
        assert await received.lost is None
        assert received.names == ["connection_made", "data", "eof", "connection_lost"]

    run(loop, main())


@pytest.mark.parametrize("make", MADE_BY)
def test_much_arrives_whole_and_in_order(loop, make):
    async def main():
        reading, writing = make()
        _, received = await loop.connect_read_pipe(lambda: RecordingProtocol(loop), reading)
        writer, _ = await loop.connect_write_pipe(lambda: RecordingProtocol(loop), writing)
        writer.write(pattern(MUCH))
        writer.write_eof()
        await received.lost
        assert received.data == pattern(MUCH)

    run(loop, main())


def test_reader_that_goes_is_told_to_the_writer(loop):
    async def main():
        reading, writing = handles()
        writer, protocol = await loop.connect_write_pipe(lambda: RecordingProtocol(loop), writing)
        await turns()
        assert not protocol.lost.done()
        reading.close()
        await protocol.lost
        assert writer.is_closing()

    run(loop, main())


@pytest.mark.veloop_only("refuses such pipes")
def test_reader_that_goes_is_told_to_who_writes(loop):
    async def main():
        reading, writing = one_way()
        writer, protocol = await loop.connect_write_pipe(lambda: RecordingProtocol(loop), writing)
        reading.close()
        writer.write(b"x")
        assert isinstance(await protocol.lost, BrokenPipeError)

    run(loop, main())


def test_pause_and_resume_reading(loop):
    async def main():
        reading, writing = handles()
        reader, received = await loop.connect_read_pipe(lambda: RecordingProtocol(loop), reading)
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, writing)
        reader.pause_reading()
        writer.write(b"one")
        await in_executor(int)
        await turns()
        assert received.data == b""
        reader.resume_reading()
        assert await received.received(3) == b"one"
        writer.close()
        await received.lost

    run(loop, main())


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
@pytest.mark.veloop_only("asyncio's half-made transport complains when it is collected")
def test_regular_file_is_refused_and_left_open(loop, method, tmp_path):
    with open(tmp_path / "file", "wb+") as file:
        with pytest.raises(ValueError, match="Pipe transport is"):
            run(loop, getattr(loop, method)(asyncio.Protocol, file))
        assert not file.closed
