"""stream.py, writing: what may be written, writelines, write_eof, foreign threads.

The write buffer and its limits: test_stream_flow.py.
"""

import array
import asyncio
import socket
import threading

import pytest

from helpers import Background, RecordingProtocol, drain, fill
from tcp_helpers import (
    MUCH,
    WAYS,
    Refilled,
    in_executor,
    linked,
    pattern,
    read_all,
    run,
    turns,
    until,
    wired,
)

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
    # A bug of other loops: what is queued must be a copy.
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


@pytest.mark.veloop_only("asyncio takes None for an empty piece; since 3.15 it sends what was good")
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
    ],
    ids=["write", "bytearray", "one", "two", "large", "write_eof", "pause"],
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
