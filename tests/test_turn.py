"""I/O while callbacks keep the loop busy: when it is found, and what runs before it."""

import asyncio
import socket
import time

import pytest

import veloop
from helpers import LINUX, RecordingProtocol, run, run_until
from veloop.loop import gil, turn

CALLBACKS = 40  # more than any loop runs without a look at the clock
LONG = 50e-6  # seconds that each takes: longer than a busy loop waits until it looks for I/O


def spin():
    end = time.perf_counter() + LONG
    while time.perf_counter() < end:
        pass


class Telling(RecordingProtocol):
    """Calls `tell` for each piece of data, with its size."""

    def data_received(self, data):
        super().data_received(data)
        self.tell(len(data))


def busy_turn(loop, connections, then=lambda: None, data=lambda: None):
    """A turn in which data comes, and whose callbacks take long and add others. -> what runs."""
    order = []
    ((protocol, peer),) = connections(1, lambda: Telling(loop))
    protocol.tell = lambda size: (order.append("data"), data())

    def first():
        peer.sendall(b"x")
        order.append("first")
        then()

    def old(number):
        spin()
        order.append(number)
        loop.call_soon(order.append, f"of {number}")

    loop.call_soon(first)
    for number in range(CALLBACKS):
        loop.call_soon(old, number)
    return order


OLD = list(range(CALLBACKS))
ADDED = [f"of {number}" for number in OLD]


def test_what_was_ready_before_data_came_runs_before_it(loop, connections):
    order = busy_turn(loop, connections)
    run_until(loop, lambda: "data" in order and ADDED[-1] in order)
    assert order[: CALLBACKS + 1] == ["first", *OLD]
    order.remove("data")
    assert order[CALLBACKS + 1 :] == ADDED


@pytest.mark.veloop_only("asyncio looks for I/O once in a turn, however long it takes")
def test_data_that_came_in_a_long_turn_does_not_wait_for_all_of_the_next(loop, connections):
    order = busy_turn(loop, connections)
    run_until(loop, lambda: "data" in order and ADDED[-1] in order)
    assert order.index("data") < order.index(ADDED[-1])


def test_timers_of_the_turn_come_before_data_that_came_in_it_and_what_was_added(loop, connections):
    order = busy_turn(loop, connections)
    loop.call_later(-1, order.append, "timer")
    run_until(loop, lambda: "data" in order and ADDED[-1] in order)
    assert order[: CALLBACKS + 2] == ["first", *OLD, "timer"]


def test_data_that_comes_in_the_last_turn_does_not_prolong_it(loop, connections):
    order = busy_turn(loop, connections, loop.stop)
    loop.run_forever()
    assert order == ["first", *OLD]
    run_until(loop, lambda: "data" in order and ADDED[-1] in order)


def test_data_that_comes_when_the_debug_mode_begins_is_handled_in_it(loop, connections, caplog):
    loop.slow_callback_duration = 0.01
    order = busy_turn(
        loop, connections, lambda: loop.set_debug(True), data=lambda: time.sleep(0.02)
    )
    with caplog.at_level("WARNING", logger="asyncio"):
        run_until(loop, lambda: "data" in order and ADDED[-1] in order)
    loop.set_debug(False)
    assert [each for each in caplog.messages if "Executing" in each and "ransport" in each]


@pytest.mark.skipif(veloop.accelerated, reason="how often the plain loop polls")
def test_polls_that_take_long_do_not_take_most_of_the_time(loop_kind, loop, monkeypatch):
    if loop_kind != "veloop":
        pytest.skip("asyncio polls once in a turn")
    real, took = turn.vl_loop_run, []

    def slow(*args):
        begin = time.perf_counter()
        while time.perf_counter() < begin + 40 * LONG:
            pass
        took.append(time.perf_counter() - begin)
        return real(*args)

    monkeypatch.setattr(turn, "vl_loop_run", slow)
    for _ in range(10 * CALLBACKS):
        loop.call_soon(spin)
    loop.call_soon(loop.stop)
    begin = time.perf_counter()
    loop.run_forever()
    # Half, and the first one.
    assert len(took) > 1
    assert sum(took) < 0.75 * (time.perf_counter() - begin)


