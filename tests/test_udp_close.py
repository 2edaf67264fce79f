"""udp.py, the end of an endpoint: close, abort, from within callbacks, with the loop."""

import gc
import logging
import socket
import warnings
import weakref

import pytest

from children import run_script
from helpers import PYPY, WINDOWS, collect
from tcp_helpers import HOST, run, turns
from udp_helpers import ANY, Recorder, endpoint, name, pair, udp_socket


@pytest.mark.parametrize("method", ["close", "abort"])
def test_connection_lost_comes_in_a_turn_of_its_own(loop, method):
    async def main():
        async with endpoint(loop, local_addr=ANY) as protocol:
            transport = protocol.transport
            assert not transport.is_closing()
            getattr(transport, method)()
            assert transport.is_closing()
            assert protocol.events == ["connection_made"]
            assert await protocol.lost is None
            assert protocol.events == ["connection_made", "connection_lost"]
            assert transport.get_extra_info("socket").fileno() == -1

    run(loop, main())


def test_close_again_changes_nothing(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY) as protocol:
            transport = protocol.transport
            transport.close()
            transport.close()
            transport.abort()
            await protocol.lost
            await turns()
            transport.close()
            assert transport.is_closing()
            await turns()
            assert protocol.events == ["connection_made", "connection_lost"]

    run(loop, main())


@pytest.mark.stock_since("3.15", "earlier ones fail once they are closed")
def test_abort_after_the_end(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY) as protocol:
            protocol.transport.close()
            await protocol.lost
            await turns()
            protocol.transport.abort()
            await turns()
            assert protocol.events == ["connection_made", "connection_lost"]

    run(loop, main())


@pytest.mark.parametrize("method", ["close", "abort"])
def test_nothing_is_received_after_the_end(loop, method):
    async def main():
        async with pair(loop) as (server, client):
            await turns()
            client.transport.sendto(b"too late")
            getattr(server.transport, method)()
            await server.lost
            await turns(10)
            assert server.datagrams == []

    run(loop, main())


