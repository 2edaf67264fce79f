"""Getting a TLS connection: arguments, names, certificates, a handshake that fails or hangs."""

import asyncio
import gc
import logging
import socket
import ssl
import weakref

import pytest

from certificates import CA, client_context, server_context
from helpers import PYPY, RecordingProtocol, listening_socket, socket_pair, tcp_pair
from tcp_helpers import HOST, address, in_executor, reset, run, turns, until
from tls_helpers import NAME, Peer, connect, looked, tls_serving, tls_wired


def nothing(loop):
    return lambda: RecordingProtocol(loop)


# ------------------------------------------------------------ arguments

TIMEOUTS = ["ssl_handshake_timeout", "ssl_shutdown_timeout"]


@pytest.mark.parametrize("name", [*TIMEOUTS, "server_hostname"])
@pytest.mark.parametrize("without", [None, False])
def test_argument_without_tls(loop, name, without):
    async def main():
        value = "name" if name == "server_hostname" else 1.0
        with pytest.raises(ValueError, match=f"{name} is only meaningful with ssl"):
            await loop.create_connection(nothing(loop), HOST, 1, ssl=without, **{name: value})

    run(loop, main())


@pytest.mark.parametrize("name", TIMEOUTS)
def test_argument_without_tls_on_the_servers_side(loop, name):
    async def main():
        with pytest.raises(ValueError, match=f"{name} is only meaningful with ssl"):
            await loop.create_server(nothing(loop), HOST, 0, **{name: 1.0})
        with socket_pair() as (sock, _):
            with pytest.raises(ValueError, match=f"{name} is only meaningful with ssl"):
                await loop.connect_accepted_socket(nothing(loop), sock, **{name: 1.0})

    run(loop, main())


@pytest.mark.stock_since("3.15", "it leaves the socket to the garbage collector")
@pytest.mark.parametrize("name", TIMEOUTS)
@pytest.mark.parametrize("value", [0, -1, -0.5])
def test_timeout_must_be_positive(loop, name, value):
    async def main():
        with listening_socket() as listener:
            with pytest.raises(
                ValueError, match=f"{name} should be a positive number, got {value}"
            ):
                await loop.create_connection(
                    nothing(loop),
                    *listener.getsockname(),
                    ssl=client_context(),
                    **{name: value},
                )

    run(loop, main())


@pytest.mark.veloop_only("asyncio fails with what the clock or OpenSSL says, or when accepting")
def test_wrong_types_are_named(loop):
    async def main():
        with pytest.raises(TypeError, match="ssl_handshake_timeout must be a number"):
            await loop.create_connection(
                nothing(loop), HOST, 1, ssl=client_context(), ssl_handshake_timeout="1"
            )
        with pytest.raises(TypeError, match="ssl must be an ssl.SSLContext, .* not 'x'"):
            await loop.create_connection(nothing(loop), HOST, 1, ssl="x")
        with pytest.raises(TypeError, match="ssl must be an ssl.SSLContext, .* not 'x'"):
            await loop.create_server(nothing(loop), HOST, 0, ssl="x")
        with pytest.raises(ValueError, match="ssl_shutdown_timeout should be a positive"):
            await loop.create_server(
                nothing(loop), HOST, 0, ssl=server_context(), ssl_shutdown_timeout=0
            )

    run(loop, main())


@pytest.mark.parametrize("value", [True, False])
def test_server_needs_a_context(loop, value):
    async def main():
        with pytest.raises(TypeError, match="ssl argument must be an SSLContext or None"):
            await loop.create_server(nothing(loop), HOST, 0, ssl=value)

    run(loop, main())


def test_accepted_socket_needs_a_context(loop):
    async def main():
        with tcp_pair() as (_, server), server.dup() as sock:
            with pytest.raises(ValueError, match="Server side SSL needs a valid SSLContext"):
                await loop.connect_accepted_socket(nothing(loop), sock, ssl=True)

    run(loop, main())