@pytest.mark.veloop_only("stops it where veloop polls")
def test_process_that_was_stopped_in_a_poll_polls_soon_again(loop, connections, monkeypatch):
    stopped, told = [], []
    ((protocol, peer),) = connections(1, lambda: Telling(loop))
    protocol.tell = told.append

    def stop(*args):
        if not stopped:
            time.sleep(1)
            stopped.append(1)

    if veloop.accelerated:
        # C has the function itself: it gets another body.
        monkeypatch.setattr(gil, "stop", stop, raising=False)
        monkeypatch.setattr(gil.checkpoint, "__code__", eval("lambda: stop()").__code__)
    else:
        real = turn.vl_loop_run
        monkeypatch.setattr(turn, "vl_loop_run", lambda *args: (stop(), real(*args))[1])

    async def main():
        while not stopped:
            await asyncio.sleep(0)
        peer.sendall(b"x")
        begin = time.perf_counter()
        while not told:
            await asyncio.sleep(0)
        return time.perf_counter() - begin

    assert run(loop, main()) < 0.5


@pytest.mark.skipif(not LINUX, reason="what epoll tells is limited; and pairs that take 100 KiB")
def test_large_messages_come_in_one_piece_though_many_come_at_once(loop, connections):
    size = 100 * 1024
    pieces = []
    pairs = connections(20, lambda: Telling(loop))
    for number, (protocol, peer) in enumerate(pairs):
        protocol.tell = lambda size, number=number: pieces.append((number, size))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * size)
    for _ in range(5):
        pieces.clear()
        for _, peer in pairs:
            peer.sendall(bytes(size))
        run_until(loop, lambda: sum(size for _, size in pieces) == len(pairs) * size)
    # The first ones may be cut: nobody knew that they would be large.
    assert sorted(pieces) == [(number, size) for number in range(len(pairs))]


async def watched(loop, protocol, sock):
    loop.add_reader(sock, lambda: protocol.data_received(sock.recv(100)))
    await asyncio.sleep(0)
    return lambda: (loop.remove_reader(sock), sock.close())


async def opened(loop, protocol, sock):
    return (await loop.create_connection(lambda: protocol, sock=sock))[0].close


async def accepted(loop, protocol, sock):
    return (await loop.connect_accepted_socket(lambda: protocol, sock))[0].close


async def pipe(loop, protocol, sock):
    return (await loop.connect_read_pipe(lambda: protocol, sock))[0].close


async def endpoint(loop, protocol, sock):
    return (await loop.create_datagram_endpoint(lambda: protocol, sock=sock))[0].close


@pytest.mark.skipif(not LINUX, reason="about Unix sockets, which are taken for pipes as well")
@pytest.mark.parametrize("begin", [watched, opened, accepted, pipe, endpoint])
def test_data_that_waits_comes_before_what_is_scheduled_afterwards(loop, begin):
    # However soon that is: a program may close then what it read from before.
    class Protocol(asyncio.Protocol, asyncio.DatagramProtocol):
        def data_received(self, data):
            order.append("data")

        def datagram_received(self, data, address):
            order.append("data")

    async def main():
        kind = socket.SOCK_DGRAM if begin is endpoint else socket.SOCK_STREAM
        near, far = socket.socketpair(type=kind)
        with far:
            near.setblocking(False)
            far.send(b"x")
            close = await begin(loop, Protocol(), near)
            loop.call_soon(order.append, "scheduled")
            while len(order) < 2:
                await asyncio.sleep(0)
            close()
            await asyncio.sleep(0)

    for _ in range(20):
        order = []
        run(loop, main())
        assert order == ["data", "scheduled"]
