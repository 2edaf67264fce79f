"""What several test files need: protocols that record, peers without a loop, synchronisers.

Nothing here imports veloop at import time: the loops under test come from conftest's fixtures,
and `import_veloop` fails loudly where a test asks for veloop and it is not there.
Nothing here sleeps to synchronise: a wait is on an event, a future, a thread's end, or a bounded
poll that is only taken on the way to a failure.
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import importlib
import os
import socket
import sys
import sysconfig
import threading
import time
from pathlib import Path

LOOPS = ("veloop", "asyncio")
MODULES = ("veloop", "asyncio")
PYPY = sys.implementation.name == "pypy"
WINDOWS = sys.platform == "win32"
LINUX = sys.platform == "linux"
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# With all tests loaded a collection takes 25 ms where gc.freeze() saves little, and 90 ms on PyPy.
# Several for each of ten thousand tests would be most of the time.
SLOW_GC = PYPY or FREE_THREADED

# The longest a test waits for something that happens at once unless it is broken.
PATIENCE = 20.0


# ------------------------------------------------------------ the loops


def import_veloop():
    """The package under test. ImportError is a failure, not a reason to skip."""
    return importlib.import_module("veloop")


def new_event_loop(kind, proactor=False):
    """A loop of that kind, not tracked by anything: the caller closes it.

    proactor: asyncio's on Windows is the one for pipes and children. Without it is the one that has
    add_reader, whose sockets behave as asyncio's do everywhere else.
    """
    if kind == "veloop":
        return import_veloop().new_event_loop()
    # Not asyncio.new_event_loop(): a policy installed by a test must not change the control.
    if WINDOWS and proactor:
        return asyncio.ProactorEventLoop()
    return asyncio.SelectorEventLoop()


def run(loop, awaitable):
    """The result of the awaitable on this loop."""
    return loop.run_until_complete(awaitable)


def run_turns(loop, turns=1):
    """Let the loop take that many turns without ever waiting."""
    for _ in range(turns):
        loop.call_soon(loop.stop)
        loop.run_forever()


def run_until(loop, condition, turns=10_000):
    """Take turns until the condition holds; AssertionError when it never does."""
    for _ in range(turns):
        if condition():
            return
        run_turns(loop)
    raise AssertionError(f"{condition} did not come true in {turns} turns")


def poll(loop):
    """Let the loop look at its descriptors: those that are ready now get their callbacks.

    Turns alone do not do that: a loop need not poll while it has callbacks to run.
    """
    for _ in range(2):
        with socket_pair() as (canary, other):
            other.send(b"x")
            loop.add_reader(canary, loop.stop)
            loop.run_forever()
            loop.remove_reader(canary)
    run_turns(loop)


def collect(passes=4):
    """Collect garbage and run its finalizers.

    PyPy runs them after the pass that finds them, and of objects that refer to one another those
    of the first ones only; each of its `passes` takes a while.
    """
    for _ in range(passes if PYPY else 1):
        gc.collect()


def drop_unreferenced():
    """Have weak references to what nobody refers to any more dead, as counted ones are at once."""
    if PYPY:
        collect()


class VirtualClock:
    """A `loop.time` for tests: stands still until it is told to go on."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


def outcome(function, *args, **kwargs):
    """What a call comes to: ("value", result) or ("raises", type, errno), for comparison."""
    try:
        return ("value", function(*args, **kwargs))
    except Exception as exc:
        return ("raises", type(exc), getattr(exc, "errno", None))


async def async_outcome(awaitable):
    """`outcome` for an awaitable."""
    try:
        return ("value", await awaitable)
    except Exception as exc:
        return ("raises", type(exc), getattr(exc, "errno", None))


# ------------------------------------------------------------ resources


