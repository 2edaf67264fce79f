"""udp.py, what goes wrong: arguments, addresses, refusals, protocols that raise."""

import asyncio
import contextlib
import errno
import socket

import pytest

from helpers import LINUX, PYPY, WINDOWS, has_ipv6, new_event_loop
from tcp_helpers import HOST, run, run_forever, turns
from udp_helpers import ANY, Recorder, endpoint, name, pair, udp_socket

linux = pytest.mark.skipif(not LINUX, reason="other systems report it otherwise")
needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
unix = pytest.mark.skipif(WINDOWS, reason="no Unix sockets")
takes_lists = pytest.mark.skipif(PYPY, reason="PyPy's sockets take a list for an address")
# What PyPy's sockets raise for an address whose form is wrong.
MALFORMED = (TypeError, ValueError) if PYPY else TypeError


def create(loop, **kwargs):
    return run(loop, loop.create_datagram_endpoint(lambda: Recorder(loop), **kwargs))


# ------------------------------------------------------------ arguments


def test_neither_address_nor_family(loop):
    with pytest.raises(ValueError, match="unexpected address family"):
        create(loop)


@pytest.mark.parametrize("argument", ["local_addr", "remote_addr"])
@pytest.mark.parametrize(
    "value", ["localhost", ("localhost",), ("localhost", 1, 2, 3), [HOST, 0], 7, b"host"]
)
def test_address_must_be_a_pair(loop, argument, value):
    with pytest.raises(TypeError):
        create(loop, **{argument: value})


@pytest.mark.parametrize(
    ("value", "kind"),
    [((HOST, 65536), OverflowError), ((HOST, -1), OverflowError), ((7, 0), TypeError)],
)
def test_host_and_port_must_make_sense(loop, value, kind):
    with pytest.raises(kind):
        create(loop, local_addr=value)


@needs_ipv6
def test_addresses_of_different_families(loop):
    with pytest.raises(ValueError, match="can not get address information"):
        create(loop, local_addr=("::1", 0), remote_addr=(HOST, 9))


def test_no_address_found(loop):
    async def getaddrinfo(*args, **kwargs):
        return []

    loop.getaddrinfo = getaddrinfo
    with pytest.raises(OSError, match="empty list"):
        create(loop, local_addr=("name.test", 0))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"local_addr": ANY},
        {"remote_addr": ANY},
        {"family": socket.AF_INET},
        {"proto": 17},
        {"flags": 1},
        {"reuse_port": True},
        {"allow_broadcast": True},
    ],
    ids=lambda kwargs: next(iter(kwargs)),
)
def test_given_socket_goes_with_nothing_else(loop, kwargs):
    with udp_socket() as sock:
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            create(loop, sock=sock, **kwargs)
        assert sock.fileno() != -1


def test_given_socket_must_carry_datagrams(loop):
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="ocket was expected") as raised:
            create(loop, sock=sock)
        assert sock.fileno() != -1
        # In this Python's own words, which 3.11.8 and 3.12.2 changed.
        with contextlib.closing(new_event_loop("asyncio")) as stock:
            with pytest.raises(ValueError) as expected:
                create(stock, sock=sock)
        assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize("sock", [object(), 7, "socket"])
def test_given_socket_must_be_one(loop, sock):
    with pytest.raises(AttributeError):
        create(loop, sock=sock)


def test_given_socket_that_is_closed(loop):
    sock = udp_socket()
    sock.close()
    with pytest.raises((OSError, ValueError)):
        create(loop, sock=sock)


@pytest.mark.parametrize("argument", ["family", "proto"])
def test_numbers_must_be_numbers(loop, argument):
    with pytest.raises(TypeError):
        create(loop, **{"local_addr": ANY, "family": socket.AF_INET, argument: "text"})


@pytest.mark.veloop_only("asyncio leaves its socket to the garbage collector")
def test_factory_must_be_callable(loop):
    with pytest.raises(TypeError):
        run(loop, loop.create_datagram_endpoint(None, local_addr=ANY))


