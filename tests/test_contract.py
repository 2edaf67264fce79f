"""What programs and libraries reach for beyond asyncio's documentation.

Nobody promised them these things, and they depend on them: anyio scans a task's callbacks, aiohttp
sets options on a transport's socket, drivers ask what kind of loop they are on. Each test says who.
"""

import asyncio
import contextlib
import inspect
import os
import socket
import subprocess
import sys
import time
import weakref

import pytest

from certificates import client_context, server_context
from helpers import WINDOWS, RecordingProtocol, VirtualClock, import_veloop, run, run_turns

unix = pytest.mark.skipif(WINDOWS, reason="not on Windows")

STREAMS = [
    "tcp",
    pytest.param("unix", marks=unix),
    "tls",
    pytest.param("unix tls", marks=unix),
]


class Pair:
    """Two transports with their protocols, and the server between: `async with Pair(...)`."""

    def __init__(self, loop, kind, path):
        self._loop = loop
        self._kind = kind
        self._path = str(path / "socket")

    async def __aenter__(self):
        loop, kind = self._loop, self._kind
        tls = "tls" in kind
        accepted = RecordingProtocol(loop)
        listen = {"ssl": server_context() if tls else None}
        connect = {
            "ssl": client_context() if tls else None,
            "server_hostname": "localhost" if tls else None,
        }
        if kind.startswith("unix"):
            self.server = await loop.create_unix_server(lambda: accepted, self._path, **listen)
            connecting = loop.create_unix_connection(
                lambda: RecordingProtocol(loop), self._path, **connect
            )
        else:
            self.server = await loop.create_server(lambda: accepted, "127.0.0.1", 0, **listen)
            address = self.server.sockets[0].getsockname()
            connecting = loop.create_connection(
                lambda: RecordingProtocol(loop), *address, **connect
            )
        self.transport, self.protocol = await connecting
        self.peer_transport = await accepted.connected
        self._accepted = accepted
        return self

    @property
    def both(self):
        return self.transport, self.peer_transport

    async def __aexit__(self, *exc_info):
        self.server.close()
        self.protocol.transport.close()
        await self.protocol.lost
        await self._accepted.lost
        await self.server.wait_closed()


# ------------------------------------------------------------ the loop


def test_the_loop_is_an_asyncio_event_loop(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)


@pytest.mark.veloop_only("asyncio's loop on Windows is either the one or the other")
def test_the_loop_is_no_proactor_and_watches_sockets(loop):
    """psycopg and aiodns refuse a ProactorEventLoop, because it has no add_reader."""
    proactor = getattr(asyncio, "ProactorEventLoop", None)
    assert proactor is None or not isinstance(loop, proactor)
    seen = []
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        loop.add_reader(left, lambda: (seen.append(left.recv(1)), loop.stop()))
        right.send(b"x")
        loop.run_forever()
        assert loop.remove_reader(left)
    assert seen == [b"x"]


def test_a_loop_can_be_a_weak_key_and_have_attributes(loop):
    """anyio keeps its variables in a dictionary of weak loops; others put them onto the loop."""
    known = weakref.WeakKeyDictionary({loop: "value"})
    assert known[loop] == "value"
    loop.their_own_attribute = "value"
    assert loop.their_own_attribute == "value"
    assert loop == loop and hash(loop) == hash(loop)


def test_everybody_sees_the_running_loop(loop):
    """sniffio, Cython extensions and asyncio itself look in three places."""

    async def main():
        return asyncio.get_running_loop(), asyncio._get_running_loop(), asyncio.get_event_loop()

    assert run(loop, main()) == (loop, loop, loop)
    assert asyncio._get_running_loop() is None


def test_asyncios_runner_takes_the_loop(new_loop):
    """`asyncio.Runner(loop_factory=...)`: uvicorn, hypercorn and pytest plugins start loops so."""

    async def main():
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(main()) is runner.get_loop()
    # One that is the thread's current loop, as older programs do it.
    loop = new_loop()
    asyncio.set_event_loop(loop)
    try:
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)


def test_uvicorns_loop_option():
    """`--loop package:factory` imports the name and calls it without arguments."""
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    config = uvicorn.Config("none:app", loop="veloop:new_event_loop")
    loop = config.get_loop_factory()()
    try:
        assert isinstance(loop, import_veloop().EventLoop)
    finally:
        loop.close()


# ------------------------------------------------------------ tasks and handles


def callbacks_of(task):
    """As anyio reads them: pairs of a callback and its context."""
    return [callback for callback, _ in task._callbacks]


def test_the_root_task_is_recognised(loop):
    """anyio: it is the task on which asyncio's own `_run_until_complete_cb` is registered."""
    from asyncio.base_events import _run_until_complete_cb

    async def child():
        return asyncio.current_task()

    async def main():
        task = asyncio.create_task(child())
        roots = [
            each
            for each in asyncio.all_tasks()
            if each._callbacks and _run_until_complete_cb in callbacks_of(each)
        ]
        await task
        return roots == [asyncio.current_task()]

    assert run(loop, main())


