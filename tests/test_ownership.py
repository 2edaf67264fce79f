"""Who owns a descriptor: exactly one side, on every path, and nobody closes a number twice.

"File descriptor X is used by transport" and closed descriptors of innocents are the best known
bugs of other loops. `Canaries` take over the numbers that were freed:
whoever still closes, writes or shuts one down is caught.
"""

import asyncio
import contextlib
import socket
import warnings
import weakref

import pytest

from children import run_script
from helpers import (
    LINUX,
    WINDOWS,
    RecordingProtocol,
    collect,
    drain,
    is_bad_fd,
    open_fds,
    poll,
    refusing_address,
    tcp_pair,
)
from tcp_helpers import (
    HOST,
    WAYS,
    Canaries,
    address,
    hanging_address,
    left_alone,
    run,
    serving,
    turns,
    wired,
)

pytestmark = pytest.mark.skipif(WINDOWS, reason="descriptors are numbers on POSIX only")

METHODS = ["create_connection", "connect_accepted_socket"]
closes_it = pytest.mark.stock_since("3.14.9", "gh-153133: the socket was left to the caller")


def fail():
    raise ZeroDivisionError("in the factory")


@contextlib.contextmanager
def own_socket():
    """(a connected socket, its peer): the socket is the test's to hand over."""
    with tcp_pair() as (peer, server_side):
        sock = server_side.dup()
        server_side.close()
        yield sock, peer


# ------------------------------------------------------------ handing a socket over


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["close", "abort"])
def test_socket_handed_over_is_closed_once_with_its_transport(loop, method, how):
    async def main():
        with own_socket() as (sock, _):
            number = sock.fileno()
            transport, protocol = await getattr(loop, method)(
                lambda: RecordingProtocol(loop), sock=sock
            )
            getattr(transport, how)()
            await protocol.lost
            await turns()
            assert sock.fileno() == -1
            assert is_bad_fd(number)
            with Canaries() as canaries:
                assert number in canaries.numbers
                sock.close()
                transport.close()
                transport.abort()
                del transport, sock
                collect()
                await turns(5)
                canaries.check()

    run(loop, main())


@pytest.mark.parametrize("method", METHODS)
def test_socket_refused_by_the_factory_has_one_owner(loop, method):
    # Whoever it is: it can be closed once, and its number is nobody else's business then.
    async def main():
        with own_socket() as (sock, peer):
            with pytest.raises(ZeroDivisionError):
                await getattr(loop, method)(fail, sock=sock)
            sock.close()
            assert peer.recv(1) == b""
            with Canaries() as canaries:
                sock.close()
                del sock
                collect()
                await turns(5)
                canaries.check()

    run(loop, main())


@closes_it
@pytest.mark.parametrize("method", METHODS)
def test_socket_is_closed_where_no_transport_comes_of_it(loop, method):
    # The newest CPython's answer to who owns it.
    async def main():
        with own_socket() as (sock, _):
            with pytest.raises(ZeroDivisionError):
                await getattr(loop, method)(fail, sock=sock)
            try:
                assert sock.fileno() == -1
            finally:
                sock.close()

    run(loop, main())


