"""server.py: connections that come while their server is closed, and accept() that fails.

What was accepted is served or, if the application closed everything, closed: never forgotten.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import subprocess
import time

import pytest

from children import run_script
from helpers import LINUX, PATIENCE, RecordingProtocol, collect, listening_socket, socket_pair
from tcp_helpers import run, run_forever, serving, turns, until, wired

waits_for_clients = pytest.mark.stock_since("3.12.1", "wait_closed did not wait for connections")

NUMBER = 5


@contextlib.contextmanager
def waiting_clients():
    """(a listening socket, clients that it has not accepted yet)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening_socket())
        where = listener.getsockname()
        clients = [
            stack.enter_context(socket.create_connection(where, PATIENCE)) for _ in range(NUMBER)
        ]
        yield listener, clients


def slow():
    """After a turn that takes long, veloop looks for I/O whatever else is ready."""
    time.sleep(0.001)


class Greeting(RecordingProtocol):
    def connection_made(self, transport):
        super().connection_made(transport)
        transport.write(b"hi")


# ------------------------------------------------------------ closed while they come


@waits_for_clients
def test_server_closed_by_the_first_of_several_connections_serves_them_all(loop):
    protocols = []

    class Closing(Greeting):
        def connection_made(self, transport):
            protocols.append(self)
            super().connection_made(transport)
            server.close()

    async def main():
        nonlocal server
        with waiting_clients() as (listener, clients):
            server = await loop.create_server(lambda: Closing(loop), sock=listener.dup())
            await until(lambda: not server.is_serving())
            closed = loop.create_task(server.wait_closed())
            await until(lambda: len(protocols) == NUMBER)
            for client in clients:
                assert client.recv(2) == b"hi"
            await turns()
            for protocol in protocols:
                assert not closed.done()
                protocol.transport.close()
                await protocol.lost
            await closed

    server = None
    run(loop, main())


@pytest.mark.parametrize(
    "closing",
    [
        "in a callback",
        "before them",
        pytest.param(
            "after them",
            marks=pytest.mark.veloop_only("asyncio's transports assert an open server"),
        ),
    ],
)
def test_nobody_is_lost_who_came_in_the_turn_in_which_the_server_was_closed(loop, closing):
    # The listening socket is shared with another process, as workers do: whoever was not
    # accepted is that one's, and who was accepted is served here.
    protocols = []

    def factory():
        protocols.append(Greeting(loop))
        return protocols[-1]

    async def main():
        with waiting_clients() as (listener, clients), socket_pair() as (ours, theirs):
            server = None

            def close():
                loop.remove_reader(ours)
                server.close()

            theirs.send(b"x")
            if closing == "before them":
                loop.add_reader(ours, close)
            server = await loop.create_server(factory, sock=listener.dup(), start_serving=False)
            if closing == "in a callback":
                slow()
                loop.call_soon(close)
            server._start_serving()
            if closing == "after them":
                loop.add_reader(ours, close)
            await until(lambda: not server.is_serving())
            await turns()
            with contextlib.suppress(BlockingIOError):
                listener.setblocking(False)
                while True:
                    other, _ = listener.accept()
                    other.send(b"hi")
                    other.close()
            for client in clients:
                assert client.recv(2) == b"hi"
            for protocol in protocols:
                protocol.transport.abort()
            await turns()

    run(loop, main())


@pytest.mark.veloop_only("asyncio's connections of that moment are told of their server too late")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_clients_of_that_turn_are_closed_with_all_others(loop, method):
    protocols = []

    class Closing(RecordingProtocol):
        def connection_made(self, transport):
            protocols.append(self)
            super().connection_made(transport)
            server.close()
            getattr(server, method)()

    async def main():
        nonlocal server
        with waiting_clients() as (listener, clients):
            server = await loop.create_server(lambda: Closing(loop), sock=listener.dup())
            await until(lambda: protocols)
            await server.wait_closed()
            assert len(protocols) == 1
            for client in clients:
                assert client.recv(1) == b""

    server = None
    run(loop, main())