def test_tasks_and_futures_are_asyncios_own(loop):
    """`python -m asyncio ps` reads the memory of asyncio.Task; isinstance checks are everywhere."""

    async def main():
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        return task

    assert type(run(loop, main())) is asyncio.Task
    assert type(loop.create_future()) is asyncio.Future


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_eager_tasks_are_made_directly(loop):
    """aiohttp makes its tasks with `asyncio.Task(coro, loop=loop, eager_start=True)`."""
    order = []

    async def child():
        order.append("child")
        assert asyncio.current_task(loop) is not parent
        await asyncio.sleep(0)

    async def main():
        nonlocal parent
        parent = asyncio.current_task()
        task = asyncio.Task(child(), loop=loop, eager_start=True)
        order.append("main")
        assert asyncio.current_task() is parent
        await task

    parent = None
    run(loop, main())
    assert order == ["child", "main"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_the_eager_task_factory_is_recognised(loop):
    """anyio compares its code with that of the loop's factory."""
    loop.set_task_factory(asyncio.eager_task_factory)
    assert loop.get_task_factory().__code__ is asyncio.eager_task_factory.__code__


def test_handles_are_asyncios(loop):
    """anyio and aiohttp keep them, and ask `when()` and `cancelled()`."""
    soon = loop.call_soon(print)
    threadsafe = loop.call_soon_threadsafe(print)
    later = loop.call_later(10, print)
    at = loop.call_at(loop.time() + 10, print)
    at_once = loop.call_later(0, print)
    for handle in (soon, threadsafe, later, at, at_once):
        assert isinstance(handle, asyncio.Handle)
        handle.cancel()
        assert handle.cancelled()
    for handle in (later, at, at_once):
        assert isinstance(handle, asyncio.TimerHandle)
        assert handle.when() <= loop.time() + 10
        assert weakref.ref(handle)() is handle
    run_turns(loop)


# ------------------------------------------------------------ time


def timer_order(loop, clock, advance):
    """When a timer of 60 seconds fires, on a loop with a virtual clock."""
    seen = []
    loop.call_later(60, seen.append, "fired")
    run_turns(loop, 3)
    seen.append("advanced")
    clock.advance(advance)
    run_turns(loop, 3)
    return seen


def test_a_replaced_loop_time_is_honoured(loop):
    """looptime, aiotools and many test suites put their own `time` on the loop."""
    loop.time = clock = VirtualClock()
    assert timer_order(loop, clock, 60) == ["advanced", "fired"]


def test_a_loop_class_with_its_own_time(loop_kind):
    """The same in a subclass."""
    clock = VirtualClock()
    base = import_veloop().EventLoop if loop_kind == "veloop" else asyncio.SelectorEventLoop

    class Loop(base):
        def time(self):
            return clock()

    loop = Loop()
    try:
        assert timer_order(loop, clock, 60) == ["advanced", "fired"]
    finally:
        loop.close()


def test_a_replaced_monotonic_clock_is_honoured(loop, monkeypatch):
    """freezegun and time-machine put theirs into the module `time`."""
    clock = VirtualClock()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        assert loop.time() == clock.now
        assert timer_order(loop, clock, 60) == ["advanced", "fired"]


# ------------------------------------------------------------ transports


@pytest.mark.parametrize("kind", STREAMS)
def test_stream_transports_are_asyncios(loop, kind, tmp_path):
    """bottom, aioapns and aiohttp's tests ask with isinstance."""

    async def main():
        async with Pair(loop, kind, tmp_path) as pair:
            for transport in pair.both:
                assert isinstance(transport, asyncio.Transport)
                assert weakref.ref(transport)() is transport

    run(loop, main())


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_have_asyncios_transports(loop, kind, tmp_path):
    """Every method that asyncio.Transport names is there, and answers."""

    async def main():
        async with Pair(loop, kind, tmp_path) as pair:
            for transport in pair.both:
                assert transport.is_reading()
                transport.pause_reading()
                assert not transport.is_reading()
                transport.resume_reading()
                assert transport.get_write_buffer_size() == 0
                transport.set_write_buffer_limits(high=100)
                low, high = transport.get_write_buffer_limits()
                assert (low, high) == (25, 100)
                assert not transport.is_closing()
                protocol = transport.get_protocol()
                transport.set_protocol(protocol)
                assert transport.get_protocol() is protocol
                assert transport.can_write_eof() == ("tls" not in kind)

    run(loop, main())


@pytest.mark.parametrize("kind", STREAMS)
def test_socket_of_a_transport(loop, kind, tmp_path):
    """aiohttp, uvicorn, asyncpg and redis-py set options on it; it can't be read from or closed."""

    async def main():
        async with Pair(loop, kind, tmp_path) as pair:
            for transport in pair.both:
                sock = transport.get_extra_info("socket")
                assert isinstance(sock, asyncio.trsock.TransportSocket)
                assert not hasattr(sock, "recv")
                assert sock.type == socket.SOCK_STREAM
                assert sock.getsockname() == transport.get_extra_info("sockname")
                assert sock.fileno() >= 0
                if kind in ("tcp", "tls"):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    assert sock.getpeername() == transport.get_extra_info("peername")
            # anyio and uvicorn take a missing key for None.
            assert pair.transport.get_extra_info("no such thing") is None
            assert pair.transport.get_extra_info("no such thing", 17) == 17

    run(loop, main())


@pytest.mark.parametrize("kind", STREAMS)
def test_tls_details_of_a_transport(loop, kind, tmp_path):
    """uvicorn and websockets tell wss from ws by `sslcontext`, aiohttp https by `ssl_object`."""

    async def main():
        async with Pair(loop, kind, tmp_path) as pair:
            for transport in pair.both:
                there = [
                    transport.get_extra_info(name) is not None
                    for name in ("sslcontext", "ssl_object", "cipher")
                ]
                assert there == ["tls" in kind] * 3
            if "tls" in kind:
                certificate = pair.transport.get_extra_info("peercert")
                assert certificate["subject"] == ((("commonName", "localhost"),),)
                assert pair.transport.get_extra_info("ssl_object").version() == "TLSv1.3"

    run(loop, main())


@pytest.mark.parametrize("kind", STREAMS)
def test_transports_that_start_tls_say_so(loop, kind, tmp_path):
    """asyncio refuses to start TLS on a transport without `_start_tls_compatible`."""

    async def main():
        async with Pair(loop, kind, tmp_path) as pair:
            for transport in pair.both:
                assert transport._start_tls_compatible is True

    run(loop, main())


@pytest.mark.stock_since("3.12", "its datagram transports are DatagramTransports")
def test_datagram_transport_is_asyncios(loop):
    async def main():
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        with contextlib.closing(transport):
            assert isinstance(transport, asyncio.DatagramTransport)
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, asyncio.trsock.TransportSocket)
            assert sock.type == socket.SOCK_DGRAM
            assert sock.getsockname() == transport.get_extra_info("sockname")

    run(loop, main())
    run_turns(loop, 3)


