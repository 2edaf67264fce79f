"""anyio on veloop and on asyncio, by `anyio.run(..., backend_options={"loop_factory": ...})`."""

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from payload import MEGABYTE, Checksum, chunks, payload
from running import on_anyio

from children import script_env
from helpers import PATIENCE, has_ipv6, refusing_address, run

anyio = pytest.importorskip("anyio", reason="anyio is not installed (pip install '.[test]')")

LARGE = 10 * MEGABYTE


# ------------------------------------------------------------ tasks


def test_the_result_and_the_exception_of_run(runner):
    async def fine(value):
        return value

    async def fails():
        raise LookupError("told to fail")

    assert runner(fine, 7) == 7
    with pytest.raises(LookupError, match="told to fail"):
        runner(fails)


@on_anyio
async def test_the_library_is_recognised():
    """sniffio-like detection finds asyncio's current task on this loop."""
    assert anyio.get_current_task().id == id(asyncio.current_task())


@on_anyio
async def test_task_group():
    """Children run side by side; `start` waits for `started`."""
    log = []

    async def child(number, event):
        await event.wait()
        log.append(number)

    async def service(*, task_status):
        task_status.started("ready")
        await anyio.sleep(math.inf)

    event = anyio.Event()
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(child, number, event)
        assert await group.start(service) == "ready"
        event.set()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert sorted(log) == list(range(10))


@on_anyio
async def test_one_failure_cancels_the_others():
    cancelled = []

    async def waits():
        try:
            await anyio.sleep(math.inf)
        except anyio.get_cancelled_exc_class():
            cancelled.append(True)
            raise

    async def fails():
        await anyio.wait_all_tasks_blocked()
        raise LookupError("told to fail")

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(waits)
            group.start_soon(waits)
            group.start_soon(fails)
    assert [type(exc) for exc in caught.value.exceptions] == [LookupError]
    assert cancelled == [True, True]


@on_anyio
async def test_move_on_after():
    """The innermost scope whose time is up ends, and none outside of it."""
    with anyio.move_on_after(20) as outer:
        with anyio.move_on_after(0.01) as inner:
            await anyio.sleep(math.inf)
    assert (inner.cancelled_caught, outer.cancelled_caught) == (True, False)


@on_anyio
async def test_fail_after():
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.01):
            await anyio.sleep(math.inf)


@on_anyio
async def test_shielding():
    """Shielded work goes on in a cancelled scope, and the cancellation arrives after it."""
    finished = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0)
            await anyio.lowlevel.checkpoint()
            finished = True
        await anyio.sleep(math.inf)
    assert finished
    assert scope.cancelled_caught


@on_anyio
async def test_running_tasks():
    """The root task and its children are found by anyio's own bookkeeping of tasks."""
    root = anyio.get_current_task()
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, math.inf, name="sleeper")
        await anyio.wait_all_tasks_blocked()
        tasks = {task.name: task for task in anyio.get_running_tasks()}
        assert tasks["sleeper"].parent_id == root.id
        assert root.id in {task.id for task in tasks.values()}
        group.cancel_scope.cancel()


@on_anyio
async def test_memory_streams_and_limits():
    """A bounded stream from many senders to one receiver, with a lock and a semaphore between."""
    send, receive = anyio.create_memory_object_stream[int](3)
    semaphore = anyio.Semaphore(2)

    async def sender(stream, number):
        async with stream, semaphore:
            for part in range(10):
                await stream.send(number * 10 + part)

    async with anyio.create_task_group() as group:
        async with send:
            for number in range(5):
                group.start_soon(sender, send.clone(), number)
        async with receive:
            assert sorted([item async for item in receive]) == list(range(50))


# ------------------------------------------------------------ TCP


async def echo(stream):
    async with stream:
        async for data in stream:
            await stream.send(data)


async def listen(host="127.0.0.1"):
    return await anyio.create_tcp_listener(local_host=host)


def port_of(listener):
    return listener.extra(anyio.abc.SocketAttribute.local_port)


