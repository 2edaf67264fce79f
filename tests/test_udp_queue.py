"""udp.py, datagrams that the kernel does not take at once.

Over loopback it takes them all, and drops what nobody has room for. So these tests run in child
processes in which a small library comes before the C library's sending functions, and answers
EAGAIN for as long as the test wants it.
"""

import os
import shutil
import subprocess
import textwrap

import pytest

from children import run_script
from helpers import LINUX

pytestmark = [
    pytest.mark.skipif(not LINUX, reason="LD_PRELOAD"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
]

LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

int refusing; /* EAGAIN for everything */
int failure;  /* an error for the next call that is not refused */
int calls;    /* that were not refused */

#define CALL(type, name, parameters, arguments) \
  type name parameters { \
    type (*real) parameters = dlsym(RTLD_NEXT, #name); \
    int domain = 0; \
    socklen_t size = sizeof(domain); \
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size); \
    if (domain == AF_INET && refusing) { \
      errno = EAGAIN; \
      return -1; \
    } \
    if (domain == AF_INET && failure) { \
      errno = failure; \
      failure = 0; \
      return -1; \
    } \
    calls += domain == AF_INET; \
    return real arguments; \
  }

CALL(ssize_t, send, (int fd, const void *data, size_t n, int flags), (fd, data, n, flags))
CALL(ssize_t, sendto, (int fd, const void *data, size_t n, int flags, const struct sockaddr *to,
                       socklen_t m), (fd, data, n, flags, to, m))
CALL(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
CALL(int, sendmmsg, (int fd, struct mmsghdr *messages, unsigned n, int flags),
     (fd, messages, n, flags))
"""

PRELUDE = """
import ctypes, errno, os, time
sys.path.insert(0, {tests!r})
from tcp_helpers import HOST, turns, until
from udp_helpers import ANY, Recorder, endpoint, name, pair, udp_socket

control = ctypes.CDLL({library!r})
refusing = ctypes.c_int.in_dll(control, "refusing")
failure = ctypes.c_int.in_dll(control, "failure")
calls = ctypes.c_int.in_dll(control, "calls")
contexts = []

class Raises(Recorder):
    def error_received(self, exc):
        super().error_received(exc)
        raise ZeroDivisionError

async def bounded():
    async with asyncio.timeout(10):
        await main(asyncio.get_running_loop())

def go():
    loop = new_event_loop()
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    loop.run_until_complete(bounded())
    loop.close()
    assert not contexts, contexts
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    (folder / "refuse.c").write_text(LIBRARY)
    made = folder / "refuse.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(made), str(folder / "refuse.c"), "-ldl"], check=True
    )
    return str(made)


@pytest.fixture
def queued(loop_kind, library, request):
    """A function that runs a script's `main(loop)` where sending can be refused."""

    def start(script):
        prelude = PRELUDE.format(tests=str(request.path.parent), library=library)
        source = prelude + textwrap.dedent(script) + "\ngo()\n"
        before = os.environ.get("LD_PRELOAD", "")  # a sanitizer's, which must stay the first
        return run_script(loop_kind, source, env={"LD_PRELOAD": f"{before} {library}".strip()})

    return start


sizes = pytest.mark.stock_since("3.14", "earlier ones do not count what left the queue")


@sizes
def test_what_is_refused_waits_and_goes_out_in_order(queued):
    queued(
        """
        async def main(loop):
            async with pair(loop) as (server, client):
                transport = client.transport
                refusing.value = 1
                transport.sendto(b"one")
                assert transport.get_write_buffer_size() == 3 + 8
                changing = bytearray(b"two")
                transport.sendto(changing)
                changing[:] = b"xxx"
                transport.sendto(b"")
                transport.sendto(memoryview(b"three"))
                assert transport.get_write_buffer_size() == 3 + 3 + 0 + 5 + 4 * 8
                assert "write=<polling" in repr(transport)
                await turns(20)
                assert server.datagrams == []
                refusing.value = 0
                assert await server.got(4) == [b"one", b"two", b"", b"three"]
                await until(lambda: transport.get_write_buffer_size() == 0)
                transport.sendto(b"direct")
                assert transport.get_write_buffer_size() == 0
                await server.got(5)
                assert client.errors == []
        """
    )


def test_refused_datagrams_keep_their_addresses(queued):
    queued(
        """
        async def main(loop):
            async with (
                endpoint(loop, local_addr=ANY) as one,
                endpoint(loop, local_addr=ANY) as two,
                endpoint(loop, family=socket.AF_INET) as client,
            ):
                refusing.value = 1
                for n in range(30):
                    client.transport.sendto(b"%d" % n, name((one, two)[n % 2]))
                # Names are for the socket module, also when they have to wait.
                client.transport.sendto(b"localhost", ("localhost", name(one)[1]))
                client.transport.sendto(b"here", ("", name(one)[1]))
                refusing.value = 0
                assert await two.got(15) == [b"%d" % n for n in range(1, 30, 2)]
                expected = [b"%d" % n for n in range(0, 30, 2)] + [b"localhost", b"here"]
                assert await one.got(17) == expected
                assert client.errors == []
        """
    )


@sizes
def test_protocol_is_paused_and_resumed(queued):
    queued(
        """
        async def main(loop):
            async with pair(loop) as (server, client):
                transport = client.transport
                transport.set_write_buffer_limits(high=1000, low=500)
                refusing.value = 1
                transport.sendto(bytes(900))
                assert client.events == ["connection_made"]
                transport.sendto(bytes(900))
                assert client.events == ["connection_made", "pause_writing"]
                transport.sendto(bytes(900))
                refusing.value = 0
                await server.got(3)
                await client.until(lambda: len(client.events) == 3)
                assert client.events[2] == "resume_writing"
                transport.set_write_buffer_limits(0)
                refusing.value = 1
                transport.sendto(b"x")
                assert client.events[3:] == ["pause_writing"]
                refusing.value = 0
                await client.until(lambda: client.events[4:] == ["resume_writing"])
        """
    )


def test_close_sends_what_waits(queued):
    queued(
        """
        async def main(loop):
            async with pair(loop) as (server, client):
                refusing.value = 1
                for n in range(100):
                    client.transport.sendto(b"%d" % n)
                client.transport.close()
                client.transport.sendto(b"late")  # there is still a queue
                await turns(20)
                assert not client.lost.done()
                refusing.value = 0
                assert await client.lost is None
                assert await server.got(101) == [b"%d" % n for n in range(100)] + [b"late"]
        """
    )


@pytest.mark.stock_since("3.15", "earlier ones forget to count that nothing waits any more")
def test_abort_drops_what_waits(queued):
    queued(
        """
        async def main(loop):
            async with pair(loop) as (server, client):
                refusing.value = 1
                client.transport.sendto(b"dropped")
                client.transport.close()
                client.transport.abort()
                assert client.transport.get_write_buffer_size() == 0
                refusing.value = 0
                time.sleep(0.002)  # long enough that the next turn looks whether it can send
                assert await client.lost is None
                server.transport.sendto(b"first", name(server))
                assert await server.got(1) == [b"first"]
                assert client.transport.get_extra_info("socket").fileno() == -1
        """
    )


def test_connection_lost_comes_once_after_an_abort_while_the_queue_drains(queued):
    queued(
        """
        async def main(loop):
            async with pair(loop) as (server, client):
                refusing.value = 1
                client.transport.sendto(b"perhaps")
                refusing.value = 0
                await turns(1)
                client.transport.abort()
                await client.lost
                await turns(20)
                assert client.events.count("connection_lost") == 1
        """
    )


@sizes
def test_error_of_one_that_waited_does_not_keep_the_others(queued):
    queued(
        """
        async def main(loop):
            async with pair(loop) as (server, client):
                transport = client.transport
                transport.set_write_buffer_limits(0)
                refusing.value = 1
                transport.sendto(b"fails")
                transport.sendto(b"one")
                transport.sendto(b"two")
                failure.value = errno.EPERM
                refusing.value = 0
                assert await server.got(2) == [b"one", b"two"]
                assert [type(exc) for exc in client.errors] == [PermissionError]
                await client.until(lambda: "resume_writing" in client.events)
                assert transport.get_write_buffer_size() == 0
                # The last one, with nothing behind it to go on with.
                refusing.value = 1
                transport.sendto(b"fails")
                failure.value = errno.EPERM
                refusing.value = 0
                await client.failed(2)
                await until(lambda: client.events.count("resume_writing") == 2)
                assert not transport.is_closing()
        """
    )


@pytest.mark.parametrize("last", [True, False])
def test_close_goes_on_after_an_error(queued, last):
    queued(
        f"""
        async def main(loop):
            async with pair(loop) as (server, client):
                refusing.value = 1
                client.transport.sendto(b"fails")
                if not {last}:
                    client.transport.sendto(b"after")
                client.transport.close()
                failure.value = errno.EPERM
                refusing.value = 0
                assert await client.lost is None
                assert [type(exc) for exc in client.errors] == [PermissionError]
                if not {last}:
                    assert await server.got(1) == [b"after"]
        """
    )


def test_error_received_may_send_and_close(queued):
    queued(
        """
        class Sends(Recorder):
            def error_received(self, exc):
                super().error_received(exc)
                self.transport.sendto(b"instead")
                self.transport.close()

        async def main(loop):
            async with pair(loop, None, Sends) as (server, client):
                refusing.value = 1
                client.transport.sendto(b"fails")
                client.transport.sendto(b"after")
                failure.value = errno.EPERM
                refusing.value = 0
                assert await client.lost is None
                assert sorted(await server.got(2)) == [b"after", b"instead"]
        """
    )


def test_error_received_may_abort(queued):
    queued(
        """
        class Aborts(Recorder):
            def error_received(self, exc):
                super().error_received(exc)
                self.transport.abort()

        async def main(loop):
            async with pair(loop, None, Aborts) as (server, client):
                refusing.value = 1
                client.transport.sendto(b"fails")
                client.transport.sendto(b"after")
                failure.value = errno.EPERM
                refusing.value = 0
                assert await client.lost is None
                await turns(20)
                assert len(client.errors) == 1
        """
    )


def test_error_received_that_raises_keeps_nothing_waiting(queued):
    queued(
        """
        async def main(loop):
            async with pair(loop, None, Raises) as (server, client):
                refusing.value = 1
                client.transport.sendto(b"fails")
                client.transport.sendto(b"after")
                client.transport.close()
                failure.value = errno.EPERM
                refusing.value = 0
                assert await client.lost is None
                assert await server.got(1) == [b"after"]
                assert [type(each["exception"]) for each in contexts] == [ZeroDivisionError]
                contexts.clear()
        """
    )


# An ICMP message comes while something waits and nothing is read.
UNREACHABLE = """
    async def main(loop):
        with udp_socket() as sock:
            nobody = sock.getsockname()
        async with endpoint(loop, remote_addr=nobody) as client:
            transport = client.transport
            {pause}
            transport.sendto(b"refused by the peer")
            refusing.value = 1
            transport.sendto(b"waits")
            {close}
            await turns(20)
            refusing.value = 0
            errors = await client.failed()
            assert [type(exc) for exc in errors] == [ConnectionRefusedError]
            if transport.is_closing():
                assert await client.lost is None
"""


def test_error_of_the_peer_while_a_closed_endpoint_sends_what_waits(queued):
    queued(UNREACHABLE.format(pause="", close="transport.close()"))


@pytest.mark.veloop_only("asyncio's transports of datagrams cannot be paused")
def test_error_of_the_peer_while_reading_is_paused(queued):
    queued(UNREACHABLE.format(pause="transport.pause_reading()", close=""))


@pytest.mark.veloop_only("asyncio's transports of datagrams cannot be paused")
def test_paused_endpoint_with_a_queue_leaves_what_comes_in_the_socket(queued):
    queued(
        """
        async def main(loop):
            async with pair(loop) as (server, client):
                transport = server.transport
                client.transport.sendto(b"first")
                await server.got(1)
                transport.pause_reading()
                client.transport.sendto(b"second")
                refusing.value = 1
                transport.sendto(b"waits", name(client))
                await turns(20)
                refusing.value = 0
                assert await client.got(1) == [b"waits"]
                # Nothing is left to do: no turn of the loop, until the time is over.
                before = time.process_time()
                await asyncio.sleep(0.3)
                assert time.process_time() - before < 0.15
                assert server.data == [b"first"]
                transport.resume_reading()
                assert await server.got(2) == [b"first", b"second"]
        """
    )


def test_datagram_for_which_there_is_no_room_is_dropped(queued):
    # Not kept, although libuv takes this error for one of those that pass.
    queued(
        """
        async def main(loop):
            async with pair(loop) as (server, client):
                transport = client.transport
                failure.value = errno.ENOBUFS
                transport.sendto(b"dropped")
                assert [exc.errno for exc in client.errors] == [errno.ENOBUFS]
                assert transport.get_write_buffer_size() == 0
                transport.sendto(b"sent")
                assert await server.got(1) == [b"sent"]
                # EAGAIN right after it is what it says.
                refusing.value = 1
                transport.sendto(b"waits")
                assert len(client.errors) == 1
                refusing.value = 0
                assert await server.got(2) == [b"sent", b"waits"]
        """
    )


@pytest.mark.parametrize("last", [True, False])
def test_queued_datagram_for_which_there_is_no_room_is_dropped(queued, last):
    queued(
        f"""
        async def main(loop):
            async with pair(loop) as (server, client):
                transport = client.transport
                refusing.value = 1
                transport.sendto(b"dropped")
                if not {last}:
                    transport.sendto(b"sent")
                failure.value = errno.ENOBUFS
                refusing.value = 0
                errors = await client.failed()
                assert [exc.errno for exc in errors] == [errno.ENOBUFS]
                assert str(errors[0]) == str(OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)))
                if {last}:
                    transport.sendto(b"sent")
                assert await server.got(1) == [b"sent"]
        """
    )


@sizes
def test_resume_writing_may_send_more(queued):
    queued(
        """
        class Sends(Recorder):
            def resume_writing(self):
                super().resume_writing()
                if self.events.count("resume_writing") == 1:
                    refusing.value = 1
                    self.transport.sendto(b"more")
                    refusing.value = 0

        async def main(loop):
            async with pair(loop, None, Sends) as (server, client):
                client.transport.set_write_buffer_limits(0)
                refusing.value = 1
                client.transport.sendto(b"first")
                client.transport.close()
                refusing.value = 0
                assert await client.lost is None
                assert await server.got(2) == [b"first", b"more"]
        """
    )


@pytest.mark.veloop_only("asyncio goes on calling the transport that it has ended")
def test_bad_address_while_others_wait(queued):
    queued(
        """
        async def main(loop):
            for bad in (None, (HOST,), (HOST, 1.5), [HOST, 1], (HOST, 1 << 16)):
                async with endpoint(loop, family=socket.AF_INET) as client:
                    refusing.value = 1
                    client.transport.sendto(b"waits", (HOST, 9))
                    client.transport.sendto(b"bad", bad)
                    refusing.value = 0
                    assert isinstance(await client.lost, (TypeError, OverflowError)), bad
                    assert contexts[0]["message"].startswith("Fatal write error")
                    contexts.clear()
        """
    )


def test_loop_closed_while_datagrams_wait(queued):
    queued(
        """
        import warnings

        async def main(loop):
            pass

        loop = new_event_loop()
        async def leave():
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=(HOST, 9)
            )
            refusing.value = 1
            for _ in range(50):
                transport.sendto(b"never")
            return transport

        transport = loop.run_until_complete(leave())
        loop.close()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport
            import gc
            for _ in range(4):  # PyPy runs what is to be run after a pass
                gc.collect()
        assert any("unclosed transport" in str(each.message) for each in caught), caught
        """
    )


@pytest.mark.veloop_only("asyncio makes a system call for each")
def test_what_waits_goes_out_in_batches(queued):
    queued(
        """
        async def main(loop):
            async with pair(loop) as (server, client):
                refusing.value = 1
                for n in range(200):
                    client.transport.sendto(b"%d" % n)
                refusing.value = 0
                before = calls.value
                assert await server.got(200) == [b"%d" % n for n in range(200)]
                assert calls.value - before <= 15
        """
    )