def test_socket_needs_a_server_hostname(loop):
    async def main():
        with socket_pair() as (sock, _):
            with pytest.raises(ValueError, match="You must set server_hostname when using ssl"):
                await loop.create_connection(nothing(loop), sock=sock, ssl=client_context())
        with pytest.raises(ValueError, match="You must set server_hostname when using ssl"):
            await loop.create_connection(nothing(loop), port=1, ssl=client_context())

    run(loop, main())


@pytest.mark.veloop_only("asyncio leaves the socket to the garbage collector")
@pytest.mark.parametrize("name", [".wrong", "a\0b"])
def test_name_that_is_none_leaks_nothing(loop, name):
    async def main():
        async with tls_serving(loop) as (server, _):
            with pytest.raises((ValueError, TypeError)):
                await connect(loop, server, server_hostname=name)

    run(loop, main())


# ------------------------------------------------------------ names and certificates


def test_host_is_the_default_name(loop):
    async def main():
        async with tls_serving(loop, host="localhost", family=socket.AF_INET) as (server, _):
            transport, protocol = await loop.create_connection(
                nothing(loop), "localhost", address(server)[1], ssl=client_context()
            )
            transport.close()
            await protocol.lost
            # The number is in the certificate, too.
            transport, protocol = await loop.create_connection(
                nothing(loop), *address(server), ssl=client_context()
            )
            transport.close()
            await protocol.lost

    run(loop, main())


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ("othername", "Hostname mismatch"),
        ("expired", "expired"),
        ("unknown", "self.signed"),
    ],
)
def test_wrong_certificate(loop, certificate, reason):
    async def main():
        async with tls_serving(loop, context=server_context(certificate)) as (server, protocols):
            with pytest.raises(ssl.SSLCertVerificationError, match=reason):
                await connect(loop, server)
            await turns(10)
            for protocol in protocols:
                assert "data" not in protocol.names

    run(loop, main())


def test_empty_name_switches_the_check_off(loop):
    async def main():
        context = client_context()
        context.check_hostname = False  # or OpenSSL insists on a name, from Python 3.15 on
        async with tls_serving(loop, context=server_context("othername")) as (server, _):
            transport, protocol = await connect(loop, server, ssl=context, server_hostname="")
            transport.close()
            await protocol.lost

    run(loop, main())


def test_default_context_trusts_the_systems_authorities(loop, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CA))

    async def main():
        async with tls_serving(loop) as (server, _):
            transport, protocol = await connect(loop, server, ssl=True)
            assert transport.get_extra_info("sslcontext").check_hostname
            transport.close()
            await protocol.lost
            transport, protocol = await connect(loop, server, ssl=True, server_hostname="")
            assert not transport.get_extra_info("sslcontext").check_hostname
            transport.close()
            await protocol.lost
            monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(loop, server, ssl=True)

    run(loop, main())


@pytest.mark.parametrize("certificate", [None, "unknown"])
def test_client_certificate_that_the_server_does_not_accept(loop, certificate):
    async def main():
        asking = client_context()
        if certificate:
            asking.load_cert_chain(CA.with_name(f"{certificate}.pem"))
        asking.maximum_version = ssl.TLSVersion.TLSv1_2  # where the client hears of it in time
        accepting = server_context(client_certificate=True)
        async with tls_serving(loop, context=accepting) as (server, protocols):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await connect(loop, server, ssl=asking)
            assert protocols[0].names == []

    run(loop, main())


# ------------------------------------------------------------ a handshake that comes to nothing


@pytest.mark.veloop_only("asyncio ends the connection without a word")
def test_the_peer_is_told_why_the_handshake_failed(loop):
    async def main():
        with tcp_pair() as (near, far):
            peer = Peer(far, server_context("othername"), server_side=True)
            handshake = loop.create_task(in_executor(peer.handshake))
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(
                    nothing(loop), sock=near.dup(), ssl=client_context(), server_hostname=NAME
                )
            with pytest.raises(ssl.SSLError, match="(?i)alert"):
                await handshake
                peer.recv(1)

    run(loop, main())


