"""A loop that was closed goes with its last reference: the collector need not look for it."""

import asyncio
import gc
import signal
import socket
import sys
import weakref

import pytest

from helpers import PYPY, WINDOWS, new_event_loop, socket_pair, tcp_pair

pytestmark = pytest.mark.skipif(PYPY, reason="PyPy counts no references")


async def nothing():
    pass


async def timer():
    await asyncio.sleep(0.001)


async def executor():
    await asyncio.get_running_loop().run_in_executor(None, int)


async def generator():
    async def numbers():
        yield 1
        yield 2

    left = numbers()
    await anext(left)
    await asyncio.get_running_loop().shutdown_asyncgens()


async def signals():
    if not WINDOWS:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, int)
        loop.remove_signal_handler(signal.SIGUSR1)


async def watched():
    loop = asyncio.get_running_loop()
    with socket_pair() as (left, right):
        loop.add_reader(left, int)
        loop.remove_reader(left)
        waiting = loop.create_task(loop.sock_recv(left, 1))
        await asyncio.sleep(0)
        right.send(b"x")
        await waiting


async def connection():
    loop = asyncio.get_running_loop()
    with tcp_pair() as (near, _):
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        transport.abort()
        await asyncio.sleep(0)


async def datagrams():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0), family=socket.AF_INET
    )
    transport.close()
    await asyncio.sleep(0)


async def child():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await process.wait()


USES = [
    *(nothing, timer, executor, generator, signals, watched, connection, datagrams),
    pytest.param(
        child,
        marks=[
            pytest.mark.stock_since("3.12", "before, the child watcher keeps the loop"),
            pytest.mark.stock_unless(WINDOWS, "its loop of selectors has no children"),
        ],
    ),
]


@pytest.mark.parametrize("use", USES)
def test_closed_loop_goes_with_its_last_reference(loop_kind, use):
    loop = new_event_loop(loop_kind)
    try:
        loop.run_until_complete(use())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        gone = weakref.ref(loop)
        gc.collect()  # of the task's traceback and the like, not of the loop, which is here
        gc.disable()
        try:
            loop.close()
            del loop
            assert gone() is None
        finally:
            gc.enable()