class Interrupted(Greeting):
    def connection_made(self, transport):
        super().connection_made(transport)
        raise KeyboardInterrupt


def test_server_closed_after_an_interrupt_in_the_middle_of_its_connections(loop):
    protocols = []

    def factory():
        protocols.append((Greeting if protocols else Interrupted)(loop))
        return protocols[-1]

    async def serve_the_others(clients):
        server.close()
        await until(lambda: len(protocols) == NUMBER)
        for client in clients:
            assert client.recv(2) == b"hi"
        for protocol in protocols:
            protocol.transport.abort()
            await protocol.lost

    with waiting_clients() as (listener, clients):
        server = run(loop, loop.create_server(factory, sock=listener.dup(), start_serving=False))
        loop.call_soon(server._start_serving)
        with pytest.raises(KeyboardInterrupt):
            run_forever(loop)
        run(loop, serve_the_others(clients))


@pytest.mark.veloop_only("asyncio leaves tasks behind that nobody ends")
def test_loop_closed_after_an_interrupt_closes_those_nobody_served(loop):
    protocols = []

    def factory():
        protocols.append(Interrupted(loop))
        return protocols[-1]

    with waiting_clients() as (listener, clients):
        server = run(loop, loop.create_server(factory, sock=listener.dup(), start_serving=False))
        loop.call_soon(server._start_serving)
        with pytest.raises(KeyboardInterrupt):
            run_forever(loop)
        server.close()
        loop.close()
        for client in clients:
            assert client.recv(2) in (b"hi", b"")
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            protocols.clear()
            del server
            collect()


@pytest.mark.veloop_only("asyncio forgets to stop listening then")
def test_create_server_cancelled_while_connections_come(loop):
    protocols = []

    def factory():
        protocols.append(RecordingProtocol(loop))
        return protocols[-1]

    async def main():
        with waiting_clients() as (listener, clients):
            with listener.dup() as shared:
                listener.close()
                task = loop.create_task(loop.create_server(factory, sock=shared))
                loop.call_soon(slow)
                loop.call_soon(task.cancel)
                with pytest.raises(asyncio.CancelledError):
                    await task
                await turns(10)
                assert not protocols
            for client in clients:
                assert client.recv(1) == b""

    run(loop, main())


# ------------------------------------------------------------ accept() fails


# accept4() that fails as Linux reports what is wrong with a new connection: that one is gone.
PRELOAD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
  static int (*original)(int, struct sockaddr *, socklen_t *, int);
  static int n;
  int error = atoi(getenv("ACCEPT_ERROR")), r;

  if (getenv("ACCEPT_STUCK")) {
    errno = error;
    return -1;
  }
  if (!original)
    original = dlsym(RTLD_NEXT, "accept4");
  r = original(fd, address, size, flags);
  if (r >= 0 && n++ % 2 == 0) {
    close(r);
    errno = error;
    return -1;
  }
  return r;
}
"""

needs_preload = pytest.mark.skipif(
    not (LINUX and shutil.which("cc")), reason="no compiler for a preloaded accept4()"
)


def ahead(library):
    """LD_PRELOAD with the library; a sanitizer, if there is one, must stay the first."""
    return f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preload")
    source, library = folder / "accept.c", folder / "accept.so"
    source.write_text(PRELOAD)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


OTHERS_ARE_SERVED = """
retries, reports = [], []

class Greeting(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"hi")
        transport.close()

def clients(where):
    answers = []
    for _ in range(6):
        with socket.create_connection(where, 10) as client:
            try:
                answers.append(client.recv(2))
            except ConnectionError:
                answers.append(b"")
    return answers

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"].errno))
    loop.call_later = lambda *args, **kwargs: retries.append(args)
    server = await loop.create_server(Greeting, "127.0.0.1", 0)
    where = server.sockets[0].getsockname()
    answers = await loop.run_in_executor(None, clients, where)
    assert answers == [b"", b"hi"] * 3, answers
    server.close()
    await server.wait_closed()
    assert not retries, retries
    print(*reports)

