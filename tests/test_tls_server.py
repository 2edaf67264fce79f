"""Servers with TLS: many handshakes at once, failing ones, the server's end, nothing left over."""

import asyncio
import gc
import socket
import ssl
import weakref

import pytest

from certificates import client_context, server_context
from helpers import PATIENCE, PYPY, RecordingProtocol, collect
from tcp_helpers import HOST, address, in_executor, reset, run, turns, until
from tls_helpers import Peer, connect, tls_linked, tls_serving


def raw(server):
    return socket.create_connection(address(server), PATIENCE)


# ------------------------------------------------------------ handshakes


def test_handshakes_under_way_hold_up_nobody(loop):
    async def main():
        async with tls_serving(loop) as (server, protocols):
            idle = [raw(server) for _ in range(50)]
            for sock in idle[::2]:
                sock.send(b"\x16\x03\x01")  # the beginning of one
            transport, protocol = await connect(loop, server)
            transport.write(b"hello")
            await until(lambda: any(p.data for p in protocols))
            transport.close()
            await protocol.lost
            for sock in idle:
                sock.close()
            await until(lambda: len(protocols) == 51)

    run(loop, main())


def test_many_at_once(loop):
    async def main():
        async with tls_serving(loop) as (server, protocols):
            context = client_context()
            made = await asyncio.gather(*(connect(loop, server, ssl=context) for _ in range(60)))
            for transport, _ in made:
                transport.write(b"x" * 1000)
            await asyncio.gather(*(p.connected for p in protocols))
            await asyncio.gather(*(p.received(1000) for p in protocols))
            for transport, _ in made:
                transport.close()
            for _, protocol in made:
                assert await protocol.lost is None

    run(loop, main())


@pytest.mark.parametrize("how", ["eof", "reset", "rubbish", "refused"])
@pytest.mark.parametrize("debug", [False, True])
def test_handshake_that_fails_is_reported_in_debug_mode_only(loop, loop_errors, how, debug):
    async def main():
        loop.set_debug(debug)
        loop.slow_callback_duration = 10
        async with tls_serving(loop) as (server, protocols):
            if how == "refused":
                with pytest.raises(ssl.SSLCertVerificationError):
                    await connect(loop, server, server_hostname="elsewhere.test")
            else:
                with raw(server) as sock:
                    if how == "reset":
                        await until(lambda: protocols)
                        await turns(5)
                        reset(sock)
                    elif how == "rubbish":
                        sock.send(b"GET / HTTP/1.0\r\n\r\n")
                        await in_executor(sock.recv, 100)
            await until(lambda: protocols)
            await turns(20)
            assert protocols[0].names == []

    run(loop, main())
    reported = loop_errors.take()
    if not debug:
        assert reported == []
    else:
        assert len(reported) == 1
        assert reported[0]["message"] == "Error on transport creation for incoming connection"
        assert isinstance(reported[0]["exception"], OSError)
        assert isinstance(reported[0]["protocol"], RecordingProtocol)
        assert "transport" in reported[0]


def test_handshake_timeout(loop):
    async def main():
        async with tls_serving(loop, ssl_handshake_timeout=0.05) as (server, protocols):
            with raw(server) as sock:
                # With or without an alert of ours.
                with pytest.raises((EOFError, ConnectionError)):
                    await in_executor(Peer(sock)._receive)
            assert protocols[0].names == []

    run(loop, main())


# ------------------------------------------------------------ the end of the server


@pytest.mark.stock_since("3.12.1", "wait_closed() did not wait")
def test_wait_closed_waits_for_connections(loop):
    async def main():
        async with tls_serving(loop) as (server, protocols):
            transport, protocol = await connect(loop, server)
            await until(lambda: protocols and protocols[0].connected.done())
            server.close()
            waiting = loop.create_task(server.wait_closed())
            await turns(10)
            assert not waiting.done()
            transport.close()
            await protocol.lost
            await waiting
            assert protocols[0].lost.done()

    run(loop, main())


@pytest.mark.veloop_only("asyncio closes the TCP connections below: what is left to send is lost")
def test_close_clients_closes_in_order(loop):
    async def main():
        async with tls_serving(loop) as (server, protocols):
            with raw(server) as sock:
                peer = Peer(sock)
                await in_executor(peer.handshake)
                await until(lambda: protocols[0].connected.done())
                server.close()
                protocols[0].transport.write(b"bye")
                server.close_clients()
                assert await in_executor(peer.recv_all) == b"bye"
                await in_executor(peer.unwrap)
                await server.wait_closed()
                assert protocols[0].lost.result() is None

    run(loop, main())


