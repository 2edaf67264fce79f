"""tcp.py: where create_server listens, and with which socket options.

What the Server object does then: test_server.py. Bad arguments: test_tcp_errors.py.
"""

import errno
import socket
import struct

import pytest

from helpers import (
    LINUX,
    PATIENCE,
    WINDOWS,
    RecordingProtocol,
    has_ipv6,
    listening_socket,
    refusing_address,
)
from tcp_helpers import HOST, address, addrinfo, reset, run, serving, turns, until

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
linux = pytest.mark.skipif(not LINUX, reason="only Linux has all of 127/8")
# Addresses for documentation (RFC 5737): no machine has them.
ELSEWHERE = ["203.0.113.1", "203.0.113.2"]
posix = pytest.mark.skipif(WINDOWS, reason="these options mean something else there")


def hosts(server):
    return sorted(sock.getsockname()[0] for sock in server.sockets)


async def serves(server, protocols, *where):
    """Whether a connection to that address reaches the server."""
    before = len(protocols)
    with socket.create_connection(where or address(server), PATIENCE) as peer:
        await until(lambda: len(protocols) > before)
        await protocols[-1].connected
        peer.sendall(b"hello")
        return await protocols[-1].received(5) == b"hello"


# ------------------------------------------------------------ addresses


def test_server_on_a_port_of_the_systems_choice(loop):
    async def main():
        async with serving(loop) as (server, protocols):
            host, port = server.sockets[0].getsockname()
            assert host == HOST
            assert port != 0
            assert await serves(server, protocols)

    run(loop, main())


@pytest.mark.parametrize("make_port", [int, str], ids=["int", "str"])
def test_server_on_a_given_port(loop, make_port):
    async def main():
        with refusing_address() as (host, port):
            pass
        async with serving(loop, port=make_port(port)) as (server, protocols):
            assert address(server) == (host, port)
            assert await serves(server, protocols, host, port)

    run(loop, main())


@pytest.mark.parametrize("port", [None, 0, "0"], ids=repr)
def test_no_port_is_a_port_of_the_systems_choice(loop, port):
    async def main():
        async with serving(loop, port=port) as (server, protocols):
            assert address(server)[1] != 0
            assert await serves(server, protocols)

    run(loop, main())


def test_server_on_a_name(loop):
    async def main():
        async with serving(loop, host="localhost") as (server, protocols):
            assert await serves(server, protocols, "localhost", address(server)[1])

    run(loop, main())


@needs_ipv6
def test_server_on_ipv6(loop):
    async def main():
        async with serving(loop, host="::1") as (server, protocols):
            assert len(server.sockets[0].getsockname()) == 4
            assert await serves(server, protocols)

    run(loop, main())


@pytest.mark.parametrize("host", [None, ""], ids=repr)
def test_no_host_is_every_interface(loop, host):
    async def main():
        async with serving(loop, host=host, family=socket.AF_INET) as (server, protocols):
            assert hosts(server) == ["0.0.0.0"]
            assert await serves(server, protocols, HOST, address(server)[1])

    run(loop, main())


@needs_ipv6
@pytest.mark.parametrize("host", [None, ""], ids=repr)
def test_no_host_is_both_families(loop, host):
    async def main():
        async with serving(loop, host=host) as (server, protocols):
            assert hosts(server) == ["0.0.0.0", "::"]
            for sock in server.sockets:
                family = socket.AF_INET6 if ":" in sock.getsockname()[0] else socket.AF_INET
                where = "::1" if family == socket.AF_INET6 else HOST
                assert await serves(server, protocols, where, sock.getsockname()[1])

    run(loop, main())


@needs_ipv6
def test_both_families_may_have_the_same_port(loop):
    # Else the IPv6 socket takes the IPv4 connections too, and the second bind fails.
    async def main():
        with refusing_address() as (_, port):
            pass
        async with serving(loop, host=None, port=port) as (server, protocols):
            assert {sock.getsockname()[1] for sock in server.sockets} == {port}
            for sock in server.sockets:
                if sock.family == socket.AF_INET6:
                    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) != 0
            assert await serves(server, protocols, HOST, port)
            assert await serves(server, protocols, "::1", port)

    run(loop, main())


