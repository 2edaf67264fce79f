"""TLS connections from end to end: what is sent, what is told, what can be asked."""

import asyncio
import contextvars
import ssl

import pytest

from certificates import client_context, server_context
from helpers import RecordingBufferedProtocol, RecordingProtocol, resizing
from tcp_helpers import MUCH, in_executor, pattern, run, turns, until
from tls_helpers import connect, tls_linked, tls_serving, tls_wired

# ------------------------------------------------------------ data


@pytest.mark.parametrize("size", [1, 1000, 16384, 16385, 70_000, 1 << 20])
def test_what_is_written_arrives_in_both_directions(loop, size):
    async def main():
        data = pattern(size)
        async with tls_linked(loop) as (client, server):
            client.transport.write(data)
            assert await server.received(size) == data
            server.transport.write(data)
            assert await client.received(size) == data

    run(loop, main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("buffered", [False, True])
def test_versions_and_kinds_of_protocol(loop, version, buffered):
    kind = RecordingBufferedProtocol if buffered else RecordingProtocol

    async def main():
        context = server_context()
        context.minimum_version = context.maximum_version = version
        both = lambda: kind(loop)  # noqa: E731
        async with tls_linked(loop, both, both, server=context) as (client, server):
            assert client.transport.get_extra_info("ssl_object").version() == version.name.replace(
                "_", "."
            )
            client.transport.write(pattern(300_000))
            assert await server.received(300_000) == pattern(300_000)
            client.transport.close()
            assert await client.lost is None
            assert await server.lost is None
            assert server.names == ["connection_made", "data", "eof", "connection_lost"]

    run(loop, main())


def test_writelines_and_all_kinds_of_bytes(loop):
    async def main():
        async with tls_linked(loop) as (client, server):
            client.transport.writelines([b"12", bytearray(b"34"), memoryview(b"56")])
            client.transport.write(memoryview(b"xyz"))
            client.transport.write(b"")
            client.transport.writelines([])
            assert await server.received(9) == b"123456xyz"

    run(loop, main())


@pytest.mark.veloop_only("asyncio gives these to OpenSSL, which breaks the connection")
def test_strided_views_and_empty_pieces(loop):
    async def main():
        async with tls_linked(loop) as (client, server):
            view = memoryview(bytearray(b"abcdef"))[::2]
            client.transport.write(view)
            client.transport.writelines([b"", view, b"", memoryview(b"")])
            client.transport.write(b"!")
            assert await server.received(7) == b"aceace!"

    run(loop, main())


def test_only_bytes_can_be_written(loop):
    async def main():
        async with tls_linked(loop) as (client, _):
            with pytest.raises(TypeError, match="str"):
                client.transport.write("text")
            with pytest.raises(TypeError):
                client.transport.writelines([b"fine", 1])

    run(loop, main())


def test_there_is_no_half_close(loop):
    async def main():
        async with tls_linked(loop) as (client, _):
            assert client.transport.can_write_eof() is False
            with pytest.raises(NotImplementedError):
                client.transport.write_eof()

    run(loop, main())


def test_much_both_ways_at_once(loop):
    async def main():
        data = pattern(MUCH)
        async with tls_linked(loop) as (client, server):
            client.transport.write(data)
            server.transport.write(data)
            assert await server.received(MUCH) == data
            assert await client.received(MUCH) == data

    run(loop, main())


# ------------------------------------------------------------ extra info


def test_extra_info_is_tlss_and_the_sockets(loop):
    async def main():
        context = client_context()
        async with tls_linked(loop, client=context) as (client, server):
            info = client.transport.get_extra_info
            sslobj = info("ssl_object")
            assert isinstance(sslobj, ssl.SSLObject)
            assert info("sslcontext") is context
            assert info("peercert") == sslobj.getpeercert()
            assert ("DNS", "localhost") in info("peercert")["subjectAltName"]
            assert info("cipher") == sslobj.cipher()
            assert info("compression") is None
            assert info("compression", "default") is None
            assert info("nonsense") is None
            assert info("nonsense", 1) == 1
            assert info("peername") == server.transport.get_extra_info("sockname")
            assert info("socket").fileno() > 0
            assert server.transport.get_extra_info("peercert") is None
            assert isinstance(server.transport.get_extra_info("sslcontext"), ssl.SSLContext)

    run(loop, main())


def test_extra_info_after_the_end(loop):
    async def main():
        async with tls_linked(loop) as (client, _):
            cipher = client.transport.get_extra_info("cipher")
            client.transport.close()
            await client.lost
            assert client.transport.get_extra_info("cipher") == cipher
            assert client.transport.get_extra_info("sslcontext") is not None
            assert client.transport.get_extra_info("peername", "gone") == "gone"

    run(loop, main())


def test_alpn_and_sni(loop):
    async def main():
        names = []
        accepting, asking = server_context(), client_context()
        accepting.set_alpn_protocols(["h2", "http/1.1"])
        accepting.sni_callback = lambda sslobj, name, context: names.append(name)
        asking.set_alpn_protocols(["http/1.1"])
        async with tls_linked(loop, server=accepting, client=asking) as (client, server):
            for protocol in (client, server):
                sslobj = protocol.transport.get_extra_info("ssl_object")
                assert sslobj.selected_alpn_protocol() == "http/1.1"
        assert names == ["localhost"]

    run(loop, main())


def test_client_certificate(loop):
    async def main():
        accepting = server_context(client_certificate=True)
        async with tls_linked(loop, server=accepting, client=client_context("client")) as (
            _,
            server,
        ):
            assert server.transport.get_extra_info("peercert")["subject"]

    run(loop, main())


def test_repr_names_state_and_what_is_below(loop, loop_kind):
    async def main():
        async with tls_linked(loop) as (client, _):
            if loop_kind == "veloop":
                assert "SSLTransport open over <StreamTransport fd=" in repr(client.transport)
            client.transport.close()
            await client.lost
            if loop_kind == "veloop":
                assert repr(client.transport) == "<SSLTransport closed over None>"

    run(loop, main())


def test_what_asyncio_looks_for(loop):
    async def main():
        async with tls_linked(loop) as (client, _):
            transport = client.transport
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.transports._FlowControlMixin)
            assert transport._start_tls_compatible
            assert transport._sendfile_compatible is asyncio.constants._SendfileMode.FALLBACK
            assert transport._protocol_paused is False
            assert transport.get_protocol() is client
            assert "ssl" in type(transport).__name__.lower()

    run(loop, main())