@pytest.mark.parametrize("server_side", [False, True])
def test_handshake_timeout(loop, server_side):
    async def main():
        with tcp_pair() as (near, _):
            sock = near.dup()
            before = loop.time()
            with pytest.raises(ConnectionAbortedError, match="SSL handshake is taking longer"):
                if server_side:
                    await loop.connect_accepted_socket(
                        nothing(loop), sock, ssl=server_context(), ssl_handshake_timeout=0.05
                    )
                else:
                    await loop.create_connection(
                        nothing(loop),
                        sock=sock,
                        ssl=client_context(),
                        server_hostname=NAME,
                        ssl_handshake_timeout=0.05,
                    )
            assert 0.05 <= loop.time() - before < 5
            await turns()
            assert sock.fileno() == -1

    run(loop, main())


@pytest.mark.parametrize("how", ["eof", "reset", "rubbish"])
def test_peer_that_does_not_speak_tls(loop, how):
    async def main():
        with tcp_pair() as (near, far):
            protocol = RecordingProtocol(loop)
            task = loop.create_task(
                loop.create_connection(
                    lambda: protocol, sock=near.dup(), ssl=client_context(), server_hostname=NAME
                )
            )
            await in_executor(far.recv, 1)
            if how == "eof":
                far.shutdown(socket.SHUT_WR)
            elif how == "reset":
                reset(far)
            else:
                far.sendall(b"HTTP/1.0 400 Bad request\r\n\r\n")
            with pytest.raises(ssl.SSLError if how == "rubbish" else ConnectionError):
                await task
            await turns()
            assert protocol.names == []

    run(loop, main())


