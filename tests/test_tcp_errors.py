"""tcp.py, second half: connections that fail, and bad input of every argument.

The exception type is asyncio's; veloop's message names the argument and shows the value, where
the error is not the system's own (gaierror). Nothing is left behind: conftest looks.
"""

import asyncio
import contextlib
import errno
import gc
import re
import socket
import ssl
import warnings

import pytest

from helpers import (
    LINUX,
    PATIENCE,
    PYPY,
    WINDOWS,
    RecordingProtocol,
    collect,
    drop_unreferenced,
    has_ipv6,
    listening_socket,
    refusing_address,
    tcp_pair,
)
from tcp_helpers import (
    HOST,
    address,
    addrinfo,
    reset,
    resolve_to,
    run,
    run_forever,
    serving,
    turns,
    until,
)

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")


@pytest.fixture
def listener():
    with listening_socket() as sock:
        yield sock


async def connect(loop, *where, **kwargs):
    return await loop.create_connection(lambda: RecordingProtocol(loop), *where, **kwargs)


# ------------------------------------------------------------ connections that fail


def test_refused_connection_names_the_address(loop):
    async def main():
        with refusing_address() as where:
            with pytest.raises(ConnectionRefusedError) as caught:
                await connect(loop, *where)
            assert caught.value.errno == errno.ECONNREFUSED
            assert str(where) in str(caught.value)

    run(loop, main())