# ------------------------------------------------------------ protocols


def test_protocol_can_be_replaced_in_the_middle(loop):
    async def main():
        async with tls_wired(loop) as (transport, first, peer):
            peer.send(b"first")
            await first.received(5)
            second = RecordingBufferedProtocol(loop, size=3)
            transport.set_protocol(second)
            peer.send(b"second")
            assert await second.received(6) == b"second"
            third = RecordingProtocol(loop)
            transport.set_protocol(third)
            peer.send(b"third")
            assert await third.received(5) == b"third"
            assert first.data == b"first"
            third.connected.set_result(None)

    run(loop, main())


@pytest.mark.veloop_only("asyncio loses what comes with the piece that made the protocol leave")
def test_buffered_protocol_that_hands_over_loses_nothing(loop):
    class Handing(RecordingBufferedProtocol):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.set_protocol(self.next)

    async def main():
        async with tls_wired(loop, lambda: Handing(loop, size=3)) as (_, first, peer):
            first.next = RecordingProtocol(loop)
            peer.sock.sendall(peer.records(b"abcdef") + peer.records(b"ghi"))
            assert await first.next.received(6) == b"defghi"
            assert first.data == b"abc"

    run(loop, main())


@pytest.mark.veloop_only("asyncio loses data if the buffer is a bytearray longer than a record")
@pytest.mark.parametrize("size", [1, 5, 4096, 1 << 20])
def test_buffered_protocol_of_any_size(loop, size):
    async def main():
        factory = lambda: RecordingBufferedProtocol(loop, size=size)  # noqa: E731
        amount = 3000 if size < 100 else 200_000
        async with tls_wired(loop, factory) as (_, protocol, peer):
            await in_executor(peer.send, pattern(amount))
            assert await protocol.received(amount) == pattern(amount)

    run(loop, main())


