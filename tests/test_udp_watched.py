"""udp.py, sockets that libuv's UDP handle is not for: Unix sockets, and all other families."""

import contextlib
import errno
import os
import socket
import stat
import sys

import pytest

from helpers import LINUX, WINDOWS, drop_unreferenced
from tcp_helpers import run, run_forever, turns
from udp_helpers import Echo, Recorder, endpoint, name

pytestmark = pytest.mark.skipif(WINDOWS, reason="no Unix sockets")
linux = pytest.mark.skipif(not LINUX, reason="Linux's abstract names")

UNIX = getattr(socket, "AF_UNIX", None)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A function that gives paths short enough for a socket."""
    monkeypatch.chdir(tmp_path)
    return lambda text: text


def unix(loop, factory=None, **kwargs):
    return endpoint(loop, factory, family=UNIX, **kwargs)


@contextlib.contextmanager
def receiver(where):
    """A socket that receives nothing until it is told to."""
    with socket.socket(UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(where)
        sock.setblocking(False)
        yield sock


def drain(sock):
    """All that the socket has."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(sock.recv(1 << 18))
    return found


def fill(transport, data=b"x" * 100):
    """Send until something has to wait. -> how many were sent."""
    for count in range(1, 100_000):
        transport.sendto(data)
        if transport.get_write_buffer_size():
            return count
    raise AssertionError("the receiver takes all")


# ------------------------------------------------------------ Unix sockets


def test_echo(loop, path):
    async def main():
        async with unix(loop, Echo, local_addr=path("server")) as server:
            async with unix(loop, local_addr=path("client"), remote_addr=path("server")) as client:
                assert name(server) == "server"
                assert client.transport.get_extra_info("peername") == "server"
                client.transport.sendto(b"there and back")
                client.transport.sendto(bytearray(b"again"), "server")
                assert await client.got(2) == [b"there and back", b"again"]
                assert client.datagrams[0][1] == "server"
                assert server.datagrams[0][1] == "client"
                with pytest.raises(ValueError, match="Invalid address"):
                    client.transport.sendto(b"to another", "other")

    run(loop, main())


def test_sender_without_a_name(loop, path):
    async def main():
        async with unix(loop, local_addr=path("server")) as server, unix(loop) as nameless:
            assert isinstance(nameless.transport.get_extra_info("socket").family, int)
            nameless.transport.sendto(b"hello", "server")
            assert await server.got(1) == [b"hello"]
            assert server.datagrams[0][1] in (None, "")

    run(loop, main())


@linux
@pytest.mark.parametrize("text", ["\0veloop-test", "\0veloop\0with\0zeros\0"])
def test_abstract_names(loop, text):
    raw = text.encode()

    async def main():
        async with unix(loop, Echo, local_addr=text) as server:
            assert name(server) == raw
            async with unix(loop, local_addr=text + "client", remote_addr=text) as client:
                assert client.transport.get_extra_info("peername") == raw
                client.transport.sendto(b"hello")
                assert await client.got(1) == [b"hello"]
                assert client.datagrams[0][1] == raw
                assert server.datagrams[0][1] == raw + b"client"

    run(loop, main())