@pytest.mark.skipif(PYPY, reason="PyPy does not tell how much it collected")
@pytest.mark.stock_since("3.13.0", "the exception of a failed connect held itself")
def test_refused_connections_leave_no_garbage(loop):
    async def refused(where):
        with contextlib.suppress(ConnectionRefusedError):
            await connect(loop, *where)

    async def main():
        with refusing_address() as where:
            await refused(where)
            gc.collect()
            gc.disable()
            try:
                for _ in range(20):
                    await refused(where)
                await turns()
                return gc.collect()
            finally:
                gc.enable()

    assert run(loop, main()) == 0


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
def test_interrupt_in_connection_made_leaves_nobody_waiting(loop, method, exception):
    class Interrupted(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise exception

    async def main():
        transport, protocol = await task
        peer.sendall(b"hello")
        assert await protocol.received(5) == b"hello"
        transport.abort()
        await protocol.lost

    with tcp_pair() as (ours, peer):
        task = loop.create_task(getattr(loop, method)(lambda: Interrupted(loop), sock=ours))
        with pytest.raises(exception):
            run_forever(loop)
        assert not task.done()
        run(loop, main())


class Integer:
    """As numpy's integers: no subclass of int, and an integer for every purpose."""

    def __init__(self, value):
        self.value = value

    def __int__(self):
        return self.value

    def __index__(self):
        return self.value


@pytest.mark.parametrize("host", [HOST, "localhost"])
def test_port_may_be_any_kind_of_integer(loop, host):
    async def main():
        server = await loop.create_server(asyncio.Protocol, HOST, Integer(0))
        port = Integer(address(server)[1])
        transport, protocol = await connect(loop, host, port, family=socket.AF_INET)
        transport.abort()
        await protocol.lost
        server.close()

    if host != HOST and type(loop).__module__.startswith("asyncio"):
        pytest.skip("the socket module's getaddrinfo takes an int only")
    run(loop, main())


def test_protocol_factory_is_not_called_for_a_refused_connection(loop):
    def factory():
        raise AssertionError("called")

    async def main():
        with refusing_address() as where, pytest.raises(ConnectionRefusedError):
            await loop.create_connection(factory, *where)

    run(loop, main())


def test_loop_is_as_good_as_before_after_a_hundred_refusals(loop, listener):
    async def main():
        with refusing_address() as where:
            for _ in range(100):
                with pytest.raises(ConnectionRefusedError):
                    await connect(loop, *where)
        transport, protocol = await connect(loop, *listener.getsockname())
        transport.close()
        await protocol.lost

    run(loop, main())


def test_host_that_does_not_resolve(loop):
    async def main():
        with pytest.raises(socket.gaierror) as caught:
            # Numeric only, so that no name server is asked.
            await connect(loop, "no.number.invalid", 80, flags=socket.AI_NUMERICHOST)
        assert caught.value.errno == socket.EAI_NONAME

    run(loop, main())


def test_resolvers_own_exception_comes_through(loop):
    class Mine(Exception):
        pass

    async def getaddrinfo(*args, **kwargs):
        raise Mine("no such name")

    async def main():
        loop.getaddrinfo = getaddrinfo
        with pytest.raises(Mine, match="no such name"):
            await connect(loop, "name.example", 80)

    run(loop, main())


@pytest.mark.parametrize("kwargs", [{}, {"happy_eyeballs_delay": 0.25}], ids=["plain", "eyeballs"])
def test_resolver_that_finds_nothing(loop, kwargs):
    async def main():
        resolve_to(loop, {"name.example": []})
        with pytest.raises(OSError, match=r"getaddrinfo\(\) returned empty list"):
            await connect(loop, "name.example", 80, **kwargs)

    run(loop, main())


def test_resolver_that_finds_no_local_address(loop, listener):
    async def main():
        resolve_to(loop, {"here": []})
        with pytest.raises(OSError, match=r"getaddrinfo\(\) returned empty list"):
            await connect(loop, *listener.getsockname(), local_addr=("here", 0))

    run(loop, main())


def test_local_port_in_use(loop, listener):
    async def main():
        with refusing_address() as taken:
            with pytest.raises(
                OSError, match="error while attempting to bind on address"
            ) as caught:
                await connect(loop, *listener.getsockname(), local_addr=taken)
            assert caught.value.errno == errno.EADDRINUSE
            assert str(taken) in str(caught.value)

    run(loop, main())


def test_local_address_of_another_machine(loop, listener):
    async def main():
        with pytest.raises(OSError, match=r"203\.0\.113\.1") as caught:
            await connect(loop, *listener.getsockname(), local_addr=("203.0.113.1", 0))
        assert caught.value.errno == errno.EADDRNOTAVAIL

    run(loop, main())


@needs_ipv6
def test_local_address_of_another_family(loop, listener):
    async def main():
        with pytest.raises(OSError, match="no matching local address"):
            await connect(loop, *listener.getsockname(), local_addr=("::1", 0))

    run(loop, main())


@pytest.mark.skipif(not LINUX, reason="connecting the socket to itself is Linux's oddity")
def test_connection_to_itself_is_a_connection(loop):
    # Local port = remote port: TCP's simultaneous open. It must not confuse anybody.
    async def main():
        with refusing_address() as where:
            pass
        transport, protocol = await connect(loop, *where, local_addr=where)
        transport.write(b"echo")
        assert await protocol.received(4) == b"echo"
        transport.abort()
        await protocol.lost

    run(loop, main())


def test_peer_that_resets_before_it_is_noticed(loop):
    # Connected, then reset, before the loop looks at the socket.
    async def main():
        with tcp_pair() as (peer, server_side):
            sock = server_side.dup()
            server_side.close()
            peer.send(b"unread")
            reset(peer)
            transport, protocol = await connect(loop, sock=sock)
            assert isinstance(await protocol.lost, (ConnectionResetError, type(None)))
            assert transport.is_closing()

    run(loop, main())


# ------------------------------------------------------------ protocol factories


@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
def test_exception_of_the_factory_comes_through(loop, method):
    def factory():
        raise ZeroDivisionError("in the factory")

    async def main():
        with tcp_pair() as (_, server_side), server_side.dup() as sock:
            with pytest.raises(ZeroDivisionError, match="in the factory"):
                await getattr(loop, method)(factory, sock=sock)

    run(loop, main())


def test_exception_of_the_factory_closes_the_new_connection(loop, listener):
    def factory():
        raise ZeroDivisionError("in the factory")

    async def main():
        with pytest.raises(ZeroDivisionError, match="in the factory"):
            await loop.create_connection(factory, *listener.getsockname())
        peer, _ = listener.accept()
        with peer:
            drop_unreferenced()
            assert peer.recv(1) == b""

    # Newer asyncio closes the socket itself; before 3.14 it was left to the garbage collector.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if isinstance(loop, asyncio.SelectorEventLoop) else "error")
        run(loop, main())
        collect()


@pytest.mark.parametrize("protocol", [None, 42, object()], ids=["None", "int", "object"])
def test_factory_that_makes_no_protocol_is_an_error_of_create_connection(loop, listener, protocol):
    async def main():
        with pytest.raises((AttributeError, TypeError), match=re.escape(type(protocol).__name__)):
            await loop.create_connection(lambda: protocol, *listener.getsockname())
        await turns()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if isinstance(loop, asyncio.SelectorEventLoop) else "error")
        run(loop, main())
        collect()