run(main())
"""


@needs_preload
@pytest.mark.parametrize(
    "name",
    "EPROTO ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH EPERM "
    "ECONNABORTED".split(),
)
def test_error_of_one_connection_does_not_hold_up_the_others(loop_kind, preload, name):
    number = str(getattr(errno, name))
    env = {"LD_PRELOAD": ahead(preload), "ACCEPT_ERROR": number}
    reports = run_script(loop_kind, OTHERS_ARE_SERVED, env=env).stdout.split()
    assert reports == ([] if name == "ECONNABORTED" else [number] * 3)


STUCK = """
retries, reports = [], []

async def main():
    loop = asyncio.get_running_loop()
    paused = loop.create_future()
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"].errno))
    loop.call_later = lambda delay, *args: paused.set_result(delay)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname(), 10):
        assert await paused == 1.0
        told = len(reports)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(reports) - told <= 1
    server._listeners[0]._retry = None  # what our call_later returned
    server.close()
    print(len(reports), *set(reports))

run(main())
"""


@needs_preload
@pytest.mark.veloop_only("asyncio tries and reports again in every turn")
@pytest.mark.parametrize(("name", "most"), [("EPERM", 64), ("EBADF", 1), ("EINVAL", 1)])
def test_accept_that_only_fails_is_not_tried_all_the_time(loop_kind, preload, name, most):
    number = getattr(errno, name)
    env = {"LD_PRELOAD": ahead(preload), "ACCEPT_ERROR": str(number), "ACCEPT_STUCK": "1"}
    assert run_script(loop_kind, STUCK, env=env).stdout.split() == [str(most), str(number)]


@pytest.mark.skipif(not LINUX, reason="other systems refuse to shut a listening socket down")
@pytest.mark.veloop_only("asyncio tries and reports again in every turn")
def test_listening_socket_that_was_shut_down_is_reported_once(loop, loop_errors):
    async def main():
        async with serving(loop) as (server, _):
            with socket.socket(fileno=os.dup(server.sockets[0].fileno())) as twin:
                twin.shutdown(socket.SHUT_RDWR)
            await until(lambda: loop_errors.items)
            await turns(100)

    run(loop, main())
    context = loop_errors.take_one()
    assert context["message"] == "socket.accept() failed"
    assert context["exception"].errno == errno.EINVAL


# ------------------------------------------------------------ whose descriptor it is


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_descriptor_of_an_accepted_connection_is_its_transports(loop, method, paused):
    async def main():
        async with wired(loop) as (transport, _, peer):
            fd = transport.get_extra_info("socket").fileno()
            if paused:
                transport.pause_reading()
            args = (fd, print) if method.startswith("add") else (fd,)
            with pytest.raises(RuntimeError, match=f"File descriptor {fd} is used by transport"):
                getattr(loop, method)(*args)
            transport.close()  # from here on it is nobody's
            if not method.startswith("add"):
                assert getattr(loop, method)(fd) is False

    run(loop, main())


def test_number_of_a_connection_that_ended_is_free(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            fd = transport.get_extra_info("socket").fileno()
            transport.abort()
            await protocol.lost
            await turns()
            assert loop.remove_reader(fd) is False

    run(loop, main())


@pytest.mark.veloop_only("a look into what is veloop's own")
def test_who_has_a_descriptor_is_known_without_a_search(loop):
    class Unsearchable(dict):
        def values(self):
            raise AssertionError("every handle of the loop was looked at")

    with socket_pair() as (sock, _):
        targets = loop._driver.targets
        loop._driver.targets = Unsearchable(targets)
        try:
            assert loop.remove_reader(sock) is False
            assert loop.remove_writer(sock) is False
        finally:
            loop._driver.targets = targets
