"""pipe.py: reading and writing pipes, FIFOs, sockets, terminals."""

import asyncio
import errno
import logging
import os
import socket

import pytest

from helpers import WINDOWS, RecordingProtocol, open_fds
from pipe_helpers import KINDS, read_all, reading, writing
from tcp_helpers import in_executor, pattern, run, turns, until

pytestmark = pytest.mark.skipif(WINDOWS, reason="pipes, FIFOs and terminals of POSIX")

MUCH = 1 << 20


# ------------------------------------------------------------ reading


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_received(loop, kind, tmp_path):
    async def main():
        async with reading(loop, kind, tmp_path) as (transport, protocol, peer):
            assert isinstance(transport, asyncio.ReadTransport)
            assert protocol.names == ["connection_made"]
            peer.write(b"one")
            assert await protocol.received(3) == b"one"
            peer.write(b"two")
            assert await protocol.received(6) == b"onetwo"
            assert transport.get_protocol() is protocol

    run(loop, main())


@pytest.mark.parametrize("kind", ["pipe", "fifo", "socket"])
def test_end_of_file_is_told_and_closes(loop, kind, tmp_path):
    async def main():
        keep_open = RecordingProtocol(loop, keep_open_on_eof=True)
        async with reading(loop, kind, tmp_path, lambda: keep_open) as (transport, protocol, peer):
            peer.write(b"last")
            peer.close()
            assert await protocol.lost is None
            assert protocol.events == [
                ("connection_made",),
                ("data", b"last"),
                ("eof",),
                ("connection_lost", None),
            ]
            assert transport.is_closing()
            await turns()
            assert transport.get_extra_info("pipe").closed

    run(loop, main())


def test_end_of_a_terminal_is_eio(loop, tmp_path):
    async def main():
        async with reading(loop, "pty", tmp_path) as (_, protocol, peer):
            await in_executor(peer.write, b"last")
            peer.close()
            exc = await protocol.lost
            assert exc.errno == errno.EIO
            assert protocol.names == ["connection_made", "data", "connection_lost"]
            assert protocol.data == b"last"

    run(loop, main())


@pytest.mark.parametrize("kind", KINDS)
def test_much_arrives_whole_and_in_order(loop, kind, tmp_path):
    size = MUCH if kind != "pty" else 20_000

    def write(peer):
        view = memoryview(pattern(size))
        while view:
            view = view[peer.write(view) :]
        peer.close()

    async def main():
        async with reading(loop, kind, tmp_path) as (_, protocol, peer):
            writer = loop.run_in_executor(None, write, peer)
            await protocol.lost
            await writer
            assert protocol.data == pattern(size)

    run(loop, main())


@pytest.mark.parametrize("kind", KINDS)
def test_paused_reading_delivers_nothing(loop, kind, tmp_path):
    async def main():
        async with reading(loop, kind, tmp_path) as (transport, protocol, peer):
            assert transport.is_reading()
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            peer.write(b"later")
            await turns(10)
            assert not protocol.data
            transport.resume_reading()
            transport.resume_reading()
            assert transport.is_reading()
            assert await protocol.received(5) == b"later"
            transport.close()
            transport.pause_reading()
            transport.resume_reading()
            assert not transport.is_reading()

    run(loop, main())


def test_end_of_file_waits_for_who_is_paused(loop, tmp_path):
    async def main():
        async with reading(loop, "pipe", tmp_path) as (transport, protocol, peer):
            transport.pause_reading()
            peer.write(b"data")
            peer.close()
            await turns(10)
            assert protocol.names == ["connection_made"]
            transport.resume_reading()
            assert await protocol.lost is None
            assert protocol.names == ["connection_made", "data", "eof", "connection_lost"]

    run(loop, main())


def test_fifo_goes_on_with_another_writer(loop, tmp_path):
    """There is no end of a FIFO that somebody has open for writing all the time."""

    async def main():
        async with reading(loop, "fifo", tmp_path) as (_, protocol, peer):
            with open(tmp_path / "fifo", "wb", 0) as second:
                peer.write(b"one")
                peer.close()
                await protocol.received(3)
                second.write(b"two")
                assert await protocol.received(6) == b"onetwo"
            assert await protocol.lost is None

    run(loop, main())


def test_protocol_can_be_replaced(loop, tmp_path):
    async def main():
        async with reading(loop, "pipe", tmp_path) as (transport, first, peer):
            second = RecordingProtocol(loop)
            transport.set_protocol(second)
            peer.write(b"data")
            assert await second.received(4) == b"data"
            assert transport.get_protocol() is second
            assert not first.data

    run(loop, main())