@pytest.mark.veloop_only("asyncio reports it in debug mode only, and leaves the socket to the GC")
@pytest.mark.parametrize("factory", [lambda: 1 / 0, lambda: None], ids=["raises", "None"])
def test_factory_that_fails_for_an_accepted_connection(loop, loop_errors, factory):
    async def main():
        server = await loop.create_server(factory, HOST, 0)
        for _ in range(3):
            with socket.create_connection(address(server), PATIENCE) as peer:
                await until(lambda: loop_errors.items)
                await turns()
                # Closed, and the server lives on.
                assert peer.recv(1) == b""
            assert isinstance(loop_errors.take_one()["exception"], Exception)
        assert server.is_serving()
        server.close()
        await server.wait_closed()

    run(loop, main())


# ------------------------------------------------------------ bad input


class Case:
    """A bad argument, what it raises, and whether the message can be ours and show the value."""

    def __init__(self, argument, value, exception, ours=True, shown=True):
        self.argument = argument
        self.value = value
        self.exception = exception
        self.ours = ours
        self.shown = ours and shown

    def __repr__(self):
        # For the test's id: without addresses, which differ from run to run.
        return f"{self.argument}={self.value!r}".partition(" at 0x")[0][:40]

    def check(self, loop_kind, exc):
        if loop_kind == "veloop" and self.ours:
            assert self.argument in str(exc), f"{exc!r} does not name {self.argument}"
        if loop_kind == "veloop" and self.shown:
            # The port '65536' may be shown as 65536.
            shown = (repr(self.value), str(self.value))
            assert any(text in str(exc) for text in shown), f"{exc!r} does not show {shown}"


def refused_by_getaddrinfo(*arguments):
    """A case that asyncio leaves to socket.getaddrinfo()."""
    otherwise = pytest.mark.stock_unless(PYPY, "PyPy's getaddrinfo() raises another exception")
    return pytest.param(Case(*arguments), marks=otherwise)


# Of both create_connection and create_server, on a numeric host.
RESOLVING = [
    Case("port", -1, OverflowError),
    Case("port", 65536, OverflowError),
    Case("port", 2**70, OverflowError),
    Case("port", "65536", OverflowError),
    Case("port", b"65536", OverflowError, shown=False),
    Case("port", "no-such-service", socket.gaierror, ours=False),
    Case("port", "\N{SUPERSCRIPT TWO}", socket.gaierror, ours=False),
    refused_by_getaddrinfo("port", object(), OSError),
    refused_by_getaddrinfo("port", [80], OSError),
    Case("host", 123, TypeError),
    Case("host", 1.5, TypeError),
    Case("host", object(), TypeError),
    refused_by_getaddrinfo("host", "a\0b", ValueError),
    Case("host", "x" * 300, UnicodeError, ours=False),
    Case("host", "256.0.0.1", socket.gaierror, ours=False),
    Case("host", "::1%no-such-interface", socket.gaierror, ours=False),
    Case("family", 999, socket.gaierror, ours=False),
    Case("family", -1, socket.gaierror, ours=False),
    Case("family", socket.AF_INET6, socket.gaierror, ours=False),
    Case("family", "x", TypeError),
    Case("family", None, TypeError),
    Case("flags", -1, socket.gaierror, ours=False),
    Case("flags", "x", TypeError),
    Case("flags", None, TypeError),
    Case("sock", "x", AttributeError),
    Case("sock", 5, AttributeError),
    Case("sock", object(), AttributeError),
    Case("ssl_handshake_timeout", 1, ValueError, shown=False),
    Case("ssl_shutdown_timeout", 1, ValueError, shown=False),
]