@on_anyio
async def test_tcp_echo():
    """Many clients of one listener, each with its own bytes."""

    async def client(number):
        data = b"%d," % number * 1000
        async with await anyio.connect_tcp("127.0.0.1", port_of(listener)) as stream:
            await stream.send(data)
            got = b""
            while len(got) < len(data):
                got += await stream.receive()
            assert got == data
            served.append(number)

    served = []
    async with await listen() as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        async with anyio.create_task_group() as clients:
            for number in range(30):
                clients.start_soon(client, number)
        group.cancel_scope.cancel()
    assert sorted(served) == list(range(30))


@on_anyio
async def test_tcp_large_streams_and_end_of_stream():
    """10 MB from a sender who is faster than the receiver; then EndOfStream, and the answer."""

    async def summing(stream):
        checksum = Checksum()
        async with stream:
            async for data in stream:
                checksum.feed(data)
                await anyio.lowlevel.checkpoint()
            await stream.send(str(checksum).encode())

    async with await listen() as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, summing)
        async with await anyio.connect_tcp("127.0.0.1", port_of(listener)) as stream:
            for chunk in chunks(LARGE):
                await stream.send(chunk)
            await stream.send_eof()
            assert await stream.receive() == str(Checksum(payload(LARGE))).encode()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        group.cancel_scope.cancel()


@on_anyio
async def test_tcp_connect_to_a_plain_server():
    """The client's side alone, against a peer without a loop."""

    def serve():
        with listener, listener.accept()[0] as connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    listener = socket.create_server(("127.0.0.1", 0))
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, serve)
        port = listener.getsockname()[1]
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            assert stream.extra(anyio.abc.SocketAttribute.remote_port) == port
            assert stream.extra(anyio.abc.SocketAttribute.raw_socket).fileno() > 0
            for number in range(20):
                await stream.send(b"%d" % number)
                assert await stream.receive() == b"%d" % number


@on_anyio
async def test_tcp_cancelled_receive():
    """A receive that timed out loses nothing: the next one gets the bytes."""
    async with await listen() as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        async with await anyio.connect_tcp("127.0.0.1", port_of(listener)) as stream:
            with anyio.move_on_after(0.01) as scope:
                await stream.receive()
            assert scope.cancelled_caught
            await stream.send(b"after")
            assert await stream.receive() == b"after"
        group.cancel_scope.cancel()


@on_anyio
async def test_tcp_closed_resources():
    """Own end closed: ClosedResourceError. Peer gone: EndOfStream, then BrokenResourceError."""

    async def hang_up(stream):
        await stream.aclose()

    async with await listen() as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, hang_up)
        stream = await anyio.connect_tcp("127.0.0.1", port_of(listener))
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        with pytest.raises(anyio.BrokenResourceError):
            while True:
                await stream.send(b"x" * 1000)
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        group.cancel_scope.cancel()


@on_anyio
async def test_a_closed_listener():
    """A pending accept ends with ClosedResourceError when the listener is closed under it."""

    async def accepts():
        try:
            await listener.serve(echo)
        except* anyio.ClosedResourceError:
            ended.set()

    ended = anyio.Event()
    listener = await listen()
    async with anyio.create_task_group() as group:
        group.start_soon(accepts)
        await anyio.wait_all_tasks_blocked()
        await listener.aclose()
        await ended.wait()


@on_anyio
async def test_connection_refused():
    """anyio's OSError, with the system's as its cause."""
    with refusing_address() as (host, port):
        with pytest.raises(OSError) as caught:
            await anyio.connect_tcp(host, port)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@on_anyio
async def test_happy_eyeballs():
    """A name with both families, a listener on one: the other one's refusal is not seen."""
    async with await listen() as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        async with await anyio.connect_tcp("localhost", port_of(listener)) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
        group.cancel_scope.cancel()


# ------------------------------------------------------------ threads


@on_anyio
async def test_to_thread():
    """Results, exceptions and context variables cross; the limiter bounds the threads."""

    def work(number):
        with lock:
            running.append(number)
            most.append(len(running))
        barrier.wait(20)
        with lock:
            running.remove(number)
        if number == 7:
            raise LookupError("told to fail")
        done.append(number)

    async def call(number):
        try:
            await anyio.to_thread.run_sync(work, number, limiter=limiter)
        except LookupError:
            done.append("failed")

    lock, barrier = threading.Lock(), threading.Barrier(4)
    running, most, done = [], [], []
    limiter = anyio.CapacityLimiter(4)
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(call, number)
    assert max(most) == 4
    assert sorted(done, key=str) == sorted([*(n for n in range(20) if n != 7), "failed"], key=str)