@pytest.mark.parametrize("method", ["close", "abort"])
def test_closing_in_datagram_received_drops_the_rest_of_the_batch(loop, method):
    class Closes(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            getattr(self.transport, method)()

    async def main():
        async with pair(loop, Closes) as (server, client):
            for n in range(10):
                client.transport.sendto(b"%d" % n)
            assert await server.lost is None
            await turns(10)
            assert server.data == [b"0"]
            assert server.events == ["connection_made", "datagram_received", "connection_lost"]

    run(loop, main())


def test_answer_and_close_in_datagram_received(loop):
    class Answers(Recorder):
        def datagram_received(self, data, addr):
            self.transport.sendto(b"answer", addr)
            self.transport.close()

    async def main():
        async with pair(loop, Answers) as (server, client):
            client.transport.sendto(b"question")
            assert await client.got(1) == [b"answer"]
            await server.lost

    run(loop, main())


def test_closing_in_error_received(loop):
    class Closes(Recorder):
        def error_received(self, exc):
            super().error_received(exc)
            self.transport.close()

    async def main():
        async with pair(loop, None, Closes) as (_, client):
            client.transport.sendto(bytes(70_000))
            assert await client.lost is None
            assert client.events == ["connection_made", "error_received", "connection_lost"]

    run(loop, main())


def test_sending_between_close_and_the_end(loop):
    """An endpoint without a fixed peer sends as long as it has its socket."""

    async def main():
        async with endpoint(loop, local_addr=ANY) as server:
            async with endpoint(loop, local_addr=ANY) as client:
                client.transport.close()
                client.transport.sendto(b"one more", name(server))
                await client.lost
                assert await server.got(1) == [b"one more"]

    run(loop, main())


def test_sending_after_the_end_is_ignored_and_then_complained_about(loop, caplog):
    async def main():
        async with pair(loop) as (server, client):
            client.transport.close()
            await client.lost
            with caplog.at_level(logging.WARNING, "asyncio"):
                for _ in range(4):
                    client.transport.sendto(b"lost")
                assert caplog.records == []
                client.transport.sendto(b"lost")
                client.transport.sendto(b"lost")
            assert {each.getMessage() for each in caplog.records} == {
                "socket.send() raised exception."
            }
            await turns(10)
            assert server.datagrams == []

    run(loop, main())


@pytest.mark.veloop_only("asyncio's raises AttributeError for its missing socket")
def test_sending_after_the_end_without_a_fixed_peer(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY) as client:
            client.transport.close()
            await client.lost
            client.transport.sendto(b"lost", (HOST, 9))
            assert client.errors == []

    run(loop, main())


def test_port_is_free_after_the_end(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY) as protocol:
            where = name(protocol)
            protocol.transport.close()
            await protocol.lost
            await turns()
            async with endpoint(loop, local_addr=where) as again:
                assert name(again) == where

    run(loop, main())


@pytest.mark.veloop_only("asyncio reads the other's datagrams then")
def test_application_may_close_its_socket_early(loop):
    """Its number may be somebody else's at once, who must not get our datagrams."""

    async def main():
        sock = udp_socket()
        where = sock.getsockname()
        async with endpoint(loop, sock=sock) as protocol:
            number = sock.fileno()
            sock.close()
            with udp_socket() as other:
                assert other.fileno() == number or PYPY
                async with endpoint(loop, remote_addr=where) as client:
                    client.transport.sendto(b"hello")
                    protocol.transport.sendto(b"from us", name(client))
                    assert await protocol.got(1) == [b"hello"]
                    (answer,) = await client.got(1)
                    assert answer == b"from us"
                    with pytest.raises(BlockingIOError):
                        other.recv(10)
                protocol.transport.close()
                await protocol.lost
                await turns()
                assert other.fileno() != -1
                assert other.getsockname()[1]

    run(loop, main())


@pytest.mark.skipif(WINDOWS, reason="no socket has these numbers there")
@pytest.mark.parametrize("given", [True, False])
def test_numbers_of_the_standard_streams(loop_kind, given):
    """A socket may have got one of them; libuv's assertion says that it never closes these."""
    run_script(
        loop_kind,
        f"""
        async def main():
            loop = asyncio.get_running_loop()
            kwargs = {{"local_addr": ("127.0.0.1", 0)}}
            os.close(0)
            if {given}:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind(kwargs["local_addr"])
                kwargs = {{"sock": sock}}
            got = loop.create_future()

            class Protocol(asyncio.DatagramProtocol):
                def datagram_received(self, data, addr):
                    got.set_result(data)

            transport, _ = await loop.create_datagram_endpoint(Protocol, **kwargs)
            assert transport.get_extra_info("socket").fileno() == 0
            transport.sendto(b"to myself", transport.get_extra_info("sockname"))
            assert await got == b"to myself"
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert transport.get_extra_info("socket").fileno() == -1

        run(main())
        """,
    )


@pytest.mark.veloop_only("asyncio fails with what the application closed")
def test_names_after_the_application_closed_its_socket(loop):
    async def main():
        sock = udp_socket()
        async with endpoint(loop, sock=sock) as client, endpoint(loop, local_addr=ANY) as server:
            sock.close()
            client.transport.sendto(b"hello", ("localhost", name(server)[1]))
            assert client.errors == []
            assert await server.got(1) == [b"hello"]

    run(loop, main())


# ------------------------------------------------------------ not closed


def test_forgotten_transport_warns(loop):
    async def main():
        return await loop.create_datagram_endpoint(lambda: Recorder(loop), local_addr=ANY)

    transport, protocol = run(loop, main())
    loop.close()
    protocol.transport = None  # no cycle, of which the socket could be finalized first
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, protocol
        collect()


def test_loop_closed_with_an_endpoint_open(loop):
    async def main():
        return await loop.create_datagram_endpoint(lambda: Recorder(loop), local_addr=ANY)

    transport, protocol = run(loop, main())
    where = transport.get_extra_info("sockname")
    loop.close()
    repr(transport)
    protocol.transport = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del transport, protocol
        collect()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(where)  # its socket is closed too


@pytest.mark.parametrize("closed_early", [False, True])
def test_closed_transport_is_freed(loop, closed_early):
    async def main():
        sock = udp_socket()
        transport, protocol = await loop.create_datagram_endpoint(lambda: Recorder(loop), sock=sock)
        if closed_early:
            transport.pause_reading()  # asyncio's could not be told to stop later
            sock.close()
        transport.close()
        await protocol.lost
        await turns()
        protocol.transport = None
        return weakref.ref(transport), weakref.ref(protocol)

    gc.disable()
    try:
        references = run(loop, main())
        run(loop, turns())
        if PYPY:
            gc.collect()
        assert [each() for each in references] == [None, None]
    finally:
        gc.enable()