@pytest.mark.parametrize("method", METHODS)
def test_cancelled_before_connection_made_closes_the_socket(loop, method):
    async def main():
        with own_socket() as (sock, peer):
            task = loop.create_task(
                getattr(loop, method)(lambda: RecordingProtocol(loop), sock=sock)
            )
            await turns(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns(5)
            assert sock.fileno() == -1
            assert peer.recv(1) == b""

    run(loop, main())


@pytest.mark.parametrize("method", METHODS)
def test_connection_made_that_raises_leaves_the_socket_with_the_transport(
    loop, loop_errors, method
):
    class Failing(RecordingProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError("in connection_made")

    async def main():
        with own_socket() as (sock, peer):
            transport, protocol = await getattr(loop, method)(lambda: Failing(loop), sock=sock)
            transport.abort()
            await protocol.lost
            await turns()
            assert sock.fileno() == -1
            assert peer.recv(1) == b""
            with Canaries() as canaries:
                sock.close()
                await turns(5)
                canaries.check()

    run(loop, main())
    assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)


@pytest.mark.stock_since("3.12.0", "asyncio let two transports have one descriptor")
@pytest.mark.parametrize("method", METHODS)
def test_socket_of_a_transport_cannot_be_handed_over_again(loop, method):
    async def main():
        async with wired(loop, way="given") as (transport, protocol, peer):
            number = transport.get_extra_info("socket").fileno()
            twin = socket.socket(fileno=number)
            try:
                with pytest.raises(RuntimeError, match="used by") as caught:
                    await getattr(loop, method)(lambda: RecordingProtocol(loop), sock=twin)
                assert str(number) in str(caught.value)
            finally:
                twin.detach()
            peer.sendall(b"hello")
            assert await protocol.received(5) == b"hello"

    if isinstance(loop, asyncio.SelectorEventLoop):
        pytest.skip("not on stock asyncio: since gh-153133 it closes the socket of the other one")
    run(loop, main())


def test_duplicates_of_a_socket_are_owned_apart(loop):
    async def main():
        with own_socket() as (sock, peer):
            copy = sock.dup()
            _, first = await loop.create_connection(lambda: RecordingProtocol(loop), sock=sock)
            first.transport.close()
            await first.lost
            await turns()
            _, second = await loop.create_connection(lambda: RecordingProtocol(loop), sock=copy)
            peer.sendall(b"hello")
            assert await second.received(5) == b"hello"
            second.transport.close()
            await second.lost

    run(loop, main())


def test_server_that_cannot_listen_leaves_the_socket_alone(loop):
    async def main():
        with own_socket() as (sock, peer), sock:
            with pytest.raises(OSError, match="[Ii]nvalid argument"):
                await loop.create_server(lambda: RecordingProtocol(loop), sock=sock)
            sock.setblocking(True)
            sock.sendall(b"still mine")
            assert drain(peer, 10) == b"still mine"

    run(loop, main())


def test_socket_of_a_server_is_closed_once(loop):
    async def main():
        sock = socket.socket()
        sock.bind((HOST, 0))
        number = sock.fileno()
        server = await loop.create_server(lambda: RecordingProtocol(loop), sock=sock)
        server.close()
        await server.wait_closed()
        await turns()
        assert sock.fileno() == -1
        with Canaries() as canaries:
            assert number in canaries.numbers
            sock.close()
            server.close()
            del server, sock
            collect()
            await turns(5)
            canaries.check()

    run(loop, main())


# ------------------------------------------------------------ attempts to connect


def test_number_of_a_refused_attempt_is_free(loop):
    async def main():
        with refusing_address() as where:
            for _ in range(5):
                with pytest.raises(ConnectionRefusedError):
                    await loop.create_connection(asyncio.Protocol, *where)
                with Canaries() as canaries:
                    await turns(5)
                    canaries.check()

    run(loop, main())


@pytest.mark.skipif(not LINUX, reason="Linux lets a connection to a full queue wait")
def test_number_of_a_cancelled_attempt_is_free(loop):
    async def main():
        with hanging_address() as where:
            before = open_fds()
            for _ in range(5):
                task = loop.create_task(loop.create_connection(asyncio.Protocol, *where))
                await turns(5)
                # Sockets: libuv also takes a descriptor for each loop that has a stream.
                mine = {
                    number
                    for number, what in open_fds().items()
                    if number not in before and what.startswith("socket")
                }
                assert mine
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                with Canaries() as canaries:
                    assert mine <= canaries.numbers
                    await turns(10)
                    canaries.check()

    run(loop, main())


def test_number_of_a_connection_whose_factory_raised_is_free(loop):
    async def main():
        async with serving(loop) as (server, _):
            for _ in range(5):
                with pytest.raises(ZeroDivisionError):
                    await loop.create_connection(fail, *address(server))
                collect()
                with Canaries() as canaries:
                    await turns(10)
                    canaries.check()

    # Before gh-153133 asyncio left it to the garbage collector.
    with warnings.catch_warnings():
        stock = isinstance(loop, asyncio.SelectorEventLoop)
        warnings.simplefilter("ignore" if stock else "error", ResourceWarning)
        run(loop, main())


# ------------------------------------------------------------ the end of a transport


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["close", "abort", "peer"])
def test_number_of_an_ended_transport_is_nobodys(loop, way, how):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            sock = transport.get_extra_info("socket")
            number = sock.fileno()
            if how == "peer":
                peer.close()
            else:
                getattr(transport, how)()
            await protocol.lost
            await turns()
            assert is_bad_fd(number)
            with Canaries() as canaries:
                assert number in canaries.numbers
                transport.close()
                transport.write(b"x" * 100)
                transport.write_eof()
                transport.resume_reading()
                protocol.transport = None
                del transport, sock
                collect()
                poll(loop) if not loop.is_running() else await turns(10)
                canaries.check()

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_number_of_an_aborted_transport_with_much_to_write_is_nobodys(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, _):
            transport.write(bytes(1 << 24))
            transport.abort()
            await protocol.lost
            await turns()
            with Canaries() as canaries:
                await turns(20)
                canaries.check()

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_numbers_of_a_closed_loop_are_nobodys(new_loop, way):
    loop = new_loop()
    peers = []
    transport = run(loop, left_alone(loop, way, peers))()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        number = transport.get_extra_info("socket").fileno()
        loop.close()
        # asyncio's transport has its socket until it is collected.
        canaries = Canaries() if is_bad_fd(number) else None
        for method, *arguments in (["close"], ["abort"], ["write", b"x"]):
            with contextlib.suppress(RuntimeError):
                getattr(transport, method)(*arguments)
        del transport, loop
        collect()
        if canaries is None:
            canaries = Canaries()
        assert number in canaries.numbers
        collect()
        canaries.check()
    with canaries, peers[0] as peer:
        assert peer.recv(1) == b""


