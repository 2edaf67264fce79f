"""TLS after the end: what can still be called, what is sent and delivered whatever ended it."""

import asyncio
import contextlib
import logging
import socket
import sys
import warnings

import pytest

from certificates import server_context
from helpers import PATIENCE, PYPY, RecordingBufferedProtocol, RecordingProtocol, collect, tcp_pair
from tcp_helpers import MUCH, address, in_executor, pattern, reset, run, run_forever, turns, until
from tls_helpers import Peer, tls_linked, tls_serving, tls_wired

# ------------------------------------------------------------ after the end


@pytest.mark.parametrize("method", ["close", "abort"])
def test_writing_after_the_end_is_ignored_and_complained_about_in_the_end(loop, method, caplog):
    """uvloop#506: others raise RuntimeError."""

    async def main():
        async with tls_linked(loop) as (client, server):
            transport = client.transport
            getattr(transport, method)()
            for _ in range(3):
                transport.write(b"x")
            await client.lost
            transport.writelines([b"a", b"b"])
            assert "SSL connection is closed" not in caplog.text
            for _ in range(4):
                transport.write(b"x")
            assert transport.get_write_buffer_size() == 0
            await server.lost
            assert server.data == b""

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(loop, main())
    assert "SSL connection is closed" in caplog.text


def test_everything_can_be_called_after_the_end(loop):
    async def main():
        async with tls_linked(loop) as (client, _):
            transport = client.transport
            transport.abort()
            assert await client.lost is None
            transport.pause_reading()
            transport.resume_reading()
            transport.set_write_buffer_limits(high=10)
            assert transport.get_write_buffer_limits() == (2, 10)
            assert transport.is_closing()
            assert transport.can_write_eof() is False
            transport.abort()
            transport.close()
            await turns()
            assert client.names.count("connection_lost") == 1

    run(loop, main())


@pytest.mark.skipif(PYPY, reason="PyPy has no reference counts")
@pytest.mark.parametrize("how", ["abort", "reset"])
def test_write_buffer_is_dropped_with_the_connection(loop, how):
    """uvloop#548: a transport that somebody still has kept all that was not sent."""

    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            data = pattern(MUCH)
            before = sys.getrefcount(data)
            while transport.get_write_buffer_size() < 2 * MUCH:
                transport.write(data)
            if how == "abort":
                transport.abort()
            else:
                reset(peer.sock)
            await protocol.lost
            assert transport.get_write_buffer_size() == 0
            assert sys.getrefcount(data) == before

    run(loop, main())