@linux
@pytest.mark.parametrize(
    "make",
    [list, tuple, set, lambda hosts: dict.fromkeys(hosts), iter],
    ids=["list", "tuple", "set", "dict", "iterator"],
)
def test_several_hosts(loop, make):
    async def main():
        several = make(["127.0.0.1", "127.0.0.2"])
        async with serving(loop, host=several) as (server, protocols):
            assert hosts(server) == ["127.0.0.1", "127.0.0.2"]
            for sock in server.sockets:
                assert await serves(server, protocols, *sock.getsockname())

    run(loop, main())


@linux
def test_each_address_is_bound_once(loop):
    async def main():
        with refusing_address() as (_, port):
            pass
        several = ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
        async with serving(loop, host=several, port=port) as (server, _):
            assert hosts(server) == ["127.0.0.1", "127.0.0.2"]

    run(loop, main())


@needs_ipv6
def test_hosts_of_both_families(loop):
    async def main():
        async with serving(loop, host=[HOST, "::1"]) as (server, protocols):
            assert hosts(server) == [HOST, "::1"]
            for sock in server.sockets:
                assert await serves(server, protocols, *sock.getsockname()[:2])

    run(loop, main())


@needs_ipv6
@pytest.mark.parametrize(
    ("family", "expected"), [(socket.AF_INET, ["0.0.0.0"]), (socket.AF_INET6, ["::"])]
)
def test_family_restricts_the_addresses(loop, family, expected):
    async def main():
        async with serving(loop, host=None, family=family) as (server, _):
            assert hosts(server) == expected

    run(loop, main())


def test_hosts_are_resolved_by_the_loops_getaddrinfo(loop):
    asked = []

    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        asked.append((host, port, type, flags))
        return [addrinfo((HOST, 0))]

    async def main():
        loop.getaddrinfo = getaddrinfo
        async with serving(loop, host=["one.example", "two.example"], port=7) as (server, _):
            assert hosts(server) == [HOST]

    run(loop, main())
    assert asked == [
        ("one.example", 7, socket.SOCK_STREAM, socket.AI_PASSIVE),
        ("two.example", 7, socket.SOCK_STREAM, socket.AI_PASSIVE),
    ]


@pytest.mark.stock_since("3.13.0", "asyncio gave up at the first address of another machine")
def test_address_of_another_machine_is_passed_over(loop):
    async def main():
        async with serving(loop, host=[HOST, ELSEWHERE[0]]) as (server, protocols):
            assert hosts(server) == [HOST]
            assert await serves(server, protocols)

    run(loop, main())


@pytest.mark.stock_since("3.13.0", "asyncio gave up at the first address of another machine")
def test_only_addresses_of_other_machines(loop):
    async def main():
        with pytest.raises(OSError, match="could not bind on any address out of") as caught:
            await loop.create_server(lambda: RecordingProtocol(loop), ELSEWHERE, 0)
        assert all(host in str(caught.value) for host in ELSEWHERE)

    run(loop, main())


def test_address_in_use_is_named(loop):
    async def main():
        with listening_socket() as taken:
            where = taken.getsockname()
            with pytest.raises(OSError, match="error while attempting to bind on") as caught:
                await loop.create_server(lambda: RecordingProtocol(loop), *where)
            assert caught.value.errno == errno.EADDRINUSE
            assert str(where) in str(caught.value)

    run(loop, main())


@linux
def test_sockets_bound_before_a_failure_are_closed(loop):
    async def main():
        with listening_socket() as taken:
            port = taken.getsockname()[1]
            several = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
            with pytest.raises(OSError, match="error while attempting to bind on"):
                await loop.create_server(lambda: RecordingProtocol(loop), several, port)
            # So they can be bound again.
            async with serving(loop, host="127.0.0.2", port=port):
                pass

    run(loop, main())


def test_family_that_the_system_cannot_open_is_passed_over(loop):
    async def getaddrinfo(*args, **kwargs):
        good = addrinfo((HOST, 0))
        return [(999, *good[1:]), good]

    async def main():
        loop.getaddrinfo = getaddrinfo
        async with serving(loop, host="name.example") as (server, _):
            assert hosts(server) == [HOST]

    run(loop, main())


# ------------------------------------------------------------ options


def option(server, name, level=socket.SOL_SOCKET):
    return {sock.getsockopt(level, name) != 0 for sock in server.sockets}