@pytest.mark.stock_since("3.13", "abort_clients() is new")
def test_abort_clients(loop):
    async def main():
        async with tls_serving(loop) as (server, protocols):
            with raw(server) as sock:
                peer = Peer(sock)
                await in_executor(peer.handshake)
                await until(lambda: protocols[0].connected.done())
                server.close()
                server.abort_clients()
                await server.wait_closed()
                assert protocols[0].lost.result() is None

    run(loop, main())


@pytest.mark.stock_since("3.13", "close_clients() is new")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_closed_during_handshakes(loop, method):
    async def main():
        async with tls_serving(loop) as (server, protocols):
            socks = [raw(server) for _ in range(10)]
            for sock in socks:
                sock.send(b"\x16\x03\x01")
            await until(lambda: len(protocols) == 10)
            await turns(5)
            server.close()
            getattr(server, method)()
            await server.wait_closed()
            assert all(protocol.names == [] for protocol in protocols)
            for sock in socks:
                with sock:
                    assert await in_executor(_rest, sock) == b""

    run(loop, main())


def _rest(sock):
    try:
        return sock.recv(100)
    except ConnectionError:
        return b""


def test_wait_closed_waits_for_handshakes(loop):
    async def main():
        async with tls_serving(loop) as (server, protocols):
            sock = raw(server)
            await until(lambda: protocols)
            server.close()
            waiting = loop.create_task(server.wait_closed())
            await turns(10)
            if not waiting.done():  # asyncio only since 3.12
                sock.close()
                await waiting
            sock.close()

    run(loop, main())


# ------------------------------------------------------------ nothing is left over


@pytest.mark.skipif(PYPY, reason="PyPy has no reference counts: a cycle costs nothing there")
@pytest.mark.veloop_only("asyncio has cycles here before 3.15")
@pytest.mark.parametrize("how", ["close", "abort", "peer", "refused"])
def test_connections_leave_no_cycles(loop, how):
    """uvloop#220, #239: contexts and transports that nobody collected."""

    class Plain(asyncio.Protocol):
        def connection_lost(self, exc):
            lost.append(exc)

    lost = []

    async def connection(server, references):
        context = client_context()
        references.append(weakref.ref(context))
        if how == "refused":
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(loop, server, Plain, ssl=context, server_hostname="elsewhere.test")
            return
        transport, protocol = await connect(loop, server, Plain, ssl=context)
        references += [weakref.ref(transport), weakref.ref(protocol)]
        transport.write(b"x" * 100_000)
        if how == "peer":
            del transport, protocol
            server.close_clients()
        else:
            getattr(transport, "close" if how == "close" else "abort")()
            del transport, protocol

    async def main():
        server = await loop.create_server(Plain, HOST, 0, ssl=server_context())
        references = []
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await connection(server, references)
            server.close()
            await server.wait_closed()
            if how != "refused":
                await until(lambda: len(lost) >= 3)
            await turns(5)
            assert [ref() for ref in references] == [None] * len(references)
        finally:
            gc.enable()

    run(loop, main())


def test_failed_and_good_connections_in_turn_do_not_add_up(loop):
    """uvloop#565: RAM that grew with each connection."""

    async def main():
        async with tls_serving(loop) as (server, protocols):

            async def some():
                for _ in range(10):
                    transport, protocol = await connect(loop, server)
                    transport.write(b"x" * 10_000)
                    transport.close()
                    await protocol.lost
                    with pytest.raises(ssl.SSLCertVerificationError):
                        await connect(loop, server, server_hostname="elsewhere.test")
                await turns(10)
                protocols.clear()
                collect()
                return sum(isinstance(each, ssl.SSLObject) for each in gc.get_objects())

            before = await some()
            # PyPy's registers may still hold one; each round makes forty. And it takes its time.
            for _ in range(1 if PYPY else 3):
                assert await some() <= before + PYPY

    run(loop, main())


def test_context_can_change_while_serving(loop):
    async def main():
        context = server_context("othername")
        async with tls_serving(loop, context=context) as (server, _):
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(loop, server)
            context.load_cert_chain(__file__.replace("test_tls_server.py", "certs/server.pem"))
            transport, protocol = await connect(loop, server)
            transport.close()
            await protocol.lost

    run(loop, main())


@pytest.mark.veloop_only("asyncio lets other threads break things")
def test_other_thread_is_refused(loop):
    async def main():
        async with tls_linked(loop) as (client, server):
            for method, args in [("write", [b"x"]), ("writelines", [[b"x"]])]:
                with pytest.raises(RuntimeError, match="running in thread"):
                    await in_executor(getattr(client.transport, method), *args)
            client.transport.write(b"still fine")
            assert await server.received(10) == b"still fine"

    run(loop, main())
