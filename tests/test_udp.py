"""udp.py, first part: create_datagram_endpoint in all its forms, and what goes through it.

What goes wrong: test_udp_errors.py. Batches, queues, fairness: test_udp_flow.py. The end:
test_udp_close.py. Unix and other families: test_udp_watched.py.
"""

import asyncio
import contextvars
import logging
import socket

import pytest

from helpers import LINUX, WINDOWS, has_ipv6
from tcp_helpers import HOST, run, turns
from udp_helpers import ANY, Echo, Recorder, endpoint, name, pair, udp_socket

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
linux = pytest.mark.skipif(not LINUX, reason="needs all of 127/8")


# ------------------------------------------------------------ forms


def test_endpoint_returns_the_transport_and_the_protocol_of_the_factory(loop):
    made = []

    def factory():
        made.append(Recorder(loop))
        return made[-1]

    async def main():
        transport, protocol = await loop.create_datagram_endpoint(factory, local_addr=ANY)
        assert made == [protocol]
        assert protocol.transport is transport
        assert isinstance(transport, asyncio.Transport)  # asyncio's is one too
        assert transport.get_protocol() is protocol
        assert protocol.events == ["connection_made"]
        transport.close()
        await protocol.lost

    run(loop, main())


@pytest.mark.stock_since("3.12", "earlier ones are only an asyncio.Transport")
def test_transport_is_a_datagram_transport(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY) as protocol:
            assert isinstance(protocol.transport, asyncio.DatagramTransport)

    run(loop, main())


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, HOST), pytest.param(socket.AF_INET6, "::1", marks=needs_ipv6)],
)
def test_echo(loop, family, host):
    async def main():
        async with pair(loop, Echo, host=host, family=family) as (server, client):
            client.transport.sendto(b"there and back")
            assert await client.got(1) == [b"there and back"]
            assert client.datagrams[0][1] == name(server)
            assert server.datagrams == [(b"there and back", name(client))]

    run(loop, main())


def test_unconnected_endpoints_talk_to_whom_they_like(loop):
    async def main():
        async with (
            endpoint(loop, local_addr=ANY) as one,
            endpoint(loop, local_addr=ANY) as two,
            endpoint(loop, local_addr=ANY) as three,
        ):
            one.transport.sendto(b"to two", name(two))
            one.transport.sendto(b"to three", name(three))
            assert await two.got(1) == [b"to two"]
            assert await three.got(1) == [b"to three"]
            assert two.datagrams[0][1] == name(one)

    run(loop, main())


def test_endpoint_without_addresses_is_bound_when_it_sends(loop):
    async def main():
        async with (
            endpoint(loop, Echo, local_addr=ANY) as server,
            endpoint(loop, family=socket.AF_INET) as client,
        ):
            if not WINDOWS:  # which has no name for it yet
                assert name(client) == ("0.0.0.0", 0)
            client.transport.sendto(b"hello", name(server))
            assert await client.got(1) == [b"hello"]

    run(loop, main())


@linux
def test_endpoint_with_both_addresses(loop):
    async def main():
        async with endpoint(loop, Echo, local_addr=ANY) as server:
            async with endpoint(
                loop, local_addr=("127.0.0.2", 0), remote_addr=name(server)
            ) as client:
                assert name(client)[0] == "127.0.0.2"
                assert client.transport.get_extra_info("peername") == name(server)
                client.transport.sendto(b"hello")
                await client.got(1)
                assert server.datagrams[0][1] == name(client)

    run(loop, main())


@pytest.mark.parametrize("bound", [True, False])
def test_endpoint_over_a_socket_of_the_application(loop, bound):
    async def main():
        sock = udp_socket(bind=bound)
        async with (
            endpoint(loop, Echo, local_addr=ANY) as server,
            endpoint(loop, sock=sock) as client,
        ):
            client.transport.sendto(b"hello", name(server))
            assert await client.got(1) == [b"hello"]
            assert sock.fileno() != -1
        assert sock.fileno() == -1  # it was given away

    run(loop, main())


def test_endpoint_over_a_blocking_socket_makes_it_non_blocking(loop):
    async def main():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(ANY)
        async with endpoint(loop, sock=sock):
            assert sock.gettimeout() == 0

    run(loop, main())


def test_endpoint_over_a_connected_socket_sends_to_its_peer(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY) as server:
            sock = udp_socket()
            sock.connect(name(server))
            async with endpoint(loop, sock=sock) as client:
                client.transport.sendto(b"without")
                client.transport.sendto(b"with another", (HOST, 9))  # asyncio looks at no address
                assert await server.got(2) == [b"without", b"with another"]

    run(loop, main())