CONNECTING = [
    Case("proto", 999, socket.gaierror, ours=False),
    Case("proto", "x", TypeError),
    Case("proto", None, TypeError),
    Case("local_addr", 5, TypeError),
    Case("local_addr", (HOST,), ValueError),
    Case("local_addr", (5, 0), TypeError),
    Case("local_addr", (HOST, -1), OverflowError),
    Case("local_addr", (HOST, 65536), OverflowError),
    Case("local_addr", (HOST, "no-such-service"), socket.gaierror, ours=False),
    Case("server_hostname", "x", ValueError, shown=False),
    *(
        pytest.param(
            Case("happy_eyeballs_delay", value, TypeError),
            marks=pytest.mark.veloop_only(
                "asyncio raises a group since 3.14, and leaks the socket"
            ),
        )
        for value in ("x", object())
    ),
    Case("interleave", "x", TypeError),
    Case("interleave", object(), TypeError),
    Case("protocol_factory", None, TypeError),
    Case("protocol_factory", "x", TypeError),
]

LISTENING = [
    Case("host", [1], TypeError),
    Case("host", [HOST, 5], TypeError),
    Case("host", [HOST, "256.0.0.1"], socket.gaierror, ours=False),
    pytest.param(
        Case("host", [], OSError, ours=False),
        marks=pytest.mark.stock_since("3.13.0", "asyncio made a server without sockets"),
    ),
    Case("backlog", "x", TypeError),
    Case("backlog", 1.5, TypeError),
    Case("backlog", None, TypeError),
    Case("backlog", 2**31, OverflowError),
    Case("backlog", 2**70, OverflowError),
    Case("ssl", True, TypeError),
    Case("ssl", False, TypeError),
]


def arguments(case, port):
    """The call's arguments: all good but one."""
    if case.argument == "sock":
        return {"sock": case.value}
    kwargs = {"host": HOST, "port": port, case.argument: case.value}
    if case.argument in ("flags", "proto"):
        kwargs["host"] = "localhost"  # a number's family and type need no resolver
    if isinstance(kwargs["host"], str) and not kwargs["host"].isascii():
        kwargs["flags"] = socket.AI_NUMERICHOST
    return kwargs


@pytest.mark.parametrize("case", RESOLVING + CONNECTING, ids=repr)
def test_bad_argument_of_create_connection(loop, loop_kind, listener, case):
    async def main():
        kwargs = arguments(case, listener.getsockname()[1])
        factory = kwargs.pop("protocol_factory", lambda: RecordingProtocol(loop))
        with pytest.raises(case.exception) as caught:
            await loop.create_connection(factory, **kwargs)
        case.check(loop_kind, caught.value)

    # A socket that only the garbage collector closed is stock asyncio's own affair.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if loop_kind == "asyncio" else "error")
        run(loop, main())
        collect(passes=2)


@pytest.mark.parametrize("case", RESOLVING + LISTENING, ids=repr)
def test_bad_argument_of_create_server(loop, loop_kind, case):
    async def main():
        kwargs = arguments(case, 0)
        with pytest.raises(case.exception) as caught:
            await loop.create_server(lambda: RecordingProtocol(loop), **kwargs)
        case.check(loop_kind, caught.value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if loop_kind == "asyncio" else "error")
        run(loop, main())
        collect(passes=2)


@pytest.mark.veloop_only("asyncio finds out when the first connection comes")
@pytest.mark.parametrize("factory", [None, 42, "x"])
def test_protocol_factory_of_a_server_that_is_not_callable(loop, factory):
    async def main():
        with pytest.raises(TypeError, match="protocol_factory") as caught:
            server = await loop.create_server(factory, HOST, 0)
            server.close()
        assert repr(factory) in str(caught.value)

    run(loop, main())


@pytest.mark.parametrize("method", ["create_connection", "create_server"])
@pytest.mark.parametrize(
    "where", [{"host": HOST}, {"port": 0}, {"host": HOST, "port": 0}], ids=["host", "port", "both"]
)
def test_socket_and_address_together_are_refused(loop, method, where):
    async def main():
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="host/port and sock can not be specified"):
                await getattr(loop, method)(lambda: RecordingProtocol(loop), sock=sock, **where)
            assert sock.fileno() >= 0

    run(loop, main())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("create_connection", "host and port was not specified and no sock specified"),
        ("create_server", "Neither host/port nor sock were specified"),
    ],
)
def test_neither_socket_nor_address_is_refused(loop, method, message):
    async def main():
        with pytest.raises(ValueError, match=message):
            await getattr(loop, method)(lambda: RecordingProtocol(loop))

    run(loop, main())


