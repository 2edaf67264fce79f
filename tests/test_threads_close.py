"""Transports that are closed by another thread than the loop's: finalizers run wherever the
collector does."""

import asyncio
import gc
import os
import subprocess
import sys
import threading

import pytest

from helpers import PATIENCE, PYPY, WINDOWS, RecordingProtocol, run, tcp_pair
from tcp_helpers import in_executor, pattern
from tls_helpers import tls_linked

ENDS = ["close", "abort"]


class Ending(asyncio.BaseProtocol):
    """Knows only whether it ended, as protocols of any kind do."""

    def __init__(self, loop):
        self.lost = loop.create_future()

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@pytest.mark.parametrize("end", ENDS)
def test_connection_ends_in_the_loops_thread(loop, end):
    class Protocol(RecordingProtocol):
        def connection_lost(self, exc):
            lost_in.append(threading.current_thread())
            super().connection_lost(exc)

    lost_in = []

    async def main():
        with tcp_pair() as (near, peer):
            transport, protocol = await loop.create_connection(lambda: Protocol(loop), sock=near)
            transport.write(b"sent before")
            await in_executor(getattr(transport, end))
            await asyncio.wait_for(protocol.lost, PATIENCE)
            assert transport.is_closing()
            assert peer.recv(100) == b"sent before"
            assert peer.recv(100) == b""

    run(loop, main())
    assert lost_in == [threading.main_thread()]


def test_close_sends_first_what_is_queued(loop):
    much = pattern(4 << 20)

    async def main():
        with tcp_pair() as (near, peer):
            transport, protocol = await loop.create_connection(
                lambda: RecordingProtocol(loop), sock=near
            )
            transport.write(much)
            await in_executor(transport.close)

            def drain():
                received = bytearray()
                while piece := peer.recv(1 << 20):
                    received += piece
                return received

            assert await in_executor(drain) == much
            await asyncio.wait_for(protocol.lost, PATIENCE)

    run(loop, main())


@pytest.mark.veloop_only("asyncio's TLS goes on in the other thread")
@pytest.mark.parametrize("end", ENDS)
def test_tls_connection_ends(loop, end):
    async def main():
        async with tls_linked(loop) as (client, server):
            await in_executor(getattr(client.transport, end))
            await asyncio.wait_for(asyncio.gather(client.lost, server.lost), PATIENCE)

    run(loop, main())


@pytest.mark.parametrize("end", ENDS)
def test_endpoint_for_datagrams_ends(loop, end):
    async def main():
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Ending(loop), local_addr=("127.0.0.1", 0)
        )
        await in_executor(getattr(transport, end))
        assert await asyncio.wait_for(protocol.lost, PATIENCE) is None

    run(loop, main())


@pytest.mark.skipif(WINDOWS, reason="the pipes of os.pipe() cannot be watched there")
def test_ends_of_a_pipe_are_closed(loop):
    async def main():
        for mode, connect in (("rb", loop.connect_read_pipe), ("wb", loop.connect_write_pipe)):
            ends = dict(zip(("rb", "wb"), os.pipe(), strict=True))
            transport, protocol = await connect(
                lambda: Ending(loop), os.fdopen(ends.pop(mode), mode, 0)
            )
            await in_executor(transport.close)
            assert await asyncio.wait_for(protocol.lost, PATIENCE) is None
            os.close(ends.popitem()[1])

    run(loop, main())


@pytest.mark.veloop_only("asyncio closes the pipes in the other thread, or asserts that it is none")
def test_child_is_killed(loop):
    async def main():
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol, sys.executable, "-c", "input()", stdin=subprocess.PIPE
        )
        await in_executor(transport.close)
        assert await asyncio.wait_for(transport._wait(), PATIENCE) != 0

    run(loop, main())


@pytest.mark.skipif(PYPY, reason="its collector calls finalizers in the main thread")
def test_connection_whose_writer_the_collector_finds_in_another_thread_is_closed(loop):
    """asyncio's StreamWriter here, and aiohttp's connector, close their transport in __del__()."""

    async def main():
        with tcp_pair() as (near, peer):
            reader, writer = await asyncio.open_connection(sock=near)
            writer.cycle = writer
            del reader, writer
            await in_executor(gc.collect)
            peer.setblocking(False)
            assert await asyncio.wait_for(loop.sock_recv(peer, 1), PATIENCE) == b""

    gc.collect()
    gc.disable()
    try:
        with pytest.warns(ResourceWarning, match="unclosed"):
            run(loop, main())
    finally:
        gc.enable()