def test_names_are_resolved_by_the_loop_and_numbers_are_not(loop):
    asked = []

    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        asked.append((host, type))
        return [(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", (HOST, port))]

    loop.getaddrinfo = getaddrinfo

    async def main():
        async with endpoint(loop, Echo, local_addr=ANY) as server:
            async with endpoint(loop, remote_addr=("server.test", name(server)[1])) as client:
                client.transport.sendto(b"hello")
                await client.got(1)
                assert client.transport.get_extra_info("peername") == name(server)

    run(loop, main())
    assert asked == [("server.test", socket.SOCK_DGRAM)]


def test_second_address_is_taken_when_the_first_cannot_be_had(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY) as other:
            port = name(other)[1]

            async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
                info = (socket.AF_INET, socket.SOCK_DGRAM)
                # One address for each protocol number: a socket is tried for each.
                return [
                    (*info, socket.IPPROTO_UDP, "", (HOST, port)),
                    (*info, 0, "", (HOST, 0)),
                ]

            loop.getaddrinfo = getaddrinfo
            async with endpoint(loop, local_addr=("name.test", port)) as protocol:
                assert name(protocol)[1] not in (0, port)

    run(loop, main())


# ------------------------------------------------------------ options


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT")
def test_reuse_port_lets_two_have_one_address(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY, reuse_port=True) as one:
            async with endpoint(loop, local_addr=name(one), reuse_port=True) as two:
                assert name(two) == name(one)

    run(loop, main())


def test_address_is_not_shared_unasked(loop):
    """What comes for one endpoint must not go to whoever binds next; libuv would allow that."""

    async def main():
        async with endpoint(loop, local_addr=ANY) as protocol:
            sock = protocol.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
            with pytest.raises(OSError, match="in use|WinError 10048"):
                await loop.create_datagram_endpoint(
                    asyncio.DatagramProtocol, local_addr=name(protocol)
                )
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if LINUX:
                    with pytest.raises(OSError, match="in use"):
                        thief.bind(name(protocol))

    run(loop, main())


def test_options_of_a_given_socket_stay(loop):
    async def main():
        sock = udp_socket(bind=False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        async with endpoint(loop, sock=sock):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0

    run(loop, main())


def test_broadcast_peer_is_not_connected_to(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY) as server:
            async with endpoint(loop, remote_addr=name(server), allow_broadcast=True) as client:
                sock = client.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) != 0
                assert client.transport.get_extra_info("peername") is None
                client.transport.sendto(b"one")
                client.transport.sendto(b"two", name(server))
                with pytest.raises(ValueError, match="Invalid address"):
                    client.transport.sendto(b"three", (HOST, 9))
                assert await server.got(2) == [b"one", b"two"]

    run(loop, main())


@linux
def test_broadcast(loop):
    async def main():
        async with endpoint(loop, local_addr=("0.0.0.0", 0)) as server:
            where = ("127.255.255.255", name(server)[1])
            async with endpoint(loop, local_addr=ANY, allow_broadcast=True) as client:
                client.transport.sendto(b"to all", where)
                assert await server.got(1) == [b"to all"]

    run(loop, main())


@linux
def test_multicast_by_the_socket(loop):
    group = "239.255.77.77"

    async def main():
        async with endpoint(loop, local_addr=("0.0.0.0", 0)) as server:
            sock = server.transport.get_extra_info("socket")
            member = socket.inet_aton(group) + socket.inet_aton(HOST)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            async with endpoint(loop, local_addr=ANY) as client:
                sock = client.transport.get_extra_info("socket")
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HOST))
                client.transport.sendto(b"to members", (group, name(server)[1]))
                assert await server.got(1) == [b"to members"]

    run(loop, main())


# ------------------------------------------------------------ extra info


def test_extra_info(loop):
    async def main():
        async with pair(loop) as (server, client):
            info = client.transport.get_extra_info
            sock = info("socket")
            assert sock.type == socket.SOCK_DGRAM
            assert sock.family == socket.AF_INET
            assert info("sockname") == sock.getsockname()
            assert info("peername") == name(server) == sock.getpeername()
            assert server.transport.get_extra_info("peername") is None
            assert info("nonsense") is None
            assert info("nonsense", "default") == "default"

    run(loop, main())