@pytest.mark.veloop_only("asyncio raises AttributeError, and leaves its socket open")
@pytest.mark.parametrize("given", [True, False])
def test_factory_must_return_a_protocol(loop, given):
    with udp_socket() as sock:
        kwargs = {"sock": sock} if given else {"local_addr": ANY}
        with pytest.raises(TypeError, match="must return a protocol"):
            run(loop, loop.create_datagram_endpoint(object, **kwargs))
        assert sock.fileno() != -1


@pytest.mark.veloop_only("asyncio leaves its socket to the garbage collector")
def test_factory_that_raises_leaves_nothing_behind(loop):
    def factory():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(loop, loop.create_datagram_endpoint(factory, family=socket.AF_INET))


def test_factory_that_raises_does_not_take_the_applications_socket(loop):
    def factory():
        raise ZeroDivisionError

    with udp_socket() as sock:
        with pytest.raises(ZeroDivisionError):
            run(loop, loop.create_datagram_endpoint(factory, sock=sock))
        assert sock.fileno() != -1
        transport, protocol = create(loop, sock=sock)
        transport.close()
        run(loop, protocol.lost)


def test_address_in_use(loop):
    with udp_socket() as sock:
        with pytest.raises(OSError) as caught:
            create(loop, local_addr=sock.getsockname())
        assert caught.value.errno == errno.EADDRINUSE


def test_first_of_several_failures_is_raised(loop):
    with udp_socket() as sock:
        port = sock.getsockname()[1]

        async def getaddrinfo(*args, **kwargs):
            info = (socket.AF_INET, socket.SOCK_DGRAM)
            return [
                (*info, socket.IPPROTO_UDP, "", (HOST, port)),
                (*info, socket.IPPROTO_TCP, "", (HOST, 0)),  # there is no such socket
            ]

        loop.getaddrinfo = getaddrinfo
        with pytest.raises(OSError) as caught:
            create(loop, local_addr=("name.test", port))
        assert caught.value.errno == errno.EADDRINUSE


def test_peer_that_cannot_be_connected_to(loop):
    with pytest.raises(OSError):
        create(loop, remote_addr=("255.255.255.255", 9))


@pytest.mark.veloop_only("asyncio watches such a descriptor for both")
def test_socket_of_a_transport_is_refused(loop):
    async def main():
        sock = udp_socket()
        async with endpoint(loop, sock=sock) as protocol:
            for call in (
                lambda: loop.add_reader(sock, print),
                lambda: loop.add_writer(sock.fileno(), print),
            ):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    call()
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)
            own = protocol.transport.get_extra_info("socket").fileno()
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_reader(own, print)

    run(loop, main())


@pytest.mark.veloop_only("asyncio notices when it has made the socket, and leaves that open")
def test_closed_loop(loop):
    loop.close()
    coroutine = loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=ANY)
    with pytest.raises(RuntimeError, match="closed"):
        coroutine.send(None)


def test_cancelled_creation_leaves_nothing_behind(loop):
    made = []

    async def main():
        def factory():
            made.append(Recorder(loop))
            task.cancel()
            return made[-1]

        task = loop.create_task(loop.create_datagram_endpoint(factory, local_addr=ANY))
        with pytest.raises(asyncio.CancelledError):
            await task
        await made[0].lost
        await turns()

    run(loop, main())


# ------------------------------------------------------------ errors of sending


@linux
def test_refused_by_the_peer(loop):
    """ICMP's answer reaches a connected socket, at the next call on it or by itself."""

    async def main():
        with udp_socket() as sock:
            where = sock.getsockname()
        async with endpoint(loop, remote_addr=where) as client:
            client.transport.sendto(b"anybody?")
            (exc,) = await client.failed(1)
            assert type(exc) is ConnectionRefusedError
            assert exc.errno == errno.ECONNREFUSED
            assert not client.transport.is_closing()
            # The endpoint lives on, and so does what it may still hear.
            with udp_socket(bind=False) as sock:
                sock.bind(where)
                client.transport.sendto(b"somebody")
                await turns()
                assert sock.recv(100) == b"somebody"
                sock.sendto(b"yes", name(client))
                assert await client.got(1) == [b"yes"]

    run(loop, main())


