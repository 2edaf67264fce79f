"""sockets.py: receiving and sending. Leaks are conftest's to find."""

import array
import asyncio
import contextlib
import gc
import socket
import ssl

import pytest

from helpers import LINUX, PATIENCE, PYPY, WINDOWS, drain, fill, run, socket_pair, tcp_pair
from tcp_helpers import HOST, turns

MUCH = 4 << 20  # more than the kernel takes at once


@pytest.fixture
def pair():
    with socket_pair() as ends:
        yield ends


@pytest.fixture
def datagrams():
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2)]
        for end in ends:
            end.setblocking(False)
            end.bind((HOST, 0))
        yield ends


# Each way to receive: the arguments after the socket, made anew, and what it gives for b"abc".
def receivers(where):
    buffer = bytearray(3)
    return {
        "sock_recv": ((10,), b"abc"),
        "sock_recv_into": ((buffer,), 3),
        "sock_recvfrom": ((10,), (b"abc", where)),
        "sock_recvfrom_into": ((buffer,), (3, where)),
    }


RECEIVERS = list(receivers(None))


@pytest.mark.parametrize("late", [False, True], ids=["there already", "waited for"])
@pytest.mark.parametrize("method", RECEIVERS)
def test_receive(loop, datagrams, method, late):
    async def main():
        sender, receiver = datagrams
        args, expected = receivers(sender.getsockname())[method]
        if not late:
            sender.sendto(b"abc", receiver.getsockname())
        task = loop.create_task(getattr(loop, method)(receiver, *args))
        await turns(5)
        if late:
            assert not task.done()
            sender.sendto(b"abc", receiver.getsockname())
        assert await task == expected
        if "into" in method:
            assert args[0] == b"abc"

    run(loop, main())


@pytest.mark.parametrize("method", RECEIVERS)
def test_cancelled_receive_leaves_no_watch_and_takes_nothing(loop, pair, method):
    async def main():
        left, right = pair
        args, _ = receivers(None)[method]
        task = loop.create_task(getattr(loop, method)(right, *args))
        await turns()
        task.cancel()
        left.send(b"abc")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_reader(right) is False
        assert await loop.sock_recv(right, 10) == b"abc"

    run(loop, main())


@pytest.mark.veloop_only("asyncio receives before it knows that nobody will take it")
def test_receive_that_is_cancelled_when_the_data_is_there_loses_nothing(loop, pair):
    # The socket became readable in the turn in which the task is cancelled.
    async def main():
        left, right = pair
        for _ in range(20):
            task = loop.create_task(loop.sock_recv(right, 10))
            await turns()
            left.send(b"abc")
            for _ in range(3):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
            try:
                assert await task == b"abc"
            except asyncio.CancelledError:
                assert await loop.sock_recv(right, 10) == b"abc"

    run(loop, main())


def test_receive_at_the_end_of_the_stream(loop, pair):
    left, right = pair
    left.close()
    assert run(loop, loop.sock_recv(right, 10)) == b""


def test_end_of_the_stream_wakes_who_waits(loop, pair):
    async def main():
        left, right = pair
        task = loop.create_task(loop.sock_recv(right, 10))
        await turns()
        left.close()
        assert await task == b""

    run(loop, main())


def test_reset_reaches_who_waits(loop):
    async def main():
        with tcp_pair() as (client, server):
            client.setblocking(False)
            task = loop.create_task(loop.sock_recv(client, 10))
            await turns()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            server.close()
            with pytest.raises(ConnectionResetError):
                await task

    run(loop, main())


def test_later_receiver_takes_the_place_of_an_earlier_one(loop, pair):
    # asyncio's rule: the earlier one waits for ever. Cancelling it does not harm the later one.
    async def main():
        left, right = pair
        early = loop.create_task(loop.sock_recv(right, 1))
        await turns()
        late = loop.create_task(loop.sock_recv(right, 1))
        await turns()
        early.cancel()
        await turns()
        left.send(b"x")
        assert await late == b"x"
        with pytest.raises(asyncio.CancelledError):
            await early

    run(loop, main())


def test_reader_and_writer_of_one_socket_do_not_touch_each_other(loop, pair):
    async def main():
        left, right = pair
        filled = fill(right)
        receiving = loop.create_task(loop.sock_recv(right, 10))
        sending = loop.create_task(loop.sock_sendall(right, b"end"))
        await turns()
        receiving.cancel()
        await turns()
        assert not sending.done()
        with left.dup() as peer:
            assert (await loop.run_in_executor(None, drain, peer, filled + 3))[-3:] == b"end"
        await sending

    run(loop, main())


def test_socket_closed_by_another_task_is_found_closed(loop, pair):
    async def main():
        right = pair[1]
        task = loop.create_task(loop.sock_recv(right, 10))
        await turns()
        right.close()
        await turns(20)
        # Nothing can wake it; but it can be cancelled, and its watch goes.
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with socket_pair() as (left, again):  # among them the number of the closed one
            left.send(b"x")
            assert await loop.sock_recv(again, 1) == b"x"
            receiving = loop.create_task(loop.sock_recv(left, 1))
            await turns()
            again.send(b"y")
            assert await receiving == b"y"

    run(loop, main())


# ------------------------------------------------------------ sending