@posix
@pytest.mark.parametrize(("value", "expected"), [(None, True), (True, True), (False, False)])
def test_reuse_address_is_on_unless_refused(loop, value, expected):
    async def main():
        async with serving(loop, host=None, reuse_address=value) as (server, _):
            assert option(server, socket.SO_REUSEADDR) == {expected}

    run(loop, main())


@posix
def test_port_can_be_served_again_at_once(loop):
    # The connection that the server closed is in TIME_WAIT, which reuse_address makes harmless.
    async def main():
        async with serving(loop) as (server, protocols):
            where = address(server)
            with socket.create_connection(where, PATIENCE) as peer:
                await until(lambda: protocols)
                await protocols[0].connected
                protocols[0].transport.close()
                await protocols[0].lost
                assert peer.recv(1) == b""
        async with serving(loop, None, *where) as (server, protocols):
            assert await serves(server, protocols)

    run(loop, main())


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT") or WINDOWS, reason="no SO_REUSEPORT here")
def test_reuse_port_is_off_unless_asked_for(loop):
    async def main():
        async with serving(loop) as (server, _):
            assert option(server, socket.SO_REUSEPORT) == {False}
        async with serving(loop, reuse_port=True) as (server, _):
            assert option(server, socket.SO_REUSEPORT) == {True}
            # Not the option that winloop sets in its place.
            assert option(server, socket.SO_BROADCAST) == {False}

    run(loop, main())


@pytest.mark.skipif(not LINUX, reason="other systems give all connections to one of them")
def test_reuse_port_lets_two_servers_share_a_port(loop):
    async def main():
        async with serving(loop, reuse_port=True) as (one, first):
            where = address(one)
            async with serving(loop, None, *where, reuse_port=True) as (_, second):
                socks = []
                # Where a connection goes depends on its port: a thousand never miss one server.
                while not (first and second) and len(socks) < 1000:
                    socks.append(socket.create_connection(where, PATIENCE))
                    await until(lambda: len(first) + len(second) == len(socks))
                for sock in socks:
                    reset(sock)
                assert first and second

    run(loop, main())


def test_reuse_port_where_there_is_none(loop, monkeypatch):
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)

    async def main():
        with pytest.raises(ValueError, match="reuse_port not supported"):
            await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0, reuse_port=True)

    run(loop, main())


@posix
def test_reuse_port_that_the_kernel_refuses(loop, monkeypatch):
    monkeypatch.setattr(socket, "SO_REUSEPORT", 9999, raising=False)

    async def main():
        with pytest.raises(ValueError, match="reuse_port not supported"):
            await loop.create_server(lambda: RecordingProtocol(loop), HOST, 0, reuse_port=True)

    run(loop, main())


@pytest.mark.stock_since("3.13.0", "keep_alive came with it")
@pytest.mark.parametrize(("value", "expected"), [(None, False), (False, False), (True, True)])
def test_keep_alive_is_off_unless_asked_for(loop, value, expected):
    async def main():
        async with serving(loop, keep_alive=value) as (server, protocols):
            assert option(server, socket.SO_KEEPALIVE) == {expected}
            if LINUX:
                # The connections inherit it.
                assert await serves(server, protocols)
                sock = protocols[0].transport.get_extra_info("socket")
                assert (sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0) == expected

    run(loop, main())


@pytest.mark.skipif(not LINUX, reason="TCP_INFO of a listening socket tells the backlog on Linux")
@pytest.mark.parametrize(("kwargs", "expected"), [({}, 100), ({"backlog": 7}, 7)])
def test_backlog_is_set(loop, kwargs, expected):
    async def main():
        async with serving(loop, **kwargs) as (server, _):
            info = server.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            # tcpi_sacked, of a listening socket: how many connections may wait.
            assert struct.unpack_from("I", info, 28)[0] == expected

    run(loop, main())


@pytest.mark.parametrize(
    "backlog",
    [
        pytest.param(
            -1, marks=pytest.mark.veloop_only("asyncio accepts as many as the backlog in one turn")
        ),
        pytest.param(
            0, marks=pytest.mark.stock_since("3.14.0", "asyncio accepted backlog in one turn: none")
        ),
        1,
    ],
)
def test_any_backlog_serves(loop, backlog):
    async def main():
        async with serving(loop, backlog=backlog) as (server, protocols):
            for _ in range(3):
                assert await serves(server, protocols)

    run(loop, main())


