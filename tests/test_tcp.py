"""tcp.py, first half: create_connection and connect_accepted_socket, as they should go.

What goes wrong: test_tcp_errors.py. Several addresses, happy eyeballs: test_tcp_eyeballs.py.
Sockets handed over and who closes them: test_ownership.py. create_server: test_tcp_listen.py.
"""

import asyncio
import contextvars
import os
import socket

import pytest

from helpers import (
    LINUX,
    PATIENCE,
    WINDOWS,
    RecordingBufferedProtocol,
    RecordingProtocol,
    drain,
    echo,
    has_ipv6,
    listening_socket,
    refusing_address,
    tcp_pair,
    threaded_server,
)
from tcp_helpers import (
    HOST,
    MUCH,
    WAYS,
    address,
    addrinfo,
    hanging_address,
    in_executor,
    linked,
    resolve_to,
    run,
    serving,
    turns,
    until,
    wired,
)

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
linux = pytest.mark.skipif(not LINUX, reason="Linux alone has all of 127/8, and drops such SYNs")
unix = pytest.mark.skipif(WINDOWS, reason="no Unix sockets")


@pytest.fixture
def listener():
    with listening_socket() as sock:
        yield sock


async def connect(loop, *where, **kwargs):
    """(transport, protocol) with a recording protocol."""
    return await loop.create_connection(lambda: RecordingProtocol(loop), *where, **kwargs)


async def hang_up(transport, protocol):
    transport.close()
    await protocol.lost


# ------------------------------------------------------------ connecting


def test_connect_returns_the_transport_and_the_protocol_of_the_factory(loop, listener):
    made = []

    def factory():
        made.append(RecordingProtocol(loop))
        return made[-1]

    async def main():
        transport, protocol = await loop.create_connection(factory, *listener.getsockname())
        assert made == [protocol]
        assert isinstance(transport, asyncio.Transport)
        assert protocol.transport is transport
        assert transport.get_protocol() is protocol
        # Told before create_connection returns.
        assert protocol.names == ["connection_made"]
        await hang_up(transport, protocol)

    run(loop, main())