@pytest.mark.veloop_only("asyncio loses data if the buffer is a bytearray longer than a record")
def test_buffer_of_the_protocol_may_be_resized(loop):
    Protocol = resizing(RecordingBufferedProtocol)

    async def main():
        async with tls_wired(loop, lambda: Protocol(loop, size=8)) as (_, protocol, peer):
            await in_executor(peer.send, pattern(3000))
            assert await protocol.received(3000) == pattern(3000)

    run(loop, main())


@pytest.mark.veloop_only("asyncio takes an empty buffer for the end of the stream")
def test_buffered_protocol_without_a_buffer(loop, loop_errors):
    class Stingy(RecordingBufferedProtocol):
        def get_buffer(self, sizehint):
            return bytearray()

    async def main():
        async with tls_wired(loop, lambda: Stingy(loop)) as (_, protocol, peer):
            peer.send(b"x")
            return await protocol.lost

    exc = run(loop, main())
    assert isinstance(exc, RuntimeError)
    assert loop_errors.take_one()["exception"] is exc


@pytest.mark.parametrize("callback", ["data_received", "connection_made", "eof_received"])
def test_exception_of_the_protocol_ends_the_connection(loop, loop_errors, callback):
    class Failing(RecordingProtocol):
        pass

    def fail(self, *args):
        if callback == "connection_made":
            self.transport = args[0]
        raise ZeroDivisionError(callback)

    setattr(Failing, callback, fail)
    if callback == "connection_made":
        Failing.connected = property(lambda self: self.__dict__["connected"], lambda *_: None)

    async def main():
        protocols = []

        def factory():
            protocols.append(Failing(loop))
            return protocols[0]

        async with tls_serving(loop, factory) as (server, _):
            transport, protocol = await connect(loop, server)
            transport.write(b"x")
            if callback == "eof_received":
                transport.close()
            await protocol.lost
            return await protocols[0].lost

    exc = run(loop, main())
    assert isinstance(exc, ZeroDivisionError)
    reported = [context["exception"] for context in loop_errors.take()]
    assert reported[0] is exc


@pytest.mark.veloop_only("asyncio delivers in the context of who called resume_reading()")
def test_callbacks_run_in_the_context_of_the_connection(loop):
    variable = contextvars.ContextVar("variable", default="unset")

    class Noting(RecordingProtocol):
        def __init__(self, loop):
            super().__init__(loop)
            self.seen = []

        def connection_made(self, transport):
            self.seen.append(variable.get())
            variable.set("connection's")
            super().connection_made(transport)

        def data_received(self, data):
            self.seen.append(variable.get())
            super().data_received(data)

        def eof_received(self):
            self.seen.append(variable.get())

        def connection_lost(self, exc):
            self.seen.append(variable.get())
            super().connection_lost(exc)

    async def main():
        async with tls_linked(loop, server_factory=lambda: Noting(loop)) as (client, server):
            variable.set("test's")
            server.transport.pause_reading()
            client.transport.write(b"x")
            await turns(5)
            server.transport.resume_reading()
            await server.received(1)
            client.transport.close()
            await server.lost
            assert server.seen == ["unset"] + 3 * ["connection's"]

    run(loop, main())


# ------------------------------------------------------------ messages that are no data


def test_post_handshake_authentication(loop):
    async def main():
        accepting, asking = server_context(client_certificate=True), client_context("client")
        accepting.verify_mode = ssl.CERT_OPTIONAL
        accepting.post_handshake_auth = asking.post_handshake_auth = True
        async with tls_linked(loop, server=accepting, client=asking) as (client, server):
            sslobj = server.transport.get_extra_info("ssl_object")
            assert sslobj.getpeercert() is None
            sslobj.verify_client_post_handshake()
            server.transport.write(b"who are you?")
            await client.received(12)
            client.transport.write(b"me")
            assert await server.received(2) == b"me"
            assert sslobj.getpeercert()["subject"]

    run(loop, main())


def test_session_can_be_resumed(loop):
    async def main():
        asking = client_context()
        asking.maximum_version = ssl.TLSVersion.TLSv1_2
        async with tls_serving(loop) as (server, protocols):
            transport, protocol = await connect(loop, server, ssl=asking)
            session = transport.get_extra_info("ssl_object").session
            assert session.has_ticket
            transport.close()
            await protocol.lost
            await until(lambda: protocols[0].lost.done())

    run(loop, main())