METHODS = ["create_connection", "connect_accepted_socket", "create_server"]


@pytest.mark.parametrize("method", METHODS)
def test_socket_of_another_type_is_refused_and_left_alone(loop, method):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="A Stream Socket was expected") as caught:
                await getattr(loop, method)(lambda: RecordingProtocol(loop), sock=sock)
            assert repr(sock) in str(caught.value)
            assert sock.fileno() >= 0

    run(loop, main())


@pytest.mark.parametrize("method", METHODS)
def test_tls_socket_is_refused_and_left_alone(loop, loop_kind, method):
    async def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(socket.socket()) as sock:
            with pytest.raises(TypeError, match="SSLSocket") as caught:
                await getattr(loop, method)(lambda: RecordingProtocol(loop), sock=sock)
            if loop_kind == "veloop":
                assert repr(sock) in str(caught.value)
            assert sock.fileno() >= 0

    run(loop, main())


@pytest.mark.parametrize("method", METHODS)
def test_closed_socket_is_refused(loop, method):
    async def main():
        sock = socket.socket()
        sock.close()
        with pytest.raises(OSError, match=r"[Bb]ad file descriptor|WinError 10038") as caught:
            await getattr(loop, method)(lambda: RecordingProtocol(loop), sock=sock)
        assert caught.value.errno == (errno.ENOTSOCK if WINDOWS else errno.EBADF)

    run(loop, main())


@pytest.mark.parametrize("method", METHODS[:2])
def test_unconnected_socket_is_lost_at_once(loop, method):
    async def main():
        transport, protocol = await getattr(loop, method)(
            lambda: RecordingProtocol(loop), sock=socket.socket()
        )
        assert transport.get_extra_info("peername") is None
        exc = await protocol.lost
        assert isinstance(exc, OSError)
        assert exc.errno == errno.ENOTCONN

    run(loop, main())


@pytest.mark.skipif(WINDOWS, reason="other errors there")
@pytest.mark.parametrize("method", METHODS[:2])
def test_listening_socket_is_lost_with_the_first_write(loop, method):
    async def main():
        with listening_socket() as listener:
            transport, protocol = await getattr(loop, method)(
                lambda: RecordingProtocol(loop), sock=listener.dup()
            )
            transport.write(b"x")
            assert isinstance(await protocol.lost, OSError)

    run(loop, main())


@pytest.mark.skipif(WINDOWS, reason="other errors there")
def test_connected_socket_cannot_serve(loop):
    async def main():
        with tcp_pair() as (sock, _):
            with pytest.raises(OSError, match=r"[Ii]nvalid argument") as caught:
                await loop.create_server(lambda: RecordingProtocol(loop), sock=sock)
            assert caught.value.errno == errno.EINVAL
            assert sock.fileno() >= 0

    run(loop, main())


@pytest.mark.skipif(WINDOWS, reason="no socket listens there that was not bound")
def test_unbound_socket_serves_on_a_port_of_the_systems_choice(loop):
    async def main():
        async with serving(loop, sock=socket.socket()) as (server, protocols):
            port = server.sockets[0].getsockname()[1]
            with socket.create_connection((HOST, port), PATIENCE):
                await until(lambda: protocols)

    run(loop, main())


# ------------------------------------------------------------ a closed loop


@pytest.mark.veloop_only("asyncio goes some way on a closed loop, and leaks")
@pytest.mark.parametrize("method", METHODS)
def test_closed_loop_refuses_and_leaves_the_socket_alone(new_loop, method):
    closed, loop = new_loop(), new_loop()
    closed.close()
    with socket.socket() as sock:
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            run(loop, getattr(closed, method)(asyncio.Protocol, sock=sock))
        assert sock.fileno() >= 0


def test_family_mismatch_between_resolver_and_socket(loop):
    # A resolver of the application's may answer nonsense.
    async def getaddrinfo(*args, **kwargs):
        family, *rest = addrinfo((HOST, 80))
        return [(999, *rest)]

    async def main():
        loop.getaddrinfo = getaddrinfo
        with pytest.raises(OSError, match=r"[Aa]ddress family|WinError 10047") as caught:
            await connect(loop, "name.example", 80)
        assert caught.value.errno == errno.EAFNOSUPPORT

    run(loop, main())