# ------------------------------------------------------------ sockets closed too early


@pytest.mark.parametrize("when", ["at once", "later"])
def test_socket_closed_by_the_application_does_not_hit_others(loop, when):
    # An error of the application's, but an innocent descriptor must not pay for it.
    async def main():
        with own_socket() as (sock, _):
            transport, protocol = await loop.create_connection(
                lambda: RecordingProtocol(loop), sock=sock
            )
            if when == "later":
                await turns(10)
            sock.close()
            with Canaries() as canaries:
                transport.write(b"this must not go to somebody else")
                await turns(10)
                transport.write_eof() if not transport.is_closing() else None
                transport.close()
                await protocol.lost
                await turns(10)
                canaries.check()

    with contextlib.suppress(OSError):  # asyncio's write_eof says EBADF
        run(loop, main())
    run(loop, turns(10))


def test_transport_whose_socket_was_closed_early_is_freed(loop):
    async def main():
        with own_socket() as (sock, _):
            transport, protocol = await loop.create_connection(
                lambda: RecordingProtocol(loop), sock=sock
            )
            sock.close()
            transport.abort()
            await protocol.lost
            await turns()
            protocol.transport = protocol.connected = None
            return weakref.ref(transport)

    reference = run(loop, main())
    run(loop, turns())
    collect()
    assert reference() is None


EARLY = """
    loop = new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)

    async def main():
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=sock)
        {mistreatment}
        await asyncio.sleep(0.01)
        transport.abort()
        await asyncio.sleep(0.01)

        # The loop is as good as before.
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        for _ in range(5):
            other, _ = await loop.create_connection(
                asyncio.Protocol, *server.sockets[0].getsockname()
            )
            other.write(b"x")
            other.close()
        await asyncio.sleep(0.01)
        server.close()

    loop.run_until_complete(asyncio.wait_for(main(), 10))
    loop.close()
    print("usable")
"""

