"""stream.py, writing: what may be written, flow control, writelines, write_eof, slow readers."""

import array
import asyncio
import socket
import threading

import pytest

from helpers import (
    Background,
    RecordingProtocol,
    drain,
    fill,
)
from tcp_helpers import MUCH, WAYS, in_executor, linked, pattern, run, turns, until, wired


def read_all(sock):
    """Until the end of the stream."""
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


# ------------------------------------------------------------ what may be written


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 1000, 1 << 16, MUCH])
def test_bytes_of_any_size_arrive(loop, way, size):
    data = pattern(size)

    async def main():
        async with wired(loop, way=way) as (transport, _, peer):
            transport.write(data)
            assert await in_executor(drain, peer, size) == data

    run(loop, main())


@pytest.mark.parametrize("size", [1000, MUCH])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_bytearray_and_memoryview_may_be_written(loop, kind, size):
    data = pattern(size)

    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(kind(data))
            assert await in_executor(drain, peer, size) == data

    run(loop, main())


def test_memoryview_slices_may_be_written(loop):
    data = pattern(10_000)

    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(memoryview(data)[100:9000])
            assert await in_executor(drain, peer, 8900) == data[100:9000]

    run(loop, main())


def test_memoryview_of_wide_items_is_sent_as_its_bytes(loop):
    numbers = array.array("Q", range(1000))

    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(memoryview(numbers))
            assert await in_executor(drain, peer, 8000) == numbers.tobytes()

    run(loop, main())