@unix
def test_pipe_transports_are_asyncios(loop):
    async def main():
        fds = os.pipe()
        with open(fds[0], "rb", 0) as reading, open(fds[1], "wb", 0) as writing:
            reader, _ = await loop.connect_read_pipe(asyncio.Protocol, reading)
            writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, writing)
            assert isinstance(reader, asyncio.ReadTransport)
            assert isinstance(writer, asyncio.WriteTransport)
            assert reader.get_extra_info("pipe") is reading
            assert writer.get_extra_info("pipe") is writing
            writer.close()
            reader.close()
            await asyncio.sleep(0)

    run(loop, main())
    run_turns(loop, 3)


@unix
def test_subprocess_transport_is_asyncios(loop):
    async def main():
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol, "cat", stderr=subprocess.DEVNULL
        )
        assert isinstance(transport, asyncio.SubprocessTransport)
        assert isinstance(transport.get_pipe_transport(0), asyncio.WriteTransport)
        assert isinstance(transport.get_pipe_transport(1), asyncio.ReadTransport)
        assert transport.get_pipe_transport(2) is None
        assert transport.get_extra_info("subprocess").pid == transport.get_pid()
        assert transport.get_returncode() is None
        # asyncio's own Process.wait() is nothing but this.
        transport.get_pipe_transport(0).close()
        assert await transport._wait() == 0
        transport.close()

    run(loop, main())
    run_turns(loop, 3)


# ------------------------------------------------------------ servers


@pytest.mark.parametrize("kind", STREAMS)
def test_servers_are_asyncios(loop, kind, tmp_path):
    """uvicorn, aiohttp and websockets keep them, and list their sockets."""

    async def main():
        async with Pair(loop, kind, tmp_path) as pair:
            server = pair.server
            assert isinstance(server, asyncio.Server)
            assert isinstance(server, asyncio.AbstractServer)
            assert server.get_loop() is loop
            assert server.is_serving()
            assert isinstance(server.sockets, tuple)
            assert all(isinstance(each, asyncio.trsock.TransportSocket) for each in server.sockets)
            server.close()
            assert server.sockets == ()
            assert not server.is_serving()

    run(loop, main())


# ------------------------------------------------------------ streams on top


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_on_our_transports(loop, kind, tmp_path):
    """asyncio's StreamReaderProtocol is put onto transports by many: asyncpg, gRPC, proxies."""

    async def main():
        async with Pair(loop, kind, tmp_path) as pair:
            reader = asyncio.StreamReader(loop=loop)
            protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
            before = pair.transport.get_protocol()
            pair.transport.set_protocol(protocol)
            protocol.connection_made(pair.transport)
            writer = asyncio.StreamWriter(pair.transport, protocol, reader, loop)
            pair.peer_transport.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.write(b"hello")
            await writer.drain()
            assert await pair.peer_transport.get_protocol().received(5) == b"hello"
            pair.transport.set_protocol(before)

    run(loop, main())


def test_coroutine_methods_are_coroutine_functions(loop):
    """Mocks, decorators and documentation tools ask inspect; some asyncio methods are not."""
    stock = asyncio.SelectorEventLoop
    for name in dir(stock):
        if not name.startswith("_") and inspect.iscoroutinefunction(getattr(stock, name)):
            assert inspect.iscoroutinefunction(getattr(type(loop), name)), name