def test_more_connections_than_the_backlog_are_served(loop):
    async def main():
        async with serving(loop, backlog=5) as (server, protocols):
            for expected in range(5, 30, 5):
                socks = [socket.create_connection(address(server), PATIENCE) for _ in range(5)]
                await until(lambda expected=expected: len(protocols) == expected)
                for sock in socks:
                    reset(sock)

    run(loop, main())


# ------------------------------------------------------------ sock=


def bound_socket():
    sock = socket.socket()
    sock.bind((HOST, 0))
    return sock


def test_given_socket_is_served_and_closed_with_the_server(loop):
    async def main():
        sock = bound_socket()
        where = sock.getsockname()
        server = await loop.create_server(lambda: RecordingProtocol(loop), sock=sock)
        assert [each.fileno() for each in server.sockets] == [sock.fileno()]
        assert sock.getblocking() is False
        assert server.sockets[0].getsockname() == where
        server.close()
        await server.wait_closed()
        assert sock.fileno() == -1

    run(loop, main())


def test_given_socket_may_listen_already_and_have_connections(loop):
    async def main():
        sock = bound_socket()
        sock.listen()
        with socket.create_connection(sock.getsockname(), PATIENCE):
            async with serving(loop, sock=sock) as (_, protocols):
                await until(lambda: protocols)

    run(loop, main())


@pytest.mark.skipif(WINDOWS, reason="no Unix sockets")
def test_given_socket_may_be_a_unix_one(loop, tmp_path):
    async def main():
        path = str(tmp_path / "socket")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        async with serving(loop, sock=sock) as (server, protocols):
            assert server.sockets[0].getsockname() == path
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
                await until(lambda: protocols)
                transport = await protocols[0].connected
                peer.send(b"hello")
                assert await protocols[0].received(5) == b"hello"
                assert transport.get_extra_info("sockname") == path
                assert transport.get_extra_info("peername") == ""
                sock = transport.get_extra_info("socket")
                assert sock.family == socket.AF_UNIX

    run(loop, main())


@pytest.mark.skipif(not LINUX, reason="Linux's abstract names")
def test_given_socket_may_have_an_abstract_name(loop):
    async def main():
        name = b"\0veloop-test-" + str(id(loop)).encode()
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(name)
        async with serving(loop, sock=sock) as (_, protocols):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.bind(name + b"-peer")
                peer.connect(name)
                await until(lambda: protocols)
                transport = await protocols[0].connected
                assert transport.get_extra_info("sockname") == name
                assert transport.get_extra_info("peername") == name + b"-peer"

    run(loop, main())


# ------------------------------------------------------------ start_serving


def test_server_that_does_not_start_refuses_connections(loop):
    async def main():
        async with serving(loop, start_serving=False) as (server, protocols):
            assert not server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address(server), PATIENCE)
            await server.start_serving()
            assert server.is_serving()
            assert await serves(server, protocols)

    run(loop, main())


def test_server_that_never_starts_closes(loop):
    async def main():
        server = await loop.create_server(
            lambda: RecordingProtocol(loop), HOST, 0, start_serving=False
        )
        server.close()
        await server.wait_closed()
        await turns()

    run(loop, main())


@linux
@pytest.mark.veloop_only("asyncio takes itself to be serving after the failure")
def test_start_serving_that_failed_can_be_tried_again(loop):
    # Two sockets may be bound to one address; only one of them may listen.
    async def main():
        server = await loop.create_server(
            lambda: RecordingProtocol(loop), [HOST, "127.0.0.2"], 0, start_serving=False
        )
        where = max(sock.getsockname() for sock in server.sockets)
        with socket.socket() as rival:
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            rival.bind(where)
            rival.listen()
            for _ in range(2):
                with pytest.raises(OSError, match="[Aa]ddress (already )?in use"):
                    await server.start_serving()
                assert not server.is_serving()
        await server.start_serving()
        assert server.is_serving()
        with socket.create_connection(where, PATIENCE):
            await turns()
        server.close()
        server.abort_clients()
        await server.wait_closed()

    run(loop, main())