def open_fds():
    """fd -> what it is, for every open file descriptor; empty where the system can't tell."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        fds = {}
        for name in names:
            # The descriptor that listdir itself used is gone by now.
            with contextlib.suppress(OSError):
                os.fstat(int(name))
                fds[int(name)] = _describe_fd(folder, name)
        return fds
    return {}


def _describe_fd(folder, name):
    try:
        return os.readlink(f"{folder}/{name}")
    except OSError:
        return "?"


def leaked_fds(before, patience=PATIENCE):
    """The descriptors that are open now and were not in `before`.

    A thread that is still about to close one gets a bounded time for it.
    """
    deadline = time.monotonic() + patience
    while True:
        now = open_fds()
        leaked = {fd: what for fd, what in now.items() if before.get(fd) != what}
        if not leaked or time.monotonic() > deadline:
            return leaked
        collect()
        if "veloop" in sys.modules:
            # A closed loop that a look-up was under way for goes when the next one is made.
            new_event_loop("veloop").close()
        time.sleep(0.01)


def leaked_threads(before, patience=PATIENCE):
    """Threads that outlived the test, after each got a bounded time to end."""
    deadline = time.monotonic() + patience
    for thread in threading.enumerate():
        if thread not in before and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
    return [thread for thread in threading.enumerate() if thread not in before]


def child_pids():
    """The children of this process, zombies too; empty where the system can't tell."""
    if not LINUX:
        return set()
    if hasattr(os, "waitid"):  # not on PyPy, where the list of processes must do
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return set()  # the usual case: not even one, so nothing is to be looked for
    pids = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended
                stat = Path("/proc", name, "stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                    pids.add(int(name))
    return pids


def leaked_children(before, patience=PATIENCE):
    """Children that are there now and were not in `before`, each after a bounded time to end."""
    deadline = time.monotonic() + patience
    while (leaked := child_pids() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    return leaked


# ------------------------------------------------------------ threads


class Background:
    """One function in one thread; `result()` joins it and gives back what came of it.

    As a context manager it is joined at the end of the block, and its exception is raised there.
    """

    def __init__(self, function, *args):
        self._function = function
        self._args = args
        self._value = None
        self._error = None
        self.thread = threading.Thread(target=self._main, name=f"test-{function!r}", daemon=True)
        self.thread.start()

    def _main(self):
        try:
            self._value = self._function(*self._args)
        except BaseException as exc:
            self._error = exc

    def result(self):
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            raise AssertionError(f"{self.thread.name} did not end")
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._value

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc, tb):
        if exc_type is None:
            self.result()
        else:
            self.thread.join(PATIENCE)


def wait_until_idle(pid, tid):
    """Return when that thread sleeps, so that a signal finds it idle.

    It gives up in the end, and does nothing where the system can't tell: a test that must not
    depend on it does not, and asyncio's do, because it has a race there (see test_signals.py).
    """
    stat = Path(f"/proc/{pid}/task/{tid}/stat")
    deadline = time.monotonic() + 2
    asleep = 0
    while stat.exists() and asleep < 5 and time.monotonic() < deadline:
        state = stat.read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.002)


def in_thread(function, *args):
    """Call the function in another thread and hand back its result or exception."""
    return Background(function, *args).result()


# ------------------------------------------------------------ sockets


@contextlib.contextmanager
def socket_pair(blocking=False):
    """Two connected sockets, non-blocking unless asked otherwise."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(blocking)
        right.setblocking(blocking)
        yield left, right


class Pipe:
    """A non-blocking pipe; its ends are numbers that each get closed once."""

    def __init__(self):
        self.reading, self.writing = self._open = list(os.pipe())
        for fd in self._open:
            os.set_blocking(fd, False)

    def close(self, fd):
        """Close that end. Not with os.close: a number that is closed twice is somebody else's."""
        self._open.remove(fd)
        os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for fd in list(self._open):
            self.close(fd)


def fill(sock):
    """Write until the kernel takes no more; the number of bytes it took."""
    taken = 0
    chunk = b"x" * 65536
    while True:
        try:
            taken += sock.send(chunk)
        except BlockingIOError:
            return taken