def test_extra_info_after_the_end(loop):
    async def main():
        async with pair(loop) as (server, client):
            where = name(client)
            client.transport.close()
            await client.lost
            await turns()
            assert name(client) == where
            assert client.transport.get_extra_info("peername") == name(server)
            assert client.transport.get_extra_info("socket").fileno() == -1

    run(loop, main())


def test_repr_says_what_is_going_on(loop):
    async def main():
        async with endpoint(loop, local_addr=ANY) as protocol:
            transport = protocol.transport
            await turns()
            assert "read=polling" in repr(transport)
            assert "bufsize=0" in repr(transport)
            assert f"fd={transport.get_extra_info('socket').fileno()}" in repr(transport)
            transport.close()
            assert "closing" in repr(transport)
            await protocol.lost
            await turns()
            assert "closed" in repr(transport)

    run(loop, main())


def test_debug_mode_logs_the_endpoint(loop, caplog):
    async def main():
        with caplog.at_level(logging.DEBUG, "asyncio"):
            async with endpoint(loop, local_addr=ANY) as protocol:
                assert any(
                    "Datagram endpoint" in record.getMessage()
                    and repr(protocol) in record.getMessage()
                    for record in caplog.records
                )

    loop.set_debug(True)
    run(loop, main())


# ------------------------------------------------------------ the data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_kinds_of_data(loop, kind):
    async def main():
        async with pair(loop) as (server, client):
            client.transport.sendto(kind(b"some bytes"))
            assert await server.got(1) == [b"some bytes"]
            assert type(server.data[0]) is bytes

    run(loop, main())


def test_memoryview_of_wide_items(loop):
    async def main():
        async with pair(loop) as (server, client):
            client.transport.sendto(memoryview(bytes(range(8))).cast("I"))
            assert await server.got(1) == [bytes(range(8))]

    run(loop, main())


@pytest.mark.parametrize("data", ["text", 7, None, [b"list"], object()])
def test_data_must_be_bytes_like(loop, data):
    async def main():
        async with pair(loop) as (_, client):
            with pytest.raises(TypeError, match=type(data).__name__):
                client.transport.sendto(data)
            assert not client.transport.is_closing()

    run(loop, main())


@pytest.mark.stock_since("3.13", "earlier ones drop them")
def test_empty_datagrams(loop):
    async def main():
        async with pair(loop) as (server, client):
            client.transport.sendto(b"")
            client.transport.sendto(b"next")
            client.transport.sendto(bytearray())
            assert await server.got(3) == [b"", b"next", b""]
            server.transport.sendto(b"", name(client))
            assert await client.got(1) == [b""]

    run(loop, main())


@linux
@pytest.mark.parametrize(
    ("family", "host", "size"),
    [
        (socket.AF_INET, HOST, 65507),
        pytest.param(socket.AF_INET6, "::1", 65527, marks=needs_ipv6),
    ],
)
def test_the_largest_datagrams_come_whole(loop, family, host, size):
    async def main():
        async with pair(loop, host=host, family=family) as (server, client):
            data = bytes(n % 251 for n in range(size))
            for _ in range(2):
                client.transport.sendto(data)
                client.transport.sendto(b"small")
            assert await server.got(4) == [data, b"small"] * 2

    run(loop, main())


def test_order_and_bounds_are_kept(loop):
    async def main():
        async with pair(loop) as (server, client):
            sent = [bytes([n]) * n for n in range(1, 100)]
            for data in sent:
                client.transport.sendto(data)
            assert await server.got(len(sent)) == sent

    run(loop, main())


# ------------------------------------------------------------ addresses of sendto


@pytest.mark.parametrize("host", ["localhost", "127.1", "", "<broadcast>", b"127.0.0.1"])
def test_hosts_that_the_socket_module_resolves(loop, host):
    """Whatever socket.sendto() takes for a host, at once and without the loop's resolver."""

    async def main():
        async with endpoint(loop, local_addr=("0.0.0.0", 0)) as server:
            async with endpoint(loop, family=socket.AF_INET, allow_broadcast=True) as client:
                where = (host, name(server)[1])
                client.transport.sendto(b"hello", where)
                if host == "<broadcast>":  # there need be no interface that can
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                        try:
                            sock.sendto(b"", where)
                        except OSError as exc:
                            assert [each.errno for each in client.errors] == [exc.errno]
                            return
                assert client.errors == []
                assert await server.got(1) == [b"hello"]

    run(loop, main())