def test_closing_a_reader_tells_the_protocol(loop, tmp_path):
    async def main():
        async with reading(loop, "pipe", tmp_path) as (transport, protocol, peer):
            peer.write(b"unread")
            transport.close()
            transport.close()
            assert transport.is_closing()
            assert await protocol.lost is None
            assert protocol.names == ["connection_made", "connection_lost"]
            await turns()
            assert transport.get_extra_info("pipe").closed
            with pytest.raises(BrokenPipeError):
                peer.write(b"x")

    run(loop, main())


def test_reader_survives_an_error_of_its_protocol(loop, loop_errors, tmp_path):
    """Other than with sockets: asyncio's pipe transports go on."""

    class Failing(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            if len(self.data) == 1:
                raise ZeroDivisionError

    async def main():
        factory = lambda: Failing(loop)  # noqa: E731
        async with reading(loop, "pipe", tmp_path, factory) as (_, protocol, peer):
            peer.write(b"1")
            await protocol.received(1)
            peer.write(b"2")
            await protocol.received(2)

    run(loop, main())
    assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)


# ------------------------------------------------------------ writing


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_is_read(loop, kind, tmp_path):
    async def main():
        async with writing(loop, kind, tmp_path) as (transport, protocol, peer):
            assert isinstance(transport, asyncio.WriteTransport)
            assert transport.can_write_eof()
            transport.write(b"one")
            transport.write(bytearray(b"two"))
            transport.write(memoryview(b"three"))
            transport.write(b"")
            transport.writelines([b"four", b"five"])
            received = b""
            while len(received) < len(b"onetwothreefourfive"):  # a terminal may tell it in pieces
                received += await in_executor(os.read, peer.fileno(), 100)
            assert received == b"onetwothreefourfive"
            assert protocol.names == ["connection_made"]
            assert transport.get_write_buffer_size() == 0

    run(loop, main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["close", "write_eof"])
def test_end_of_writing_comes_after_what_is_buffered(loop, kind, method, tmp_path):
    async def main():
        async with writing(loop, kind, tmp_path) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            assert transport.get_write_buffer_size() > 0
            getattr(transport, method)()
            getattr(transport, method)()
            assert transport.is_closing()
            transport.write(b"lost")
            await turns(5)
            assert not protocol.lost.done()
            assert await in_executor(read_all, peer) == pattern(MUCH)
            assert await protocol.lost is None
            await turns()
            assert transport.get_extra_info("pipe").closed

    run(loop, main())


def test_bytearray_may_change_after_write(loop, tmp_path):
    async def main():
        async with writing(loop, "pipe", tmp_path) as (transport, _, peer):
            data = bytearray(pattern(MUCH))
            transport.write(data)
            data[:] = bytes(MUCH)
            transport.close()
            assert await in_executor(read_all, peer) == pattern(MUCH)

    run(loop, main())


def test_protocol_is_paused_and_resumed(loop, tmp_path):
    async def main():
        async with writing(loop, "pipe", tmp_path) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=1000, low=100)
            assert transport.get_write_buffer_limits() == (100, 1000)
            transport.write(pattern(MUCH))
            assert protocol.names == ["connection_made", "pause_writing"]
            transport.close()
            await in_executor(read_all, peer)
            await protocol.lost
            assert protocol.names == [
                "connection_made",
                "pause_writing",
                "resume_writing",
                "connection_lost",
            ]

    run(loop, main())


@pytest.mark.parametrize("kind", ["pipe", "fifo", "socket"])
def test_writer_notices_that_the_reader_has_gone(loop, kind, tmp_path):
    async def main():
        async with writing(loop, kind, tmp_path) as (transport, protocol, peer):
            peer.close()
            assert await protocol.lost is None
            assert transport.is_closing()

    run(loop, main())


def test_half_closed_socket_counts_as_gone(loop, tmp_path):
    async def main():
        async with writing(loop, "socket", tmp_path) as (_, protocol, peer):
            with socket.socket(fileno=os.dup(peer.fileno())) as sock:
                sock.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None

    run(loop, main())


@pytest.mark.parametrize("kind", ["pipe", "fifo", "socket"])
def test_reader_has_gone_with_bytes_left_to_write(loop, kind, tmp_path):
    async def main():
        async with writing(loop, kind, tmp_path) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            await turns()
            peer.close()
            assert isinstance(await protocol.lost, (BrokenPipeError, ConnectionResetError))
            assert transport.get_write_buffer_size() == 0

    run(loop, main())


def test_writing_to_a_pipe_without_a_reader(loop, tmp_path):
    async def main():
        async with writing(loop, "pipe", tmp_path) as (transport, protocol, peer):
            peer.close()
            transport.write(b"x")
            assert transport.is_closing()
            assert isinstance(await protocol.lost, BrokenPipeError)

    run(loop, main())