@pytest.mark.veloop_only("asyncio takes the number of bytes sent for a number of items")
def test_large_memoryview_of_wide_items_is_sent_as_its_bytes(loop):
    numbers = array.array("Q", range(MUCH // 8))

    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(memoryview(numbers))
            assert transport.get_write_buffer_size() > 0
            assert await in_executor(drain, peer, MUCH) == numbers.tobytes()

    run(loop, main())


@pytest.mark.veloop_only("asyncio's socket refuses them, which ends the connection")
@pytest.mark.parametrize(
    "view",
    [
        memoryview(pattern(1000))[::2],
        memoryview(pattern(1000))[::-1],
        memoryview(array.array("H", range(500)))[::3],
    ],
    ids=["every-second", "backwards", "wide"],
)
def test_memoryview_with_strides_is_sent_as_its_bytes(loop, view):
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(view)
            transport.writelines([view, b"between", view])
            expected = view.tobytes() * 2 + b"between" + view.tobytes()
            assert await in_executor(drain, peer, len(expected)) == expected

    run(loop, main())


@pytest.mark.parametrize(
    "make", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "memoryview"]
)
def test_buffer_changed_after_write_does_not_change_what_is_sent(loop, make):
    # demand.md, bug 13: what is queued must be a copy.
    data = pattern(MUCH)

    async def main():
        async with wired(loop) as (transport, _, peer):
            buffer = make(data)
            transport.write(buffer)
            assert transport.get_write_buffer_size() > 0
            buffer[:] = bytes(MUCH)
            assert await in_executor(drain, peer, MUCH) == data

    if isinstance(loop, asyncio.SelectorEventLoop):
        pytest.skip("not on stock asyncio: since 3.12 it sends what the buffer holds later")
    run(loop, main())


@pytest.mark.veloop_only("since 3.12 asyncio sends what the buffers hold later")
def test_buffers_changed_after_writelines_do_not_change_what_is_sent(loop):
    data = pattern(MUCH)

    async def main():
        async with wired(loop) as (transport, _, peer):
            buffers = [bytearray(data[: MUCH // 2]), bytearray(data[MUCH // 2 :])]
            transport.writelines(buffers)
            for buffer in buffers:
                buffer[:] = bytes(len(buffer))
            assert await in_executor(drain, peer, MUCH) == data

    run(loop, main())


def test_bytearray_may_be_resized_after_write(loop):
    # Nothing holds on to its memory.
    async def main():
        async with wired(loop) as (transport, _, peer):
            buffer = bytearray(b"hello")
            transport.write(buffer)
            buffer.clear()
            buffer.extend(b"x" * 1000)
            assert drain(peer, 5) == b"hello"

    run(loop, main())


@pytest.mark.veloop_only("asyncio queues a view, which pins the bytearray")
def test_bytearray_may_be_resized_while_it_is_queued(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            buffer = bytearray(pattern(MUCH))
            transport.write(buffer)
            assert transport.get_write_buffer_size() > 0
            buffer.clear()
            assert await in_executor(drain, peer, MUCH) == pattern(MUCH)

    run(loop, main())


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"")], ids=["b", "ba", "mv"])
def test_nothing_may_be_written(loop, empty):
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(empty)
            transport.writelines([empty, empty])
            transport.writelines([])
            transport.write(b"x")
            transport.writelines([empty, b"y", empty])
            assert drain(peer, 2) == b"xy"

    run(loop, main())


@pytest.mark.parametrize(
    "data", [None, "text", 5, 1.5, [b"x"], object(), array.array("b", b"x")], ids=repr
)
def test_what_is_no_bytes_cannot_be_written(loop, data):
    async def main():
        async with wired(loop) as (transport, _, peer):
            with pytest.raises(TypeError, match=r"^data argument must be a bytes") as caught:
                transport.write(data)
            assert type(data).__name__ in str(caught.value)
            transport.write(b"fine")
            assert drain(peer, 4) == b"fine"

    run(loop, main())


def test_released_memoryview_cannot_be_written(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            view = memoryview(b"gone")
            view.release()
            with pytest.raises(ValueError, match="released memoryview"):
                transport.write(view)
            transport.write(b"fine")
            assert drain(peer, 4) == b"fine"

    run(loop, main())


def test_many_small_writes_arrive_in_order(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            for number in range(20_000):
                transport.write(b"%08d" % number)
            expected = b"".join(b"%08d" % number for number in range(20_000))
            assert await in_executor(drain, peer, 160_000) == expected

    run(loop, main())


def test_small_writes_behind_a_full_socket_arrive_in_order(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(pattern(MUCH))
            small = [b"%08d" % number for number in range(5000)]
            for data in small:
                transport.write(data)
            transport.write(pattern(MUCH))
            expected = pattern(MUCH) + b"".join(small) + pattern(MUCH)
            assert await in_executor(drain, peer, len(expected)) == expected

    run(loop, main())


@pytest.mark.slow
def test_fifty_megabytes_through_a_slow_reader(loop):
    size = 50 * 1024 * 1024
    data = pattern(size)

    def read(sock):
        return b"".join(iter(lambda: sock.recv(7001), b""))

    async def main():
        async with wired(loop) as (transport, protocol, peer):
            reading = loop.create_task(in_executor(read, peer))
            transport.write(data)
            transport.close()
            assert await reading == data
            assert await protocol.lost is None

    run(loop, main())


# ------------------------------------------------------------ flow control


def test_buffer_size_is_what_the_kernel_did_not_take(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            assert transport.get_write_buffer_size() == 0
            transport.write(b"small")
            assert transport.get_write_buffer_size() == 0
            transport.write(bytes(MUCH))
            size = transport.get_write_buffer_size()
            assert 0 < size < MUCH
            transport.write(b"x" * 1000)
            assert transport.get_write_buffer_size() == size + 1000
            transport.writelines([b"y" * 500] * 2)
            assert transport.get_write_buffer_size() == size + 2000
            await in_executor(drain, peer, 5 + MUCH + 2000)
            await until(lambda: transport.get_write_buffer_size() == 0)

    run(loop, main())


def test_buffer_size_goes_down_as_the_peer_reads(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(bytes(MUCH))
            size = transport.get_write_buffer_size()
            await in_executor(drain, peer, MUCH // 2)
            await until(lambda: transport.get_write_buffer_size() < size)
            await in_executor(drain, peer, MUCH // 2)
            await until(lambda: transport.get_write_buffer_size() == 0)

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_protocol_is_paused_and_resumed(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            transport.write(bytes(MUCH))
            # At once, within write().
            assert protocol.names[-1] == "pause_writing"
            transport.write(bytes(MUCH))
            assert protocol.names.count("pause_writing") == 1
            await in_executor(drain, peer, 2 * MUCH)
            await until(lambda: protocol.names[-1] == "resume_writing")
            assert protocol.names == ["connection_made", "pause_writing", "resume_writing"]

    run(loop, main())


def test_protocol_is_resumed_at_the_low_water_mark(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=2 << 20, low=1 << 20)
            transport.write(bytes(MUCH))
            assert protocol.names[-1] == "pause_writing"
            sizes = []
            protocol.resume_writing = lambda: sizes.append(transport.get_write_buffer_size())
            await in_executor(drain, peer, MUCH)
            await until(lambda: sizes)
            assert sizes[0] <= 1 << 20

    run(loop, main())


def test_limits_have_asyncios_defaults_and_rules(loop):
    async def main():
        async with wired(loop) as (transport, _, _):
            limits = transport.get_write_buffer_limits
            assert limits() == (16 * 1024, 64 * 1024)
            transport.set_write_buffer_limits(high=1000)
            assert limits() == (250, 1000)
            transport.set_write_buffer_limits(low=1000)
            assert limits() == (1000, 4000)
            transport.set_write_buffer_limits(high=10, low=10)
            assert limits() == (10, 10)
            transport.set_write_buffer_limits(high=0)
            assert limits() == (0, 0)
            transport.set_write_buffer_limits()
            assert limits() == (16 * 1024, 64 * 1024)

    run(loop, main())


@pytest.mark.parametrize(
    ("high", "low"), [(10, 11), (-1, None), (None, -1), (0, 1), (5, -5)], ids=str
)
def test_impossible_limits_are_refused(loop, high, low):
    async def main():
        async with wired(loop) as (transport, _, _):
            with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\)") as caught:
                transport.set_write_buffer_limits(high=high, low=low)
            for value in (high, low):
                assert value is None or f"({value})" in str(caught.value)
            assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)

    run(loop, main())


def test_lowering_the_limit_below_what_is_buffered_pauses(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=1 << 30)
            transport.write(bytes(MUCH))
            assert "pause_writing" not in protocol.names
            transport.set_write_buffer_limits(high=1000)
            assert protocol.names[-1] == "pause_writing"
            await in_executor(drain, peer, MUCH)
            await until(lambda: protocol.names[-1] == "resume_writing")

    run(loop, main())


def test_limit_zero_pauses_whenever_something_is_buffered(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=0)
            transport.write(b"goes out at once")
            assert "pause_writing" not in protocol.names
            transport.write(bytes(MUCH))
            assert "pause_writing" in protocol.names
            await in_executor(drain, peer, 16 + MUCH)
            await until(lambda: protocol.names[-1] == "resume_writing")

    run(loop, main())


@pytest.mark.stock_since("3.14.0", "writelines did not pause the protocol")
def test_writelines_pauses_too(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.writelines([bytes(MUCH // 2)] * 2)
            assert protocol.names[-1] == "pause_writing"
            await in_executor(drain, peer, MUCH)
            await until(lambda: protocol.names[-1] == "resume_writing")

    run(loop, main())


def test_writing_more_when_resumed(loop):
    # A producer at full speed, that respects the limits.
    total = 40 * (1 << 20)

    class Producer(RecordingProtocol):
        sent = most = 0
        paused = False

        def connection_made(self, transport):
            super().connection_made(transport)
            self.produce()

        def produce(self):
            while not self.paused and self.sent < total:
                self.transport.write(bytes(50_000))
                self.sent += 50_000
                self.most = max(self.most, self.transport.get_write_buffer_size())
            if self.sent >= total:
                # Not at once: closed in resume_writing, asyncio before gh-156512 ends it twice.
                self.loop.call_soon(self.transport.close)

        def pause_writing(self):
            self.paused = True

        def resume_writing(self):
            self.paused = False
            self.produce()

    async def main():
        async with wired(loop, lambda: Producer(loop)) as (_, protocol, peer):
            received = await in_executor(read_all, peer)
            assert len(received) == protocol.sent
            assert await protocol.lost is None
            assert protocol.most <= 64 * 1024 + 50_000

    run(loop, main())


@pytest.mark.stock_since("3.14.9", "gh-156512: connection_lost was called twice")
@pytest.mark.parametrize("method", ["close", "abort"])
def test_transport_may_be_ended_when_resumed(loop, method):
    class Protocol(RecordingProtocol):
        def resume_writing(self):
            super().resume_writing()
            getattr(self.transport, method)()

    async def main():
        async with wired(loop, lambda: Protocol(loop)) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            assert await in_executor(drain, peer, MUCH) == pattern(MUCH)
            assert await protocol.lost is None
            assert protocol.names[-2:] == ["resume_writing", "connection_lost"]

    run(loop, main())


class Refilled:
    """A transport with a queue that the next look at the socket empties.

    What is written just then must not be taken for sent: the news that the queue is empty may be
    older than that. How many turns it takes until the loop looks is not fixed, so tests try some.
    """

    def __init__(self, transport, peer):
        self.expected = b""
        self.received = []
        self.ended = False
        self._transport = transport
        self._peer = peer
        peer.setblocking(False)

    def write(self, data):
        self.expected += data  # first, for the write may lead to another one
        self._transport.write(data)

    def fill(self):
        while not self._transport.get_write_buffer_size():
            self.write(pattern(100_000))
        self.read()

    def read(self):
        """Whatever is there. True once the stream has ended."""
        try:
            while part := self._peer.recv(1 << 20):
                self.received.append(part)
        except BlockingIOError:
            return False
        self.ended = True
        return True

    def check(self):
        received = b"".join(self.received)
        assert len(received) == len(self.expected)
        assert received == self.expected


@pytest.mark.parametrize("count", range(4))
def test_close_after_a_write_in_the_turn_that_empties_the_queue_loses_nothing(loop, count):
    async def main():
        for _ in range(4):
            async with wired(loop) as (transport, protocol, peer):
                refilled = Refilled(transport, peer)
                refilled.fill()
                await turns(count)
                refilled.write(pattern(MUCH))
                transport.close()
                await until(refilled.read)
                refilled.check()
                assert await protocol.lost is None

    run(loop, main())


@pytest.mark.parametrize("count", range(4))
def test_buffer_size_is_right_in_the_turn_that_empties_the_queue(loop, count):
    async def main():
        for _ in range(4):
            async with wired(loop) as (transport, protocol, peer):
                refilled = Refilled(transport, peer)
                refilled.fill()
                await turns(count)
                refilled.write(pattern(MUCH))
                resumed = protocol.names.count("resume_writing")
                await turns(5)
                # Nobody has read: much of it is still here, and the protocol still paused.
                assert transport.get_write_buffer_size() > 0
                assert protocol.names[-1] == "pause_writing"
                assert protocol.names.count("resume_writing") == resumed
                size = sum(map(len, refilled.received))
                while size < len(refilled.expected):
                    refilled.read()
                    size = sum(map(len, refilled.received))
                    await asyncio.sleep(0)
                refilled.check()
                await until(lambda: protocol.names[-1] == "resume_writing")

    run(loop, main())


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_flow_control_that_raises_is_reported_and_harmless(loop, loop_errors, method):
    class Failing(RecordingProtocol):
        pass

    def fail(self):
        raise ZeroDivisionError(method)

    setattr(Failing, method, fail)

    async def main():
        async with wired(loop, lambda: Failing(loop)) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            assert await in_executor(drain, peer, MUCH) == pattern(MUCH)
            await until(lambda: loop_errors.items)
            assert not transport.is_closing()
            return transport, protocol

    transport, protocol = run(loop, main())
    context = loop_errors.take_one()
    assert context["message"] == f"protocol.{method}() failed"
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["transport"] is transport
    assert context["protocol"] is protocol


# ------------------------------------------------------------ writelines


@pytest.mark.parametrize(
    "make",
    [list, tuple, iter, lambda pieces: (piece for piece in pieces)],
    ids=["list", "tuple", "iterator", "generator"],
)
def test_writelines_takes_any_iterable(loop, make):
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.writelines(make([b"one", b"two", b"three"]))
            assert drain(peer, 11) == b"onetwothree"

    run(loop, main())


@pytest.mark.parametrize("scale", [1, 1 << 18], ids=["small", "large"])
def test_writelines_takes_every_kind_together(loop, scale):
    pieces = [
        b"a" * scale,
        bytearray(b"b" * scale),
        memoryview(b"c" * scale),
        b"",
        memoryview(bytearray(b"d" * scale))[: scale // 2],
        b"e",
    ]
    expected = b"".join(pieces)

    async def main():
        async with wired(loop) as (transport, _, peer):
            for _ in range(5):
                transport.writelines(pieces)
            assert await in_executor(drain, peer, 5 * len(expected)) == 5 * expected

    run(loop, main())


def test_writelines_of_thousands_of_pieces(loop):
    # More than the kernel takes in one call (IOV_MAX), and more than fits at once.
    pieces = [b"%08d" % number * 125 for number in range(5000)]

    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.writelines(pieces)
            assert await in_executor(drain, peer, 5_000_000) == b"".join(pieces)

    run(loop, main())


def test_writelines_between_writes_keeps_the_order(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(pattern(MUCH))
            transport.writelines([b"one", b"two"] * 10_000)
            transport.write(b"three")
            transport.writelines([pattern(MUCH), b"end"])
            expected = pattern(MUCH) + b"onetwo" * 10_000 + b"three" + pattern(MUCH) + b"end"
            assert await in_executor(drain, peer, len(expected)) == expected

    run(loop, main())


@pytest.mark.parametrize("bad", [None, "text", 5])
def test_writelines_with_a_wrong_piece_sends_nothing(loop, bad):
    async def main():
        async with wired(loop) as (transport, _, peer):
            with pytest.raises(TypeError):
                transport.writelines([b"good", bad, b"good"])
            transport.write(b"fine")
            assert drain(peer, 4) == b"fine"

    run(loop, main())


@pytest.mark.parametrize("bad", [None, 5])
def test_writelines_of_what_cannot_be_iterated(loop, bad):
    async def main():
        async with wired(loop) as (transport, _, peer):
            if bad is None and isinstance(loop, asyncio.SelectorEventLoop):
                return  # since 3.12 it means nothing to write there
            with pytest.raises(TypeError):
                transport.writelines(bad)
            transport.write(b"fine")
            assert drain(peer, 4) == b"fine"

    run(loop, main())


# ------------------------------------------------------------ write_eof


@pytest.mark.parametrize("way", WAYS)
def test_write_eof_closes_one_half(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            assert transport.can_write_eof() is True
            transport.write(b"request")
            transport.write_eof()
            assert drain(peer, 7) == b"request"
            assert await in_executor(peer.recv, 1) == b""
            assert not transport.is_closing()
            peer.sendall(b"answer")
            assert await protocol.received(6) == b"answer"
            peer.close()
            assert await protocol.lost is None

    run(loop, main())


def test_write_eof_comes_after_what_is_buffered(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(pattern(MUCH))
            transport.write_eof()
            assert await in_executor(read_all, peer) == pattern(MUCH)
            assert not transport.is_closing()

    run(loop, main())


def test_write_eof_again_does_nothing(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write_eof()
            transport.write_eof()
            assert await in_executor(peer.recv, 1) == b""
            transport.write_eof()

    run(loop, main())


@pytest.mark.parametrize("data", [b"more", b""])
def test_write_after_write_eof_is_refused(loop, data):
    async def main():
        async with wired(loop) as (transport, _, _):
            transport.write_eof()
            with pytest.raises(RuntimeError, match=r"^Cannot call write\(\) after write_eof\(\)$"):
                transport.write(data)
            assert not transport.is_closing()

    run(loop, main())


@pytest.mark.parametrize("pieces", [[b"more"], [b"", b""], []], ids=repr)
def test_writelines_after_write_eof_is_refused(loop, pieces):
    async def main():
        async with wired(loop) as (transport, _, _):
            transport.write_eof()
            message = r"^Cannot call write(lines)?\(\) after write_eof\(\)$"
            with pytest.raises(RuntimeError, match=message):
                transport.writelines(pieces)

    run(loop, main())


def test_write_eof_of_a_closing_transport_does_nothing(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            transport.close()
            transport.write_eof()
            assert await in_executor(read_all, peer) == pattern(MUCH)
            assert await protocol.lost is None
            transport.write_eof()

    run(loop, main())


def test_both_ends_half_close(loop):
    async def main():
        make = lambda: RecordingProtocol(loop, keep_open_on_eof=True)  # noqa: E731
        async with linked(loop, make, make) as (client, server):
            client.transport.write(b"ping")
            client.transport.write_eof()
            await server.ended
            assert server.data == b"ping"
            server.transport.write(b"pong")
            server.transport.write_eof()
            await client.ended
            assert client.data == b"pong"
            for protocol in (client, server):
                assert not protocol.transport.is_closing()
                protocol.transport.close()
                assert await protocol.lost is None

    run(loop, main())


# ------------------------------------------------------------ odd places


def test_write_in_pause_writing_and_resume_writing(loop):
    class Chatty(RecordingProtocol):
        def pause_writing(self):
            super().pause_writing()
            refilled[0].write(b"p" * 10)

        def resume_writing(self):
            super().resume_writing()
            if self.names.count("resume_writing") < 4:
                refilled[0].write(pattern(MUCH))

    refilled = []

    async def main():
        async with wired(loop, lambda: Chatty(loop)) as (transport, protocol, peer):
            refilled.append(Refilled(transport, peer))
            refilled[0].write(pattern(MUCH))
            while protocol.names.count("resume_writing") < 4:
                refilled[0].read()
                await asyncio.sleep(0)
            transport.close()
            await until(refilled[0].read)
            refilled[0].check()
            assert protocol.names.count("pause_writing") == 4

    run(loop, main())


def test_echo_of_much_data_both_ways_at_once(loop):
    size = 1 << 24

    class Echo(RecordingProtocol):
        def data_received(self, data):
            self.transport.write(data)

        def pause_writing(self):
            self.transport.pause_reading()

        def resume_writing(self):
            self.transport.resume_reading()

    async def main():
        async with wired(loop, lambda: Echo(loop)) as (_, _, peer):
            data = pattern(size)
            with Background(peer.sendall, data):
                assert await in_executor(drain, peer, size) == data

    run(loop, main())


def test_peer_that_never_reads_does_not_hold_up_the_others(loop):
    async def main():
        async with wired(loop) as (stuck, _, _), wired(loop) as (transport, protocol, peer):
            stuck.write(pattern(MUCH))
            for number in range(100):
                transport.write(b"%04d" % number)
                assert drain(peer, 4) == b"%04d" % number
                peer.sendall(b"x")
                await protocol.received(number + 1)
            assert stuck.get_write_buffer_size() > 0

    run(loop, main())


@pytest.mark.veloop_only("asyncio corrupts itself silently outside debug mode")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "buffered"])
@pytest.mark.parametrize(
    "call",
    [
        lambda transport: transport.write(b"x"),
        lambda transport: transport.write(bytearray(b"x")),
        lambda transport: transport.writelines([b"x"]),
        lambda transport: transport.writelines([b"x", b"y"]),
        lambda transport: transport.writelines([b"x" * 40_000, b"y"]),
        lambda transport: transport.write_eof(),
        lambda transport: transport.pause_reading(),
        lambda transport: transport.close(),
        lambda transport: transport.abort(),
    ],
    ids=["write", "bytearray", "one", "two", "large", "write_eof", "pause", "close", "abort"],
)
def test_foreign_thread_is_refused_by_name_and_changes_nothing(loop, call, busy):
    def touch(transport):
        with pytest.raises(RuntimeError, match="thread") as caught:
            call(transport)
        return str(caught.value), threading.current_thread().name

    async def main():
        async with wired(loop) as (transport, protocol, peer):
            expected = pattern(MUCH) if busy else b""
            transport.write(expected)
            message, name = await in_executor(touch, transport)
            assert name in message
            assert threading.current_thread().name in message
            assert not transport.is_closing()
            assert transport.is_reading()
            transport.write(b"fine")
            expected += b"fine"
            assert await in_executor(drain, peer, len(expected)) == expected
            peer.sendall(b"hello")
            assert await protocol.received(5) == b"hello"

    run(loop, main())


@pytest.mark.veloop_only("asyncio's are not refused")
def test_foreign_thread_resuming_held_data_is_refused(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.pause_reading()

            def touch():
                with pytest.raises(RuntimeError, match="thread"):
                    transport.resume_reading()

            peer.sendall(b"hello")
            await in_executor(touch)
            await turns(10)
            assert not transport.is_reading()
            assert protocol.data == b""
            transport.resume_reading()
            assert await protocol.received(5) == b"hello"

    run(loop, main())


def test_transport_can_be_shown_and_asked_from_another_thread(loop):
    # Logging does that.
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(pattern(MUCH))
            here = transport.get_extra_info("socket").fileno()
            shown = await in_executor(repr, transport)
            assert f"fd={here} " in shown
            assert "read=polling" in shown
            assert await in_executor(transport.is_closing) is False
            assert await in_executor(transport.get_write_buffer_size) > 0
            name = await in_executor(transport.get_extra_info, "peername")
            assert name == peer.getsockname()

    run(loop, main())


def test_socket_of_a_transport_can_be_had_in_another_thread(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            sock = await in_executor(transport.get_extra_info, "socket")
            assert sock.getpeername() == peer.getsockname()

    run(loop, main())


def test_write_to_a_socket_that_somebody_else_filled(loop):
    # The descriptor is shared: what this process does not send another one may.
    async def main():
        left, right = socket.socketpair()
        with right, left.dup() as copy:
            transport, protocol = await loop.connect_accepted_socket(
                lambda: RecordingProtocol(loop), left
            )
            filled = fill(copy)
            transport.write(b"at last")
            assert transport.get_write_buffer_size() == 7
            data = await in_executor(drain, right, filled + 7)
            assert data[-7:] == b"at last"
            transport.close()
            await protocol.lost

    run(loop, main())