@needs_ipv6
@pytest.mark.parametrize("extra", [(), (0,), (0, 0), (0x12345, 0)])
def test_ipv6_addresses_of_all_lengths(loop, extra):
    async def main():
        async with endpoint(loop, local_addr=("::1", 0)) as server:
            async with endpoint(loop, family=socket.AF_INET6) as client:
                client.transport.sendto(b"hello", (*name(server)[:2], *extra))
                assert await server.got(1) == [b"hello"]
                assert len(server.datagrams[0][1]) == 4

    run(loop, main())


def _link_local():
    """(address, interface) of a link-local address here, if there is one."""
    try:
        with open("/proc/net/if_inet6") as lines:
            for line in lines:
                digits, _, _, scope, _, interface = line.split()
                if scope == "20":
                    raw = bytes.fromhex(digits)
                    return socket.inet_ntop(socket.AF_INET6, raw), interface
    except OSError:
        pass
    return None


@pytest.mark.skipif(WINDOWS or _link_local() is None, reason="no link-local address here")
@pytest.mark.parametrize("way", ["scope id", "zone"])
def test_ipv6_link_local_addresses(loop, way):
    host, interface = _link_local()
    index = socket.if_nametoindex(interface)

    async def main():
        sock = udp_socket(socket.AF_INET6, bind=False)
        sock.bind((host, 0, 0, index))
        async with endpoint(loop, sock=sock) as server:
            port = name(server)[1]
            where = (f"{host}%{interface}", port) if way == "zone" else (host, port, 0, index)
            async with endpoint(loop, family=socket.AF_INET6) as client:
                client.transport.sendto(b"hello", where)
                assert client.errors == []
                assert await server.got(1) == [b"hello"]
                assert server.datagrams[0][1][3] == index
            async with endpoint(loop, remote_addr=(f"{host}%{interface}", port)) as client:
                client.transport.sendto(b"again")
                assert await server.got(2) == [b"hello", b"again"]

    run(loop, main())


def test_fixed_peer_may_be_named_but_no_other(loop):
    async def main():
        async with pair(loop) as (server, client):
            client.transport.sendto(b"named", name(server))
            with pytest.raises(ValueError, match="Invalid address"):
                client.transport.sendto(b"other", (HOST, 9))
            assert await server.got(1) == [b"named"]
            assert not client.transport.is_closing()

    run(loop, main())


# ------------------------------------------------------------ turns, contexts, threads


def test_connection_made_comes_in_a_turn_of_its_own(loop):
    events = []

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            events.append("made")

    async def main():
        def factory():
            loop.call_soon(events.append, "next turn")
            return Protocol(loop)

        transport, protocol = await loop.create_datagram_endpoint(factory, local_addr=ANY)
        events.append("returned")
        transport.close()
        await protocol.lost

    run(loop, main())
    assert events == ["next turn", "made", "returned"]


def test_connection_made_may_send_and_close(loop):
    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.sendto(b"hello and goodbye")
            transport.close()

    async def main():
        async with endpoint(loop, local_addr=ANY) as server:
            async with endpoint(loop, Protocol, remote_addr=name(server)) as client:
                assert client.transport.is_closing()
                assert await client.lost is None
                assert await server.got(1) == [b"hello and goodbye"]
                assert client.events == ["connection_made", "connection_lost"]

    run(loop, main())


def test_set_protocol(loop):
    async def main():
        async with pair(loop) as (server, client):
            other = Recorder(loop)
            server.transport.set_protocol(other)
            assert server.transport.get_protocol() is other
            client.transport.sendto(b"to the other")
            assert await other.got(1) == [b"to the other"]
            server.transport.close()
            await other.lost
            server.lost.set_result(None)

    run(loop, main())


def test_callbacks_run_in_the_context_of_the_creator(loop):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(variable.get())

        def datagram_received(self, data, addr):
            seen.append(variable.get())
            super().datagram_received(data, addr)

    async def main():
        variable.set("creator")
        async with endpoint(loop, Protocol, local_addr=ANY) as server:
            variable.set("sender")
            async with endpoint(loop, remote_addr=name(server)) as client:
                client.transport.sendto(b"hello")
                await server.got(1)

    run(loop, main())
    assert seen == ["creator", "creator"]


@pytest.mark.veloop_only("asyncio sends from any thread, and loses its queue's order by it")
def test_sendto_from_another_thread_is_refused(loop):
    async def main():
        async with pair(loop) as (_, client):
            with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
                await loop.run_in_executor(None, client.transport.sendto, b"x")
            assert client.errors == []
            assert not client.transport.is_closing()

    run(loop, main())