def test_stale_socket_file_is_replaced(loop, path):
    async def main():
        where = path("server")
        with socket.socket(UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(where)
        assert stat.S_ISSOCK(os.stat(where).st_mode)
        async with unix(loop, local_addr=where) as server, unix(loop) as client:
            client.transport.sendto(b"hello", where)
            assert await server.got(1) == [b"hello"]

    run(loop, main())


def test_other_file_is_not_replaced(loop, path):
    where = path("file")
    with open(where, "w") as file:
        file.write("precious")
    with pytest.raises(OSError) as caught:
        run(loop, loop.create_datagram_endpoint(lambda: None, where, family=UNIX))
    assert caught.value.errno == errno.EADDRINUSE
    with open(where) as file:
        assert file.read() == "precious"


def test_path_that_cannot_be_looked_at(loop, path, asyncio_log):
    with open(path("file"), "w"):
        pass
    with pytest.raises(NotADirectoryError):
        run(loop, loop.create_datagram_endpoint(lambda: None, "file/socket", family=UNIX))
    assert "file/socket" in asyncio_log.take_one().getMessage()


@pytest.mark.parametrize("argument", ["local_addr", "remote_addr"])
@pytest.mark.parametrize("value", [b"path", ("host", 1), 7])
def test_address_must_be_a_string(loop, argument, value):
    with pytest.raises(TypeError):
        run(loop, loop.create_datagram_endpoint(lambda: None, family=UNIX, **{argument: value}))


def test_peer_that_is_not_there(loop, path):
    with pytest.raises(FileNotFoundError):
        run(loop, loop.create_datagram_endpoint(lambda: None, family=UNIX, remote_addr=path("no")))


def test_errors_of_sending(loop, path):
    async def main():
        async with unix(loop) as client:
            client.transport.sendto(b"hello", path("nobody"))
            assert [type(exc) for exc in client.errors] == [FileNotFoundError]
            with receiver(path("server")):
                client.transport.sendto(bytes(1 << 24), "server")
            client.transport.sendto(b"refused", "server")
            assert client.errors[1].errno == errno.EMSGSIZE
            assert type(client.errors[2]) is ConnectionRefusedError
            assert not client.transport.is_closing()

    run(loop, main())


def test_bad_address_ends_the_endpoint(loop, loop_errors):
    async def main():
        async with unix(loop) as client:
            client.transport.sendto(b"hello", 7)
            assert isinstance(await client.lost, TypeError)
            assert loop_errors.take_one()["message"] == "Fatal write error on datagram transport"

    run(loop, main())


@pytest.mark.stock_since("3.13", "earlier ones drop empty datagrams")
def test_datagrams_larger_than_udps(loop, path):
    async def main():
        async with unix(loop, local_addr=path("server")) as server:
            async with unix(loop, remote_addr=path("server")) as client:
                data = bytes(n % 251 for n in range(100_000))
                client.transport.sendto(data)
                client.transport.sendto(b"")
                assert await server.got(2) == [data, b""]

    run(loop, main())


@pytest.mark.veloop_only("asyncio takes the empty name of a nameless peer for no peer, and fails")
def test_socket_pair(loop):
    async def main():
        one, other = socket.socketpair(UNIX, socket.SOCK_DGRAM)
        async with endpoint(loop, sock=one) as server, endpoint(loop, sock=other) as client:
            client.transport.sendto(b"hello")
            assert await server.got(1) == [b"hello"]

    run(loop, main())


# ------------------------------------------------------------ queue


@pytest.mark.stock_since("3.14", "earlier ones do not count what left the queue")
def test_what_the_receiver_has_no_room_for_waits(loop, path):
    async def main():
        with receiver(path("server")) as sock:
            async with unix(loop, remote_addr="server") as client:
                transport = client.transport
                transport.set_write_buffer_limits(high=1000, low=500)
                count = fill(transport)
                assert transport.get_write_buffer_size() == 108
                changing = bytearray(b"changing")
                transport.sendto(changing)
                changing[:] = b"xxxxxxxx"
                transport.sendto(b"")
                assert transport.get_write_buffer_size() == 108 + 16 + 8
                assert client.events == ["connection_made"]
                transport.sendto(bytes(1000))
                assert client.events == ["connection_made", "pause_writing"]
                await turns(20)
                got = []
                while len(got) < count + 3:
                    got += drain(sock)
                    await turns()
                assert got == [b"x" * 100] * count + [b"changing", b"", bytes(1000)]
                await client.until(lambda: client.events[-1] == "resume_writing")
                assert transport.get_write_buffer_size() == 0
                await turns(20)
                transport.sendto(b"direct")
                assert drain(sock) == [b"direct"]

    run(loop, main())


def test_close_sends_what_waits(loop, path):
    async def main():
        with receiver(path("server")) as sock:
            async with unix(loop, remote_addr="server") as client:
                count = fill(client.transport)
                client.transport.sendto(b"last")
                client.transport.close()
                await turns(20)
                assert not client.lost.done()
                got = []
                while len(got) < count + 1:
                    got += drain(sock)
                    await turns()
                assert got[-1] == b"last"
                assert await client.lost is None

    run(loop, main())


def test_abort_drops_what_waits(loop, path):
    async def main():
        with receiver(path("server")) as sock:
            async with unix(loop, remote_addr="server") as client:
                count = fill(client.transport)
                client.transport.abort()
                assert await client.lost is None
                await turns(20)
                assert len(drain(sock)) == count - 1

    run(loop, main())


def test_receiver_that_goes_away_while_datagrams_wait(loop, path):
    async def main():
        sock = socket.socket(UNIX, socket.SOCK_DGRAM)
        sock.bind(path("server"))
        async with unix(loop, remote_addr="server") as client:
            fill(client.transport)
            client.transport.sendto(b"another")
            client.transport.close()
            sock.close()
            assert await client.lost is None
            assert len(client.errors) == 2
            assert isinstance(client.errors[0], ConnectionError)

    run(loop, main())


def test_error_received_that_aborts_while_datagrams_wait(loop, path):
    class Aborts(Recorder):
        def error_received(self, exc):
            super().error_received(exc)
            self.transport.abort()

    async def main():
        sock = socket.socket(UNIX, socket.SOCK_DGRAM)
        sock.bind(path("server"))
        async with unix(loop, Aborts, remote_addr="server") as client:
            fill(client.transport)
            client.transport.sendto(b"another")
            sock.close()
            assert await client.lost is None
            assert len(client.errors) == 1

    run(loop, main())


# ------------------------------------------------------------ receiving


@pytest.mark.parametrize("method", ["close", "abort"])
def test_closing_in_datagram_received(loop, path, method):
    class Closes(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            getattr(self.transport, method)()

    async def main():
        async with unix(loop, Closes, local_addr=path("server")) as server:
            async with unix(loop, remote_addr="server") as client:
                for n in range(5):
                    client.transport.sendto(b"%d" % n)
                assert await server.lost is None
                await turns(10)
                assert server.data == [b"0"]

    run(loop, main())


def test_pausing_in_datagram_received(loop, path):
    class Pauses(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    async def main():
        async with unix(loop, Pauses, local_addr=path("server")) as server:
            async with unix(loop, remote_addr="server") as client:
                for n in range(5):
                    client.transport.sendto(b"%d" % n)
                for n in range(1, 6):
                    await server.got(n)
                    await turns(10)
                    assert server.data == [b"%d" % k for k in range(n)]
                    server.transport.resume_reading()

    run(loop, main())


def test_datagram_received_that_raises(loop, loop_errors, path):
    class Raises(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            raise ZeroDivisionError

    async def main():
        async with unix(loop, Raises, local_addr=path("server")) as server:
            async with unix(loop, remote_addr="server") as client:
                client.transport.sendto(b"one")
                client.transport.sendto(b"two")
                await server.got(2)
                await turns()
                assert len(loop_errors.take()) == 2
                assert not server.transport.is_closing()

    run(loop, main())


def test_interrupt_loses_no_datagram(loop, path):
    class Interrupts(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"1":
                raise KeyboardInterrupt

    async def make(factory, **kwargs):
        _, protocol = await loop.create_datagram_endpoint(
            lambda: factory(loop), family=UNIX, **kwargs
        )
        return protocol

    server = run(loop, make(Interrupts, local_addr=path("server")))
    client = run(loop, make(Recorder, remote_addr="server"))
    for n in range(4):
        client.transport.sendto(b"%d" % n)
    with pytest.raises(KeyboardInterrupt):
        run_forever(loop)
    assert run(loop, server.got(4)) == [b"0", b"1", b"2", b"3"]
    for protocol in (server, client):
        protocol.transport.close()
        run(loop, protocol.lost)
    run(loop, turns())


@pytest.mark.veloop_only("asyncio reads the other's datagrams then")
def test_application_may_close_its_socket_early(loop, path):
    async def main():
        sock = socket.socket(UNIX, socket.SOCK_DGRAM)
        sock.bind(path("server"))
        async with endpoint(loop, Echo, sock=sock):
            sock.close()
            async with unix(loop, local_addr=path("client"), remote_addr="server") as client:
                client.transport.sendto(b"hello")
                assert await client.got(1) == [b"hello"]

    run(loop, main())


@pytest.mark.veloop_only("asyncio watches such a descriptor for both")
def test_socket_of_a_transport_is_refused(loop, path):
    async def main():
        async with unix(loop, local_addr=path("server")) as server:
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_reader(server.transport.get_extra_info("socket").fileno(), print)

    run(loop, main())


def test_loop_closed_with_an_endpoint_open(loop, path):
    async def main():
        return await loop.create_datagram_endpoint(
            lambda: Recorder(loop), path("server"), family=UNIX
        )

    transport, protocol = run(loop, main())
    loop.close()
    protocol.transport = None
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, protocol
        drop_unreferenced()


# ------------------------------------------------------------ other families


@linux
def test_netlink(loop):
    """An address of another form, from a socket that only the socket module can read."""

    async def main():
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
            sock.bind((0, 0))
        except OSError as exc:
            pytest.skip(f"no netlink here: {exc}")
        async with endpoint(loop, sock=sock) as client:
            # NLMSG_NOOP that asks for an acknowledgement.
            message = (16).to_bytes(4, sys.byteorder) + (1).to_bytes(2, sys.byteorder)
            message += (5).to_bytes(2, sys.byteorder) + bytes(8)
            client.transport.sendto(message, (0, 0))
            (answer,) = await client.got(1)
            assert client.datagrams[0][1] == (0, 0)  # the kernel
            assert answer[4:6] == (2).to_bytes(2, sys.byteorder)  # NLMSG_ERROR

    run(loop, main())


@linux
@pytest.mark.stock_since("3.13", "earlier ones take SOCK_DGRAM only")
@pytest.mark.parametrize("kind", ["SOCK_RAW", "SOCK_SEQPACKET"])
def test_other_kinds_of_socket(loop, kind):
    async def main():
        if kind == "SOCK_RAW":
            try:
                sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
            except PermissionError:
                pytest.skip("needs privileges")
            sock.bind(("127.0.0.1", 0))
            async with endpoint(loop, sock=sock) as protocol:
                protocol.transport.sendto(b"to myself", ("127.0.0.1", 0))
                (packet,) = await protocol.got(1)
                assert packet[20:] == b"to myself"
                assert protocol.datagrams[0][1] == ("127.0.0.1", 0)
        else:
            one, other = socket.socketpair(UNIX, socket.SOCK_SEQPACKET)
            with other:
                async with endpoint(loop, sock=one) as protocol:
                    other.send(b"message")
                    other.send(b"another")
                    assert await protocol.got(2) == [b"message", b"another"]

    run(loop, main())