def test_cancelled_handshake_leaves_nothing(loop):
    async def main():
        with tcp_pair() as (near, far):
            protocol = RecordingProtocol(loop)
            sock = near.dup()
            near.close()
            task = loop.create_task(
                loop.create_connection(
                    lambda: protocol, sock=sock, ssl=client_context(), server_hostname=NAME
                )
            )
            await in_executor(far.recv, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns()
            assert sock.fileno() == -1
            assert protocol.names == []
            while await in_executor(far.recv, 1 << 16):
                pass

    run(loop, main())


@pytest.mark.veloop_only("asyncio goes on with the handshake")
@pytest.mark.parametrize("count", range(4))
def test_cancelled_at_once_leaves_nothing(loop, count):
    async def main():
        with tcp_pair() as (near, far):
            protocol = RecordingProtocol(loop)
            sock = near.dup()
            near.close()
            task = loop.create_task(
                loop.create_connection(
                    lambda: protocol, sock=sock, ssl=client_context(), server_hostname=NAME
                )
            )
            await turns(count)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns(5)
            assert protocol.names == []
            if count:  # else it never began
                assert sock.fileno() == -1
            else:
                sock.close()

    run(loop, main())


@pytest.mark.skipif(PYPY, reason="PyPy has no reference counts: a cycle costs nothing there")
@pytest.mark.veloop_only("asyncio is free of cycles here only since 3.15")
@pytest.mark.parametrize("seed", range(6))
def test_failed_handshake_makes_no_reference_cycle(loop, seed):
    class Held:
        pass

    async def main():
        async with tls_serving(loop, context=server_context("othername")) as (server, _):
            contexts = []

            async def attempt():
                context = client_context()
                contexts.append(weakref.ref(context))
                protocol = RecordingProtocol(loop)
                contexts.append(weakref.ref(protocol))
                try:
                    await connect(loop, server, lambda: protocol, ssl=context)
                except ssl.SSLCertVerificationError:
                    pass

            gc.collect()
            gc.disable()
            try:
                await attempt()
                await turns(3)
                assert [ref() for ref in contexts] == [None, None]
            finally:
                gc.enable()

    run(loop, main())


@pytest.mark.parametrize("server_side", [False, True])
def test_truncated_at_every_byte(loop, server_side):
    """The peer's first flight, cut off: each length of it ends in an error, and soon."""

    def first_flight(sock_for_peer):
        peer = Peer(sock_for_peer, server_side=not server_side)
        if server_side:
            with pytest.raises(ssl.SSLWantReadError):
                peer.sslobj.do_handshake()
        else:
            hello = sock_for_peer.recv(1 << 16)
            peer.incoming.write(hello)
            with pytest.raises(ssl.SSLWantReadError):
                peer.sslobj.do_handshake()
        return peer.outgoing.read()

    async def attempt(length, step):
        with tcp_pair() as (near, far):
            arguments = (
                {"ssl": server_context()}
                if server_side
                else {"ssl": client_context(), "server_hostname": NAME}
            )
            method = loop.connect_accepted_socket if server_side else loop.create_connection
            protocol = RecordingProtocol(loop)
            sock = near.dup()
            task = loop.create_task(method(lambda: protocol, sock=sock, **arguments))
            flight = await in_executor(first_flight, far)
            if length >= len(flight):
                await turns(10)  # asyncio keeps the socket if it is too early for a handshake
                task.cancel()
                with pytest.raises((asyncio.CancelledError, OSError)):
                    await task
                await until(lambda: sock.fileno() == -1)
                return False
            far.sendall(flight[:length])
            far.shutdown(socket.SHUT_WR)
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await task
            await until(lambda: sock.fileno() == -1)
            assert protocol.names == []
            return True

    async def main():
        length = 0
        while await attempt(length, 1):
            length += 1 if length < 12 else 97

    run(loop, main())


# ------------------------------------------------------------ abort and close in connection_made


@pytest.mark.parametrize("method", ["close", "abort"])
def test_closed_in_connection_made(loop, method):
    class Leaving(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            getattr(transport, method)()

    async def main():
        async with tls_serving(loop) as (server, protocols):
            transport, protocol = await connect(loop, server, lambda: Leaving(loop))
            assert transport.is_closing()
            assert await protocol.lost is None
            if method == "close":
                await until(lambda: protocols and protocols[0].lost.done())

    run(loop, main())


def test_written_in_connection_made_goes_out_with_the_handshake(loop):
    class Greeting(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"hel")
            transport.write(b"lo")

    async def main():
        async with tls_wired(loop, lambda: Greeting(loop)) as (_, _, peer):
            assert await in_executor(peer.recv, 5) == b"hello"
        async with tls_wired(loop, lambda: Greeting(loop), server_side=False) as (_, _, peer):
            assert await in_executor(peer.recv, 5) == b"hello"

    run(loop, main())


def test_paused_in_connection_made_gets_no_data_that_came_with_the_handshake(loop):
    class Paused(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    def shake_hands_and_talk(peer):
        flush, peer.flush = peer.flush, lambda: None
        with pytest.raises(ssl.SSLWantReadError):
            peer.sslobj.do_handshake()
        flush()
        while True:
            peer._receive()
            try:
                peer.sslobj.do_handshake()
                break
            except ssl.SSLWantReadError:
                flush()
        peer.sslobj.write(b"at once")
        flush()

    async def main():
        with tcp_pair() as (near, far):
            talking = loop.create_task(in_executor(shake_hands_and_talk, Peer(far)))
            transport, protocol = await loop.connect_accepted_socket(
                lambda: Paused(loop), near.dup(), ssl=server_context()
            )
            await talking
            await looked(loop)
            assert protocol.names == ["connection_made"]
            transport.resume_reading()
            assert await protocol.received(7) == b"at once"
            transport.abort()
            await protocol.lost

    run(loop, main())


@pytest.mark.veloop_only("asyncio does not send the end of its handshake before it is resumed")
def test_paused_in_connection_made_still_completes_the_handshake(loop):
    class Paused(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        async with tls_wired(loop, lambda: Paused(loop), server_side=False) as wired:
            transport, protocol, peer = wired
            peer.send(b"data")
            await turns(10)
            assert protocol.names == ["connection_made"]
            transport.resume_reading()
            await protocol.received(4)

    run(loop, main())


def test_debug_mode_logs_the_handshake(loop, caplog):
    async def main():
        loop.set_debug(True)
        loop.slow_callback_duration = 10
        async with tls_serving(loop) as (server, _):
            transport, protocol = await connect(loop, server)
            transport.close()
            await protocol.lost

    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        run(loop, main())
    text = caplog.text
    assert text.count("starts SSL handshake") == 2
    assert text.count("SSL handshake took") == 2