MISTREATMENTS = {
    "os.close": "os.close(sock.fileno())",
    "os.close, number reused by a file": """
        os.close(sock.fileno())
        assert os.open(os.devnull, os.O_RDONLY) == sock.fileno()
    """,
    "os.close, number reused by a socket": """
        number = sock.fileno()
        os.close(number)
        others = socket.socketpair()
        assert number in [other.fileno() for other in others]
    """,
    "os.close, number reused by a connection of the loop": """
        number = sock.fileno()
        os.close(number)
        client2 = socket.create_connection(listener.getsockname())
        sock2, _ = listener.accept()
        try:
            transport2, _ = await loop.create_connection(asyncio.Protocol, sock=sock2)
            transport2.abort()
        except RuntimeError as exc:
            assert "used by" in str(exc), exc
    """,
    "os.close, then every method": """
        os.close(sock.fileno())
        for call in (
            lambda: transport.write(b"x" * 100),
            transport.pause_reading,
            transport.resume_reading,
            lambda: transport.writelines([b"x" * 50000, b"y"]),
            transport.write_eof,
            transport.close,
            transport.abort,
        ):
            try:
                call()
            except (OSError, RuntimeError, KeyError, ValueError) as exc:
                print(type(exc).__name__, file=sys.stderr)
    """,
    "dup2 over it": """
        devnull = os.open(os.devnull, os.O_RDONLY)
        os.dup2(devnull, sock.fileno())
        transport.write(b"x")
    """,
    "detached and closed": """
        os.close(sock.detach())
        transport.close()
    """,
    "closed with much to write": """
        transport.write(bytes(1 << 24))
        os.close(sock.fileno())
        await asyncio.sleep(0)
        client.close()
    """,
    "shut down": """
        sock.shutdown(socket.SHUT_RDWR)
        transport.write(b"x")
    """,
}


@pytest.mark.parametrize("mistreatment", MISTREATMENTS.values(), ids=MISTREATMENTS)
def test_descriptor_of_a_transport_closed_behind_its_back_is_no_crash(loop_kind, mistreatment):
    lines = [line.strip("\n") for line in mistreatment.strip().splitlines()]
    body = "\n        ".join([lines[0], *(line.removeprefix("        ") for line in lines[1:])])
    done = run_script(
        loop_kind,
        # What Python's own socket objects complain of is not the matter here.
        EARLY.format(mistreatment=body),
        "-W",
        "ignore",
        check=loop_kind == "veloop",
    )
    if loop_kind == "asyncio" and done.returncode != 0:
        assert done.returncode > 0, "stock asyncio crashed"
        return
    assert done.stdout.split() == ["usable"]


@pytest.mark.veloop_only("asyncio's transports raise from everything that touches the selector")
def test_accepted_descriptor_closed_before_it_is_watched_is_no_crash(loop_kind):
    # libuv has the number and nothing else, and asks the kernel to watch it only afterwards.
    script = """
        loop = new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        transports = []

        class Closes(asyncio.Protocol):
            def connection_made(self, transport):
                os.close(transport.get_extra_info("socket").fileno())
                transports.append(transport)

        async def main():
            server = await loop.create_server(Closes, "127.0.0.1", 0)
            with socket.create_connection(server.sockets[0].getsockname()):
                while not transports:
                    await asyncio.sleep(0.001)
                for _ in range(3):
                    await asyncio.sleep(0.001)
                transports[0].abort()
                await asyncio.sleep(0.001)
            server.close()
            await server.wait_closed()
            print("usable")

        loop.run_until_complete(main())
        loop.close()
    """
    done = run_script(loop_kind, script, "-W", "ignore")
    assert done.stdout.split() == ["usable"]