@linux
def test_refusal_met_by_the_next_sendto(loop):
    async def main():
        with udp_socket() as sock:
            where = sock.getsockname()
        async with endpoint(loop, remote_addr=where) as client:
            client.transport.sendto(b"one")
            client.transport.sendto(b"two")  # reports what became of the first
            assert [type(exc) for exc in client.errors] == [ConnectionRefusedError]

    run(loop, main())


@linux
def test_refusals_without_an_end_do_not_end_the_endpoint(loop):
    async def main():
        with udp_socket() as sock:
            where = sock.getsockname()
        async with endpoint(loop, remote_addr=where) as client:
            for n in range(50):
                client.transport.sendto(b"anybody?")
                await client.failed(n + 1)
            assert not client.transport.is_closing()
            assert {type(exc) for exc in client.errors} == {ConnectionRefusedError}

    run(loop, main())


@linux
def test_error_queue_is_not_told_twice(loop):
    """With IP_RECVERR the system reports each error by two ways; and the queue is emptied."""

    async def main():
        with udp_socket() as gone:
            where = gone.getsockname()
        sock = udp_socket()
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        async with endpoint(loop, sock=sock) as client, endpoint(loop, local_addr=ANY) as other:
            client.transport.sendto(b"anybody?", where)
            (exc,) = await client.failed(1)
            assert type(exc) is ConnectionRefusedError
            other.transport.sendto(b"still there", name(client))
            assert await client.got(1) == [b"still there"]
            await turns(10)
            assert len(client.errors) == 1

    run(loop, main())


def test_datagram_that_is_too_large(loop):
    async def main():
        async with pair(loop) as (server, client):
            client.transport.sendto(bytes(70_000))
            assert [exc.errno for exc in client.errors] == [errno.EMSGSIZE]  # at once
            server.transport.sendto(bytes(1 << 20), name(client))
            assert [exc.errno for exc in server.errors] == [errno.EMSGSIZE]
            client.transport.sendto(b"small")
            assert await server.got(1) == [b"small"]

    run(loop, main())


@pytest.mark.parametrize("host", ["name.invalid", "no such\nhost", "x" * 300])
def test_name_that_cannot_be_resolved(loop, host):
    async def main():
        async with endpoint(loop, family=socket.AF_INET) as client:
            client.transport.sendto(b"hello", (host, 9))
            (exc,) = client.errors
            assert isinstance(exc, OSError if PYPY else socket.gaierror)
            assert not client.transport.is_closing()

    run(loop, main())


@linux
def test_broadcast_without_leave(loop):
    async def main():
        async with endpoint(loop, local_addr=("0.0.0.0", 0)) as client:
            client.transport.sendto(b"to all", ("127.255.255.255", 9))
            assert [type(exc) for exc in client.errors] == [PermissionError]

    run(loop, main())


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (None, TypeError),
        ("a path", MALFORMED),
        ((HOST,), MALFORMED),
        ((HOST, 9, 0, 0), MALFORMED),
        pytest.param([HOST, 9], TypeError, marks=takes_lists),
        ((HOST, "9"), TypeError),
        ((HOST, 9.0), TypeError),
        ((HOST, 65536), OverflowError),
        ((HOST, -1), OverflowError),
        ((None, 9), TypeError),
        ((HOST + "\0", 9), (TypeError, ValueError)),
        (("\xf6" * 80, 9), MALFORMED),
    ],
    ids=str,
)
def test_address_that_is_none_ends_the_endpoint(loop, loop_errors, address, kind):
    """asyncio takes an address of the wrong form for a fatal error."""

    async def main():
        async with endpoint(loop, family=socket.AF_INET) as client:
            client.transport.sendto(b"hello", (HOST, 9))  # it may have been remembered
            client.transport.sendto(b"hello", address)
            assert client.transport.is_closing()
            exc = await client.lost
            assert isinstance(exc, kind)
            context = loop_errors.take_one()
            assert context["exception"] is exc
            assert context["message"] == "Fatal write error on datagram transport"
            assert context["transport"] is client.transport
            assert context["protocol"] is client
            assert client.errors == []

    run(loop, main())