def test_abort_is_no_goodbye(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.write(b"hello")
            assert await in_executor(peer.recv, 5) == b"hello"
            transport.abort()
            assert await protocol.lost is None
            with pytest.raises((EOFError, ConnectionResetError)):
                await in_executor(peer.recv, 1)

    run(loop, main())


def test_abort_from_data_received(loop):
    class Aborting(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            self.transport.abort()
            self.transport.write(b"never")

    async def main():
        async with tls_wired(loop, lambda: Aborting(loop)) as (_, protocol, peer):
            peer.sock.sendall(peer.records(b"one"))
            assert await protocol.lost is None
            assert protocol.names == ["connection_made", "data", "connection_lost"]

    run(loop, main())


WORDS = [b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"go away"]


@pytest.mark.parametrize("how", ["abort", "raise"])
@pytest.mark.parametrize("callback", ["connection_made", "data_received", "eof_received"])
def test_what_was_written_before_an_end_at_once_is_sent(loop, callback, how, loop_errors):
    # Nothing holds it up, so it must be with the kernel by then, as over TCP.
    class Ending(RecordingProtocol):
        def last_words(self):
            for word in WORDS:
                self.transport.write(word)
            if how == "abort":
                self.transport.abort()
            else:
                raise ValueError("bad")

    def method(self, *args):
        getattr(RecordingProtocol, callback)(self, *args)
        self.last_words()

    setattr(Ending, callback, method)

    async def main():
        async with tls_serving(loop, lambda: Ending(loop)) as (server, protocols):
            with await in_executor(socket.create_connection, address(server), PATIENCE) as sock:
                peer = Peer(sock)
                await in_executor(peer.handshake)
                if callback == "data_received":
                    peer.send(b"go")
                elif callback == "eof_received":
                    peer.goodbye()
                assert await in_executor(peer.recv, len(b"".join(WORDS))) == b"".join(WORDS)
                await protocols[0].lost
        if how == "raise":
            assert isinstance(loop_errors.take_one()["exception"], ValueError)

    run(loop, main())


async def left_open(loop, near, far):
    """A transport that nobody closes."""
    handshake = loop.create_task(in_executor(Peer(far).handshake))
    transport, _ = await loop.connect_accepted_socket(
        asyncio.Protocol, near.dup(), ssl=server_context()
    )
    await handshake
    await loop.shutdown_default_executor()
    return transport


def test_unclosed_transport_warns(new_loop):
    loop = new_loop()
    with tcp_pair() as ends:
        transport = run(loop, left_open(loop, *ends))
        assert not transport.is_closing()
        loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport, loop
        collect()
        messages = [str(each.message) for each in caught]
        caught.clear()  # which may hold the transport, and that the one below
        collect()
    assert [each for each in messages if "unclosed transport" in each]


@pytest.mark.veloop_only("asyncio: RuntimeError, the loop is closed")
def test_everything_can_be_called_after_the_loop_was_closed(new_loop):
    loop = new_loop()
    with tcp_pair() as ends:
        transport = run(loop, left_open(loop, *ends))
        loop.close()
    transport.write(b"x")
    transport.pause_reading()
    transport.close()
    transport.abort()
    assert transport.is_closing()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the transport below: nobody closed that
        del transport
        collect()


# ------------------------------------------------------------ interrupts


@pytest.mark.veloop_only("asyncio loses what it was about to deliver")
@pytest.mark.parametrize("kind", [RecordingProtocol, RecordingBufferedProtocol])
@pytest.mark.parametrize("callback", ["data", "eof"])
def test_interrupt_in_a_callback_loses_nothing(loop, kind, callback):
    """It leaves the loop; the next run goes on where this one was interrupted."""

    class Interrupted(kind):
        interrupts = 0

        def _received(self, data):
            super()._received(data)
            self.interrupt("data")

        def eof_received(self):
            super().eof_received()
            self.interrupt("eof")

        def interrupt(self, name):
            if name == callback and not self.interrupts:
                self.interrupts += 1
                self.transport.write(b"said before")
                raise KeyboardInterrupt

    async def send():
        stack = contextlib.AsyncExitStack()
        factory = lambda: Interrupted(loop)  # noqa: E731
        wired = await stack.enter_async_context(tls_wired(loop, factory))
        transport, _, peer = wired
        transport.pause_reading()
        peer.sock.sendall(peer.records(pattern(10_000)) + peer.records(b"more"))
        peer.goodbye()
        await until(lambda: transport.get_read_buffer_size() > 10_000)
        return stack, *wired

    stack, transport, protocol, peer = run(loop, send())
    loop.call_soon(transport.resume_reading)
    with pytest.raises(KeyboardInterrupt):
        run_forever(loop)

    async def rest():
        assert await protocol.lost is None
        assert protocol.data == pattern(10_000) + b"more"
        assert protocol.names == ["connection_made", "data", "eof", "connection_lost"]
        assert await in_executor(peer.recv_all) == b"said before"
        await stack.aclose()

    run(loop, rest())


def test_what_was_written_before_an_interrupt_is_sent(loop):
    # The program may end now: there need not be another run.
    class Interrupted(RecordingProtocol):
        def data_received(self, data):
            for word in WORDS:
                self.transport.write(word)
            raise SystemExit

    stack = contextlib.AsyncExitStack()
    wired = tls_wired(loop, lambda: Interrupted(loop))
    _, _, peer = run(loop, stack.enter_async_context(wired))
    peer.send(b"go")
    with pytest.raises(SystemExit):
        run_forever(loop)
    assert peer.recv(len(b"".join(WORDS))) == b"".join(WORDS)
    run(loop, stack.aclose())