@pytest.mark.parametrize(
    "family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=needs_ipv6)]
)
def test_bytes_go_both_ways(loop, family):
    async def main():
        with threaded_server(echo, family) as where:
            transport, protocol = await connect(loop, *where)
            transport.write(b"hello")
            assert await protocol.received(5) == b"hello"
            await hang_up(transport, protocol)
        assert protocol.events == [
            ("connection_made",),
            ("data", b"hello"),
            ("connection_lost", None),
        ]

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_transport_gives_the_same(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            assert isinstance(transport, asyncio.Transport)
            peer.sendall(b"ping")
            assert await protocol.received(4) == b"ping"
            transport.write(b"pong")
            assert drain(peer, 4) == b"pong"
            transport.close()
            assert await protocol.lost is None
            assert peer.recv(1) == b""

    run(loop, main())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", b"127.0.0.1"])
@pytest.mark.parametrize("make_port", [int, str], ids=["int", "str"])
def test_host_by_name_or_number_and_port_by_number_or_text(loop, listener, host, make_port):
    async def main():
        port = make_port(listener.getsockname()[1])
        transport, protocol = await connect(loop, host, port, family=socket.AF_INET)
        assert transport.get_extra_info("peername") == listener.getsockname()
        await hang_up(transport, protocol)

    run(loop, main())


def test_name_is_resolved_by_the_loops_getaddrinfo(loop, listener):
    # Applications replace it to bring a resolver of their own.
    asked = []

    async def getaddrinfo(host, port, **kwargs):
        asked.append((host, port, kwargs["type"]))
        return [addrinfo(listener.getsockname())]

    async def main():
        loop.getaddrinfo = getaddrinfo
        await hang_up(*await connect(loop, "name.example", 80))

    run(loop, main())
    assert asked == [("name.example", 80, socket.SOCK_STREAM)]


def test_numeric_host_is_not_resolved(loop, listener):
    async def getaddrinfo(*args, **kwargs):
        raise AssertionError("resolved a number")

    async def main():
        loop.getaddrinfo = getaddrinfo
        await hang_up(*await connect(loop, *listener.getsockname()))

    run(loop, main())


def test_host_none_is_this_machine(loop, listener):
    async def main():
        port = listener.getsockname()[1]
        transport, protocol = await connect(loop, None, port, family=socket.AF_INET)
        assert transport.get_extra_info("peername") == (HOST, port)
        await hang_up(transport, protocol)

    run(loop, main())


@needs_ipv6
def test_ipv6_names_have_flow_and_scope(loop):
    async def main():
        with listening_socket(socket.AF_INET6) as listener:
            transport, protocol = await connect(loop, *listener.getsockname()[:2])
            assert transport.get_extra_info("peername") == listener.getsockname()
            assert len(transport.get_extra_info("sockname")) == 4
            await hang_up(transport, protocol)

    run(loop, main())


def test_nagle_is_off(loop):
    async def main():
        async with linked(loop) as ends:
            for protocol in ends:
                sock = protocol.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0

    run(loop, main())


def test_two_hundred_connections_at_once(loop):
    async def one(where, number):
        transport, protocol = await connect(loop, *where)
        message = b"%d," % number * 100
        transport.write(message)
        assert await protocol.received(len(message)) == message
        await hang_up(transport, protocol)

    class Echo(RecordingProtocol):
        def data_received(self, data):
            self.transport.write(data)

    async def main():
        async with serving(loop, lambda: Echo(loop), backlog=256) as (server, protocols):
            await asyncio.gather(*(one(address(server), number) for number in range(200)))
            assert len(protocols) == 200

    run(loop, main())


def test_buffered_protocol_may_connect(loop):
    async def main():
        with threaded_server(echo) as where:
            transport, protocol = await loop.create_connection(
                lambda: RecordingBufferedProtocol(loop), *where
            )
            transport.write(b"hello")
            assert await protocol.received(5) == b"hello"
            await hang_up(transport, protocol)

    run(loop, main())


def test_connecting_in_debug_mode(loop, listener):
    async def main():
        loop.set_debug(True)
        loop.slow_callback_duration = PATIENCE
        await hang_up(*await connect(loop, *listener.getsockname()))

    run(loop, main())


# ------------------------------------------------------------ local_addr


@linux
def test_local_address_is_where_the_connection_comes_from(loop, listener):
    async def main():
        transport, protocol = await connect(
            loop, *listener.getsockname(), local_addr=("127.0.0.2", 0)
        )
        peer, where = listener.accept()
        with peer:
            assert where[0] == "127.0.0.2"
            assert transport.get_extra_info("sockname") == where
            await hang_up(transport, protocol)

    run(loop, main())


def test_local_port_may_be_chosen(loop, listener):
    async def main():
        with refusing_address() as (host, port):
            pass
        transport, protocol = await connect(loop, *listener.getsockname(), local_addr=(host, port))
        assert transport.get_extra_info("sockname") == (host, port)
        # Else the port is in TIME_WAIT for a minute.
        transport.abort()
        await protocol.lost

    run(loop, main())


def test_local_address_is_resolved(loop, listener):
    async def main():
        resolve_to(loop, {"there": [listener.getsockname()], "here": [(HOST, 0)]})
        transport, protocol = await connect(loop, "there", 1, local_addr=("here", 0))
        await hang_up(transport, protocol)

    run(loop, main())


@needs_ipv6
def test_local_address_of_the_other_family_is_passed_over(loop, listener):
    async def main():
        resolve_to(
            loop,
            {"there": [listener.getsockname()], "here": [("::1", 0, 0, 0), (HOST, 0)]},
        )
        transport, protocol = await connect(loop, "there", 1, local_addr=("here", 0))
        assert transport.get_extra_info("sockname")[0] == HOST
        await hang_up(transport, protocol)

    run(loop, main())


def test_next_local_address_is_taken_when_one_is_in_use(loop, listener):
    async def main():
        with refusing_address() as taken:
            resolve_to(loop, {"there": [listener.getsockname()], "here": [taken, (HOST, 0)]})
            transport, protocol = await connect(loop, "there", 1, local_addr=("here", 0))
        assert transport.get_extra_info("sockname") != taken
        await hang_up(transport, protocol)

    run(loop, main())


# ------------------------------------------------------------ sockets of the application


@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
def test_given_socket_is_made_non_blocking_and_used(loop, method):
    async def main():
        with tcp_pair() as (peer, server_side):
            sock = server_side.dup()
            sock.setblocking(True)
            transport, protocol = await getattr(loop, method)(
                lambda: RecordingProtocol(loop), sock=sock
            )
            assert sock.getblocking() is False
            assert transport.get_extra_info("socket").fileno() == sock.fileno()
            assert transport.get_extra_info("peername") == peer.getsockname()
            peer.sendall(b"hello")
            assert await protocol.received(5) == b"hello"
            await hang_up(transport, protocol)
            # The transport owns it.
            assert sock.fileno() == -1

    run(loop, main())


@unix
@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
def test_given_socket_may_be_a_unix_one(loop, method):
    async def main():
        mine, peer = socket.socketpair()
        with peer:
            transport, protocol = await getattr(loop, method)(
                lambda: RecordingProtocol(loop), sock=mine
            )
            peer.send(b"hello")
            assert await protocol.received(5) == b"hello"
            transport.write(b"there")
            assert drain(peer, 5) == b"there"
            assert transport.get_extra_info("peername") == ""
            await hang_up(transport, protocol)

    run(loop, main())


@unix
def test_given_socket_may_be_an_instance_of_a_subclass(loop):
    class Mine(socket.socket):
        pass

    async def main():
        mine, peer = socket.socketpair()
        with peer:
            sock = Mine(fileno=mine.detach())
            transport, protocol = await connect(loop, sock=sock)
            peer.send(b"hello")
            assert await protocol.received(5) == b"hello"
            await hang_up(transport, protocol)

    run(loop, main())


# ------------------------------------------------------------ cancellation


def test_cancelled_while_resolving(loop):
    async def getaddrinfo(*args, **kwargs):
        await loop.create_future()

    async def main():
        loop.getaddrinfo = getaddrinfo
        task = loop.create_task(connect(loop, "never.example", 80))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(loop, main())


@linux
def test_cancelled_while_connecting(loop):
    async def main():
        with hanging_address() as where:
            task = loop.create_task(connect(loop, *where))
            await turns(5)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns()

    run(loop, main())


@linux
def test_timeout_while_connecting(loop):
    async def main():
        with hanging_address() as where, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connect(loop, *where)

    run(loop, main())


def test_connection_that_comes_together_with_the_cancellation_is_not_leaked(loop):
    # Each step between the call and its result is once the one that is hit.
    async def main():
        async with serving(loop) as (server, _):
            for steps in range(12):
                task = loop.create_task(connect(loop, *address(server)))
                await turns(steps)
                task.cancel()
                try:
                    transport, protocol = await task
                except asyncio.CancelledError:
                    continue
                await hang_up(transport, protocol)

    run(loop, main())


def test_loop_closed_while_connecting(new_loop):
    # No descriptor, no handle is left: conftest looks.
    loop = new_loop()
    with refusing_address() as where:
        loop.call_soon(loop.stop)  # first: nothing is looked for in what is the last turn then
        task = loop.create_task(connect(loop, *where))
        loop.run_forever()
        task._log_destroy_pending = False
        loop.close()
        # As the garbage collector would.
        task.get_coro().close()


# ------------------------------------------------------------ callbacks and context


def test_connection_made_may_write_and_close(loop, listener):
    class Brief(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"bye")
            transport.close()

    async def main():
        _, protocol = await loop.create_connection(lambda: Brief(loop), *listener.getsockname())
        peer, _ = listener.accept()
        with peer:
            assert drain(peer, 3) == b"bye"
            assert peer.recv(1) == b""
        assert await protocol.lost is None
        assert protocol.names == ["connection_made", "connection_lost"]

    run(loop, main())


def test_connection_made_may_abort(loop, listener):
    class Shy(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.abort()

    async def main():
        transport, protocol = await loop.create_connection(
            lambda: Shy(loop), *listener.getsockname()
        )
        assert transport.is_closing()
        assert await protocol.lost is None

    run(loop, main())


var = contextvars.ContextVar("var", default="unset")


class ContextProtocol(RecordingProtocol):
    """Notes the variable's value at each callback, then sets it to the callback's name."""

    def __init__(self, loop):
        super().__init__(loop)
        self.seen = []

    def _note(self, name):
        self.seen.append((name, var.get()))
        var.set(name)

    def connection_made(self, transport):
        self._note("connection_made")
        super().connection_made(transport)

    def data_received(self, data):
        self._note("data_received")
        super().data_received(data)

    def resume_writing(self):
        self._note("resume_writing")
        super().resume_writing()

    def eof_received(self):
        self._note("eof_received")
        return super().eof_received()

    def connection_lost(self, exc):
        self._note("connection_lost")
        super().connection_lost(exc)


@pytest.mark.stock_since("3.15.0", "asyncio gave each kind of callback its own context")
@pytest.mark.parametrize("way", WAYS)
def test_callbacks_of_a_connection_share_a_context(loop, way):
    async def main():
        async with wired(loop, lambda: ContextProtocol(loop), way) as (transport, protocol, peer):
            peer.send(b"x")
            await protocol.received(1)
            transport.set_write_buffer_limits(0)
            transport.write(b"x" * (MUCH))
            assert transport.get_write_buffer_size() > 0
            await in_executor(drain, peer, MUCH)
            await until(lambda: "resume_writing" in protocol.names)
            peer.shutdown(socket.SHUT_WR)
            await protocol.lost
            return protocol.seen

    # A context of this test's own: what goes wrong must not reach the other tests.
    seen = contextvars.copy_context().run(run, loop, main())
    assert [name for name, _ in seen] == [
        "connection_made",
        "data_received",
        "resume_writing",
        "eof_received",
        "connection_lost",
    ]
    # Each sees what the one before has set.
    assert [value for _, value in seen[1:]] == [name for name, _ in seen[:-1]]


def test_callbacks_see_the_context_of_create_connection(loop, listener):
    async def main():
        var.set("caller")
        transport, protocol = await loop.create_connection(
            lambda: ContextProtocol(loop), *listener.getsockname()
        )
        # It is a copy: nothing comes back.
        assert var.get() == "caller"
        await hang_up(transport, protocol)
        return protocol.seen

    assert run(loop, main())[0] == ("connection_made", "caller")
    assert var.get() == "unset"


@pytest.mark.stock_since("3.15.0", "asyncio used the context of the loop's turn")
def test_callbacks_of_accepted_connections_see_the_context_of_create_server(loop):
    async def main():
        var.set("server")
        async with serving(loop, lambda: ContextProtocol(loop)) as (server, protocols):
            var.set("later")
            socks = [socket.create_connection(address(server), PATIENCE) for _ in range(2)]
            await until(lambda: len(protocols) == 2)
            for protocol in protocols:
                await protocol.connected
            for sock in socks:
                sock.close()
        # Neither sees what the other one has set.
        return [protocol.seen[0] for protocol in protocols]

    assert run(loop, main()) == [("connection_made", "server")] * 2


@pytest.mark.stock_since("3.15.0", "asyncio used the context of the loop's turn")
def test_server_takes_its_context_when_it_is_made_not_when_it_starts(loop):
    async def main():
        var.set("made")
        async with serving(loop, lambda: ContextProtocol(loop), start_serving=False) as (
            server,
            protocols,
        ):
            var.set("started")
            await server.start_serving()
            with socket.create_connection(address(server), PATIENCE):
                await until(lambda: protocols)
                await protocols[0].connected
            return protocols[0].seen[0]

    assert run(loop, main()) == ("connection_made", "made")


def test_protocol_factory_of_create_connection_sees_the_callers_context(loop, listener):
    seen = []

    def factory():
        seen.append(var.get())
        return RecordingProtocol(loop)

    async def main():
        var.set("caller")
        transport, protocol = await loop.create_connection(factory, *listener.getsockname())
        await hang_up(transport, protocol)

    run(loop, main())
    assert seen == ["caller"]


# ------------------------------------------------------------ two loops


def test_two_loops_in_turn_talk_to_each_other(new_loop):
    one, two = new_loop(), new_loop()

    async def start():
        protocols = []

        def factory():
            protocols.append(RecordingProtocol(one))
            return protocols[-1]

        return await one.create_server(factory, HOST, 0), protocols

    server, protocols = run(one, start())
    transport, protocol = run(two, connect(two, *address(server)))
    transport.write(b"hello")

    async def answer():
        await until(lambda: protocols)
        assert await protocols[0].received(5) == b"hello"
        protocols[0].transport.write(b"there")
        protocols[0].transport.close()
        await protocols[0].lost
        server.close()
        await server.wait_closed()

    run(one, answer())
    assert run(two, protocol.received(5)) == b"there"
    run(two, protocol.lost)


@pytest.mark.skipif(WINDOWS, reason="handles are not descriptors")
def test_descriptors_are_not_inherited(loop):
    async def main():
        async with linked(loop) as ends:
            for protocol in ends:
                sock = protocol.transport.get_extra_info("socket")
                assert os.get_inheritable(sock.fileno()) is False

    run(loop, main())