@needs_ipv6
@pytest.mark.parametrize(
    ("address", "kind"),
    [(("::1", 9, 0x100000), OverflowError), (("::1", 9, 0, 0, 0), TypeError)],
    ids=str,
)
def test_ipv6_address_that_is_none(loop, loop_errors, address, kind):
    async def main():
        async with endpoint(loop, family=socket.AF_INET6) as client:
            client.transport.sendto(b"hello", address)
            assert isinstance(await client.lost, kind)
            loop_errors.take_one()

    run(loop, main())


@needs_ipv6
@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, ("::1", 9)), (socket.AF_INET6, (HOST, 9))]
)
def test_address_of_the_other_family(loop, family, address):
    async def main():
        async with endpoint(loop, family=family) as client:
            client.transport.sendto(b"hello", address)
            (exc,) = client.errors
            assert isinstance(exc, OSError if PYPY else socket.gaierror)
            assert not client.transport.is_closing()

    run(loop, main())


# ------------------------------------------------------------ protocols that raise


def raising(method, exception):
    def call(self, *args):
        getattr(Recorder, method)(self, *args)
        raise exception

    return type("Raising", (Recorder,), {method: call})


def test_datagram_received_that_raises_is_reported_and_ends_nothing(loop, loop_errors):
    async def main():
        protocol = raising("datagram_received", ZeroDivisionError("mine"))
        async with pair(loop, protocol) as (server, client):
            client.transport.sendto(b"one")
            client.transport.sendto(b"two")
            await server.got(2)
            await turns()
            contexts = loop_errors.take()
            assert [str(context["exception"]) for context in contexts] == ["mine", "mine"]
            assert all(
                context["message"].startswith("Exception in callback") for context in contexts
            )
            assert not server.transport.is_closing()

    run(loop, main())


def test_connection_made_that_raises_is_reported_and_ends_nothing(loop, loop_errors):
    async def main():
        protocol = raising("connection_made", ZeroDivisionError("mine"))
        async with pair(loop, protocol) as (server, client):
            context = loop_errors.take_one()
            assert str(context["exception"]) == "mine"
            assert context["message"].startswith("Exception in callback")
            client.transport.sendto(b"heard")
            assert await server.got(1) == [b"heard"]

    run(loop, main())


def test_error_received_that_raises_reaches_the_sender(loop):
    async def main():
        protocol = raising("error_received", ZeroDivisionError("mine"))
        async with pair(loop, None, protocol) as (_, client):
            with pytest.raises(ZeroDivisionError, match="mine"):
                client.transport.sendto(bytes(70_000))
            assert not client.transport.is_closing()

    run(loop, main())


@linux
def test_error_received_that_raises_is_reported(loop, loop_errors):
    async def main():
        with udp_socket() as sock:
            where = sock.getsockname()
        protocol = raising("error_received", ZeroDivisionError("mine"))
        async with endpoint(loop, protocol, remote_addr=where) as client:
            client.transport.sendto(b"anybody?")
            await client.failed(1)
            await turns()
            assert str(loop_errors.take_one()["exception"]) == "mine"
            assert not client.transport.is_closing()

    run(loop, main())


def test_connection_lost_that_raises_is_reported(loop, loop_errors):
    async def main():
        protocol = raising("connection_lost", ZeroDivisionError("mine"))
        async with endpoint(loop, protocol, local_addr=ANY) as client:
            client.transport.close()
            await client.lost
            await turns()
            assert str(loop_errors.take_one()["exception"]) == "mine"
            assert client.transport.get_extra_info("socket").fileno() == -1

    run(loop, main())


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupt_loses_no_datagram(loop, interrupt):
    class Protocol(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"1":
                raise interrupt

    async def prepare():
        server = await loop.create_datagram_endpoint(lambda: Protocol(loop), local_addr=ANY)
        client = await loop.create_datagram_endpoint(
            lambda: Recorder(loop), remote_addr=name(server[1])
        )
        return server[1], client[1]

    server, client = run(loop, prepare())
    for n in range(4):
        client.transport.sendto(b"%d" % n)
    with pytest.raises(interrupt):
        run_forever(loop)
    assert server.data == [b"0", b"1"]
    assert run(loop, server.got(4)) == [b"0", b"1", b"2", b"3"]
    for protocol in (server, client):
        protocol.transport.close()
        run(loop, protocol.lost)
    run(loop, turns())