def drain(sock, size):
    """Read exactly that many bytes from a socket that has, or will get, them."""
    sock.settimeout(PATIENCE)
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            raise AssertionError(f"end of stream, {size} bytes early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def listen(sock, backlog):
    """sock.listen(backlog), also where that makes a 1 of a 0, as PyPy's does."""
    sock.listen(backlog)
    if PYPY and not WINDOWS:
        assert ctypes.CDLL(None).listen(sock.fileno(), backlog) == 0


@contextlib.contextmanager
def listening_socket(family=socket.AF_INET, host=None, backlog=16):
    """A blocking TCP listener on a free loopback port."""
    if host is None:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        listen(listener, backlog)
        listener.settimeout(PATIENCE)
        yield listener


@contextlib.contextmanager
def refusing_address(family=socket.AF_INET):
    """An address that refuses every connection for as long as the block lasts.

    The port is bound but nobody listens on it, so nobody else can get it either.
    """
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        holder.bind((host, 0))
        yield holder.getsockname()[:2]


@contextlib.contextmanager
def tcp_pair(family=socket.AF_INET):
    """Two blocking sockets of one TCP connection: (client, server)."""
    with listening_socket(family) as listener:
        client = socket.create_connection(listener.getsockname()[:2], PATIENCE)
        with client:
            server, _ = listener.accept()
            with server:
                server.settimeout(PATIENCE)
                yield client, server


def has_ipv6():
    """Whether ::1 can be bound here."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def threaded_server(handler, family=socket.AF_INET):
    """A blocking server in a thread, so that client tests do not need the loop's own server.

    `handler(connection)` runs for one connection after another; an exception of it fails the test.
    Yields the address.
    """
    with listening_socket(family) as listener:
        listener.settimeout(None)
        address = listener.getsockname()[:2]
        closing = threading.Event()

        def serve():
            while True:
                connection, _ = listener.accept()
                with connection:
                    if closing.is_set():
                        return
                    connection.settimeout(PATIENCE)
                    handler(connection)

        with Background(serve) as server:
            try:
                yield address
            finally:
                closing.set()
                if server.thread.is_alive():
                    socket.create_connection(address, PATIENCE).close()


def echo(connection):
    """A handler for `threaded_server`: send back whatever comes until the end of the stream."""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def is_bad_fd(fd):
    """Whether that number is no open descriptor."""
    try:
        os.fstat(fd)
    except OSError as exc:
        return exc.errno == errno.EBADF
    return False


# ------------------------------------------------------------ protocols


class RecordingProtocol(asyncio.Protocol):
    """A stream protocol that writes down all that happens to it.

    `events` holds names and arguments in order, consecutive data joined; `connected` and `lost` are
    futures; `received(n)` waits for n bytes in total.
    """

    def __init__(self, loop, keep_open_on_eof=False):
        self.loop = loop
        self.transport = None
        self.data = bytearray()
        self.events = []
        self.connected = loop.create_future()
        self.ended = loop.create_future()
        self.lost = loop.create_future()
        self._keep_open_on_eof = keep_open_on_eof
        self._waiters = []

    @property
    def names(self):
        return [event[0] for event in self.events]

    def connection_made(self, transport):
        self.transport = transport
        self.events.append(("connection_made",))
        self.connected.set_result(transport)

    def data_received(self, data):
        self._received(bytes(data))

    def _received(self, data):
        if self.events and self.events[-1][0] == "data":
            self.events[-1] = ("data", self.events[-1][1] + data)
        else:
            self.events.append(("data", data))
        self.data += data
        self._wake()

    def _wake(self):
        for size, waiter in self._waiters:
            if len(self.data) >= size and not waiter.done():
                waiter.set_result(None)

    async def received(self, size):
        """The first `size` bytes, as soon as there are so many."""
        if len(self.data) < size:
            waiter = self.loop.create_future()
            self._waiters.append((size, waiter))
            await waiter
        return bytes(self.data[:size])

    def eof_received(self):
        self.events.append(("eof",))
        self.ended.set_result(None)
        return self._keep_open_on_eof

    def pause_writing(self):
        self.events.append(("pause_writing",))

    def resume_writing(self):
        self.events.append(("resume_writing",))

    def connection_lost(self, exc):
        self.events.append(("connection_lost", exc))
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(ConnectionError(f"connection lost: {exc!r}"))
        self.lost.set_result(exc)


class RecordingBufferedProtocol(RecordingProtocol, asyncio.BufferedProtocol):
    """The same, reading into a buffer of its own."""

    def __init__(self, loop, size=4096, **kwargs):
        super().__init__(loop, **kwargs)
        self.buffer = bytearray(size)
        self.hints = []

    # asyncio decides by isinstance(protocol, BufferedProtocol); data_received must never be called.
    def data_received(self, data):
        raise AssertionError("data_received called on a BufferedProtocol")

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes):
        self._received(bytes(self.buffer[:nbytes]))


def resizing(protocol):
    """That kind of BufferedProtocol, but its buffer is a bytearray that it empties and refills."""

    class Resizing(protocol):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            size = len(self.buffer)
            self.buffer.clear()
            self.buffer.extend(bytes(size + 1))

    return Resizing