@pytest.mark.parametrize("size", [0, 1, MUCH])
@pytest.mark.parametrize("make", [bytes, bytearray, lambda data: memoryview(data)])
def test_sendall(loop, pair, size, make):
    async def main():
        left, right = pair
        data = bytes(range(256)) * (size // 256 + 1)
        data = data[:size]
        receiving = loop.run_in_executor(None, drain, right, size)
        assert await loop.sock_sendall(left, make(data)) is None
        assert await receiving == data

    run(loop, main())


@pytest.mark.veloop_only("asyncio compares what was sent with the number of items, and ends early")
def test_sendall_counts_bytes_and_not_items(loop, pair):
    async def main():
        left, right = pair
        data = array.array("d", range(MUCH // 8))
        receiving = loop.run_in_executor(None, drain, right, MUCH)
        await loop.sock_sendall(left, memoryview(data))
        assert await receiving == data.tobytes()

    run(loop, main())


@pytest.mark.veloop_only("asyncio's view lives on in a cancelled handle")
@pytest.mark.parametrize("how", ["done", "cancelled"])
def test_sendall_lets_go_of_the_buffer(loop, pair, how):
    async def main():
        left, right = pair
        data = bytearray(MUCH)
        task = loop.create_task(loop.sock_sendall(left, data))
        await turns(5)
        if how == "done":
            await loop.run_in_executor(None, drain, right, MUCH)
            await task
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert loop.remove_writer(left) is False
        data.clear()  # a BufferError while somebody has a view of it

    run(loop, main())


def test_sendall_to_a_peer_that_goes(loop, pair):
    async def main():
        left, right = pair
        fill(left)
        task = loop.create_task(loop.sock_sendall(left, b"x"))
        await turns()
        right.close()
        with pytest.raises(ConnectionError):
            await task

    run(loop, main())


def test_sendto(loop, datagrams):
    async def main():
        sender, receiver = datagrams
        assert await loop.sock_sendto(sender, b"abc", receiver.getsockname()) == 3
        assert await loop.sock_recv(receiver, 10) == b"abc"

    run(loop, main())


@pytest.mark.skipif(not LINUX, reason="elsewhere datagrams without room are dropped or refused")
def test_sendto_waits_until_there_is_room(loop, tmp_path):
    async def main():
        where = str(tmp_path / "socket")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        ):
            sender.setblocking(False)
            receiver.settimeout(PATIENCE)
            receiver.bind(where)
            # What limits this is the sender's memory: the receiver's queue wakes nobody who
            # is not connected to it.
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sendto(b"x" * 1000, where)
                    sent += 1
            task = loop.create_task(loop.sock_sendto(sender, b"last", where))
            await turns(5)
            assert not task.done()
            for _ in range(sent):
                receiver.recv(2000)
            assert await task == 4
            assert receiver.recv(2000) == b"last"

    run(loop, main())


# ------------------------------------------------------------ what is refused

CALLS = [
    ("sock_recv", (1,)),
    ("sock_recv_into", (bytearray(1),)),
    ("sock_recvfrom", (1,)),
    ("sock_recvfrom_into", (bytearray(1),)),
    ("sock_sendall", (b"x",)),
    ("sock_sendto", (b"x", (HOST, 9))),
]


@pytest.mark.parametrize(("method", "args"), CALLS)
def test_bad_sockets(loop, method, args):
    async def main():
        call = getattr(loop, method)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(socket.socket()) as sock:
            with pytest.raises(TypeError, match="SSLSocket"):
                await call(sock, *args)
        loop.set_debug(True)
        try:
            with socket.socket() as sock, pytest.raises(ValueError, match="non-blocking"):
                await call(sock, *args)
        finally:
            loop.set_debug(False)
        sock = socket.socket()
        sock.close()
        with pytest.raises(OSError, match="[Bb]ad file descriptor|WinError 10038"):
            await call(sock, *args)

    run(loop, main())


@pytest.mark.parametrize(("method", "args"), CALLS)
def test_errors_of_the_system_call_are_the_callers(loop, pair, method, args):
    async def main():
        with pytest.raises((TypeError, ValueError)):
            await getattr(loop, method)(pair[0], *([object()] * len(args)))

    run(loop, main())


def test_size_beyond_the_buffer_is_refused(loop, datagrams):
    async def main():
        sender, receiver = datagrams
        sender.sendto(b"abc", receiver.getsockname())
        buffer = bytearray(5)
        with pytest.raises(ValueError):
            await loop.sock_recvfrom_into(receiver, buffer, 6)
        receiving = loop.sock_recvfrom_into(receiver, buffer, 2)
        if WINDOWS:  # says that there was more
            with pytest.raises(OSError, match="10040"):
                await receiving
        else:
            assert await receiving == (2, sender.getsockname())
        assert buffer == b"ab\0\0\0"

    run(loop, main())


def test_socket_of_a_transport_is_refused(loop):
    async def main():
        with tcp_pair() as (client, server):
            client.setblocking(False)
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=client)
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.sock_recv(client, 1)
            server.send(b"x")
            transport.abort()
            await turns()

    run(loop, main())


def test_closed_loop_refuses(new_loop, pair):
    loop, other = new_loop(), new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(other, loop.sock_recv(pair[0], 1))


@pytest.mark.skipif(PYPY, reason="PyPy has no reference counts: a cycle costs nothing there")
def test_errors_make_no_reference_cycle(loop, pair):
    async def main():
        left, right = pair
        fill(left)
        task = loop.create_task(loop.sock_sendall(left, b"x"))
        await turns()
        right.close()
        try:
            await task
        except ConnectionError as exc:
            return exc

    gc.disable()
    try:
        error = run(loop, main())
        error.__traceback__ = None
        assert gc.get_referrers(error) in ([], [error])
    finally:
        gc.enable()