@pytest.mark.parametrize("kind", ["pipe", "fifo"])
def test_unread_data_is_no_hangup(loop, kind, tmp_path):
    async def main():
        async with writing(loop, kind, tmp_path) as (transport, protocol, peer):
            transport.write(b"unread")
            await turns(10)
            assert protocol.names == ["connection_made"]
            assert peer.read(100) == b"unread"

    run(loop, main())


@pytest.mark.veloop_only("asyncio takes what comes the other way for the end")
def test_what_a_socket_writers_peer_says_is_no_hangup(loop, tmp_path):
    async def main():
        async with writing(loop, "socket", tmp_path) as (transport, protocol, peer):
            os.write(peer.fileno(), b"hello")
            await turns(10)
            transport.write(b"data")
            assert await in_executor(os.read, peer.fileno(), 100) == b"data"
            assert protocol.names == ["connection_made"]
            peer.close()
            await protocol.lost

    run(loop, main())


def test_abort_loses_what_is_buffered(loop, tmp_path):
    async def main():
        async with writing(loop, "pipe", tmp_path) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            transport.abort()
            assert transport.is_closing()
            assert await protocol.lost is None
            await turns()
            assert len(await in_executor(read_all, peer)) < MUCH

    run(loop, main())


def test_writing_after_the_end_warns(loop, caplog, tmp_path):
    async def main():
        async with writing(loop, "pipe", tmp_path) as (transport, protocol, _):
            transport.close()
            await protocol.lost
            with caplog.at_level(logging.WARNING, "asyncio"):
                for _ in range(10):
                    transport.write(b"lost")

    run(loop, main())
    assert {record.message for record in caplog.records} == {
        "pipe closed by peer or os.write(pipe, data) raised exception."
    }


# ------------------------------------------------------------ both, and streams


@pytest.mark.veloop_only("asyncio ends the reading with the writing: one registration of the fd")
def test_terminal_is_read_and_written_through_one_descriptor(loop):
    """uvloop#262."""

    async def main():
        master, slave = os.openpty()
        reader = RecordingProtocol(loop)
        transport, _ = await loop.connect_read_pipe(lambda: reader, open(slave, "rb", 0))
        writer, _ = await loop.connect_write_pipe(
            asyncio.Protocol, open(slave, "wb", 0, closefd=False)
        )
        os.write(master, b"in\n")
        assert await reader.received(3) == b"in\n"
        writer.write(b"out")
        received = b""
        while b"out" not in received:
            received += await in_executor(os.read, master, 100)
        writer.close()
        await turns()
        os.write(master, b"more\n")
        assert await reader.received(8) == b"in\nmore\n"
        transport.close()
        await turns()
        os.close(master)

    run(loop, main())


def test_two_writers_over_one_descriptor(loop):
    """Standard output and standard error may be the same file."""

    async def main():
        reading_fd, writing_fd = os.pipe()
        one, _ = await loop.connect_write_pipe(asyncio.Protocol, open(writing_fd, "wb", 0))
        two, _ = await loop.connect_write_pipe(
            asyncio.Protocol, open(writing_fd, "wb", 0, closefd=False)
        )
        one.write(b"1")
        two.write(b"2")
        two.close()
        await turns()
        one.write(b"1")
        one.close()
        await turns()
        assert os.read(reading_fd, 100) == b"121"
        assert os.read(reading_fd, 100) == b""
        os.close(reading_fd)

    run(loop, main())


def test_streams_over_a_pipe(loop):
    async def main():
        reading_fd, writing_fd = os.pipe()
        reader = asyncio.StreamReader(limit=1000)
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), open(reading_fd, "rb", 0)
        )
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, open(writing_fd, "wb", 0)
        )
        writer = asyncio.StreamWriter(transport, protocol, None, loop)

        async def write():
            for start in range(0, MUCH, 50_000):
                writer.write(pattern(MUCH)[start : start + 50_000])
                await writer.drain()
            writer.close()

        writing_task = asyncio.ensure_future(write())
        assert await reader.read() == pattern(MUCH)
        await writing_task
        await turns()

    run(loop, main())


def test_descriptors_are_closed_with_the_transport(loop, tmp_path):
    async def main():
        async with reading(loop, "pipe", tmp_path):
            before = open_fds()  # with what the loop keeps for itself
            async with writing(loop, "pipe", tmp_path):
                pass
            async with reading(loop, "socket", tmp_path):
                pass
            assert open_fds() == before

    run(loop, main())


def test_sockets_other_direction_is_left_alone(loop):
    async def main():
        mine, peer = socket.socketpair()
        with peer:
            protocol = RecordingProtocol(loop)
            file = open(mine.detach(), "rb", 0)
            transport, _ = await loop.connect_read_pipe(lambda: protocol, file)
            peer.send(b"data")
            await protocol.received(4)
            os.write(file.fileno(), b"answer")
            assert peer.recv(100) == b"answer"
            transport.close()
            await until(protocol.lost.done)

    run(loop, main())