@on_anyio
async def test_from_thread():
    """A worker thread calls back into the loop, synchronously and asynchronously."""

    async def double(value):
        await anyio.sleep(0)
        return value * 2

    def work():
        thread = anyio.from_thread.run_sync(threading.get_ident)
        assert thread == loop_thread != threading.get_ident()
        return [anyio.from_thread.run(double, number) for number in range(50)]

    loop_thread = threading.get_ident()
    assert await anyio.to_thread.run_sync(work) == [2 * number for number in range(50)]


@on_anyio
async def test_an_abandoned_thread():
    """`abandon_on_cancel`: the loop goes on at once, the thread ends when it likes."""
    started, release, ended = threading.Event(), threading.Event(), threading.Event()
    scope = anyio.CancelScope()

    def work():
        started.set()
        release.wait(20)
        ended.set()

    async def abandon():
        with scope:
            await anyio.to_thread.run_sync(work, abandon_on_cancel=True)

    async with anyio.create_task_group() as group:
        group.start_soon(abandon)
        await anyio.to_thread.run_sync(started.wait, 20)
        scope.cancel()
    assert scope.cancelled_caught
    assert not ended.is_set()
    release.set()
    await anyio.to_thread.run_sync(ended.wait, 20)
    assert ended.is_set()


def test_the_root_task_without_anyio_run(loop):
    """anyio finds the program's task by how the loop runs it, and binds its threads to that one.

    A thread that were bound to the task that asked for it first would end with that task.
    """

    async def main():
        call = anyio.to_thread.run_sync
        first = await asyncio.create_task(call(threading.current_thread))
        second = await asyncio.create_task(call(threading.current_thread))
        assert first is second

    run(loop, main())


def test_blocking_portal(runner):
    """A thread without a loop starts one in another thread and uses it."""
    with anyio.from_thread.start_blocking_portal("asyncio", runner.options) as portal:

        async def kind():
            return type(asyncio.get_running_loop()).__module__

        assert portal.call(kind).startswith(runner.kind)
        future = portal.start_task_soon(anyio.sleep, math.inf)
        future.cancel()


# ------------------------------------------------------------ the loop itself


def test_debug_mode(runner, asyncio_log):
    """`backend_options={"debug": True}` reaches the loop, and nothing is complained of."""

    async def main():
        assert asyncio.get_running_loop().get_debug()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, threading.get_ident)

    runner(main, debug=True)


def test_signals(runner):
    """`open_signal_receiver` gets what the process is sent."""

    async def main():
        with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            async for signum in signals:
                return signum

    assert runner(main) == signal.SIGUSR1


@on_anyio
async def test_wait_readable():
    """By `add_reader` on this loop, which asyncio's other loops may do in a thread."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.wait_readable, left)
            await anyio.wait_all_tasks_blocked()
            right.send(b"x")
        assert left.recv(1) == b"x"
        await anyio.wait_writable(left)


def test_async_generators_are_closed(runner):
    """One that is still referenced but not finished is closed by the end of the run."""
    kept, closed = [], []

    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        kept.append(numbers())
        return await anext(kept[0])

    assert runner(main) == 1
    assert closed == [True]


PLUGIN_TEST = """
import asyncio
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": LOOP}

@pytest.fixture
async def server(anyio_backend):
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()

@pytest.mark.anyio
async def test_on_the_loop(server):
    assert type(asyncio.get_running_loop()).__module__.startswith("KIND")
    reader, writer = await asyncio.open_connection(*server)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
"""


@pytest.mark.slow
def test_the_pytest_plugin(loop_kind, tmp_path):
    """anyio's plugin runs async tests and fixtures on a loop of the test suite's choice."""
    name = {"veloop": "veloop.new_event_loop", "asyncio": "asyncio.SelectorEventLoop"}[loop_kind]
    text = PLUGIN_TEST.replace("LOOP", name).replace("KIND", loop_kind)
    (tmp_path / "test_it.py").write_text(f"import {loop_kind}\n{text}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env=script_env(loop_kind),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
