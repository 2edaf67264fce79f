"""poll.py, second half: descriptors that are none, were closed, were reused, or have an owner.

libuv calls abort() where the kernel refuses a descriptor it was told to watch, so whatever closes
one behind the loop's back runs in a child process that must live to say "usable".
"""

import asyncio
import contextlib
import errno
import os
import socket
import tempfile

import pytest

from children import run_script
from helpers import (
    WINDOWS,
    Pipe,
    RecordingProtocol,
    fill,
    listening_socket,
    poll,
    run,
    run_turns,
    run_until,
    socket_pair,
)

pytestmark = pytest.mark.skipif(WINDOWS, reason="descriptors are numbers on POSIX only")

OPERATIONS = ["add_reader", "add_writer", "remove_reader", "remove_writer"]


def call(loop, operation, fd):
    if operation.startswith("add"):
        return getattr(loop, operation)(fd, print)
    return getattr(loop, operation)(fd)


# ------------------------------------------------------------ no descriptor


class WithFileno:
    def __init__(self, value):
        self.value = value

    def fileno(self):
        return self.value


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "fd",
    ["3", None, 1.5, [], WithFileno("x"), WithFileno(None)],
    ids=["str", "None", "float", "list", "fileno-str", "fileno-None"],
)
def test_what_is_no_descriptor_is_refused(loop, operation, fd):
    with pytest.raises(ValueError, match="Invalid file object"):
        call(loop, operation, fd)
    run_turns(loop)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fd", [-1, -(2**31), WithFileno(-1)], ids=["-1", "INT_MIN", "fileno-1"])
def test_negative_descriptor_is_refused(loop, operation, fd):
    with pytest.raises(ValueError, match="Invalid file descriptor: -"):
        call(loop, operation, fd)
    run_turns(loop)


@pytest.mark.parametrize("operation", OPERATIONS[:2])
def test_descriptor_that_is_not_open_is_refused(loop, operation):
    with Pipe() as pipe:
        fd = pipe.reading
    with pytest.raises(OSError, match=r"[Bb]ad file descriptor") as caught:
        call(loop, operation, fd)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match=r"[Bb]ad file descriptor"):
        call(loop, operation, 2**31 - 1)
    poll(loop)


@pytest.mark.parametrize("operation", OPERATIONS[:2])
def test_number_beyond_any_descriptor_is_refused(loop, operation):
    for number in (2**31, 2**40, 2**80):
        with pytest.raises(OverflowError):
            call(loop, operation, number)
    poll(loop)


@pytest.mark.parametrize("operation", OPERATIONS[2:])
@pytest.mark.parametrize("fd", [2**31 - 1, 2**31, 2**80])
def test_removing_an_unknown_number_is_false(loop, operation, fd):
    assert call(loop, operation, fd) is False


@pytest.mark.parametrize("operation", OPERATIONS[:2])
def test_closed_object_is_refused(loop, operation):
    sock = socket.socket()
    sock.close()
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        call(loop, operation, sock)
    with tempfile.TemporaryFile() as file:
        pass
    with pytest.raises(ValueError, match="Invalid file object"):
        call(loop, operation, file)


@pytest.mark.parametrize("operation", OPERATIONS[:2])
def test_regular_file_is_refused(loop, operation):
    # A file is always ready: the kernel does not watch it.
    with tempfile.TemporaryFile() as file:
        with pytest.raises(PermissionError) as caught:
            call(loop, operation, file)
        assert caught.value.errno == errno.EPERM
        assert loop.remove_reader(file) is False
        # Refusing left nothing behind.
        with pytest.raises(PermissionError):
            call(loop, operation, file)
    poll(loop)


def test_refused_descriptor_can_be_used_once_it_is_good(loop):
    with Pipe() as pipe:
        reading = pipe.reading
    with pytest.raises(OSError, match=r"[Bb]ad file descriptor"):
        loop.add_reader(reading, print)
    seen = []
    with Pipe() as pipe:
        reading, writing = pipe.reading, pipe.writing
        loop.add_reader(reading, seen.append, 1)
        os.write(writing, b"x")
        run_until(loop, lambda: seen)
        assert loop.remove_reader(reading)


# ------------------------------------------------------------ closed and reused


def test_reader_of_a_closed_socket_is_removed_by_its_object(loop):
    # selectors find it by identity when it has no number any more.
    with socket_pair() as (left, _):
        loop.add_reader(left, print)
        left.close()
        assert loop.remove_reader(left) is True
        assert loop.remove_writer(left.fileno() if left.fileno() >= 0 else 10_000) is False


def test_reader_of_a_closed_descriptor_is_removed_by_its_number(loop):
    with Pipe() as pipe:
        reading = pipe.reading
        loop.add_reader(reading, print)
        run_turns(loop)
        pipe.close(reading)
        assert loop.remove_reader(reading) is True
        assert loop.remove_reader(reading) is False
        poll(loop)


def test_descriptor_with_a_reused_number_does_not_get_the_old_callback(loop):
    seen = []
    with Pipe() as pipe:
        old = pipe.reading
        loop.add_reader(old, seen.append, "old")
        poll(loop)
        pipe.close(old)
        new, new_writing = os.pipe()
        try:
            assert new == old
            os.write(new_writing, b"x")
            poll(loop)
            assert seen == []
            assert loop.remove_reader(new) is True
            loop.add_reader(new, seen.append, "new")
            run_until(loop, lambda: seen)
            assert set(seen) == {"new"}
            assert loop.remove_reader(new)
        finally:
            os.close(new)
            os.close(new_writing)


@pytest.mark.veloop_only("asyncio does not tell epoll about the new descriptor")
@pytest.mark.parametrize("turns", [0, 1])
def test_reader_added_for_a_reused_number_is_called(loop, turns):
    # The best known bug of event loops is a number that is poisoned once it was closed by others.
    seen = []
    with Pipe() as pipe:
        old = pipe.reading
        loop.add_reader(old, seen.append, "old")
        for _ in range(turns):
            poll(loop)
        pipe.close(old)
        new, new_writing = os.pipe()
        try:
            assert new == old
            loop.add_reader(new, seen.append, "new")
            os.write(new_writing, b"x")
            run_until(loop, lambda: seen)
            assert set(seen) == {"new"}
            assert loop.remove_reader(new)
        finally:
            os.close(new)
            os.close(new_writing)


@contextlib.contextmanager
def reused(loop, *watch, turns=0):
    """(number, far end) of a socket with the number of one that was watched and is closed."""
    seen = []
    with socket_pair() as (old, _):
        number = old.fileno()
        for operation in watch:
            getattr(loop, f"add_{operation}")(number, seen.append, operation)
        for _ in range(turns):
            fill(old)
            poll(loop)
        seen.clear()
        old.close()
        with socket_pair() as (new, far):
            assert new.fileno() == number
            yield number, far
            poll(loop)
            assert seen == []
            with contextlib.suppress(FileNotFoundError):  # where asyncio still has both
                loop.remove_reader(number)
            loop.remove_writer(number)


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("watch", [["reader"], ["writer"], ["reader", "writer"]])
def test_file_nobody_asked_to_watch_is_not_watched(loop, watch, turns):
    # Closed and its number given to another, before the loop polls or after.
    with reused(loop, *watch, turns=turns) as (_, far):
        far.send(b"x")


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("other", ["reader", "writer"])
def test_callback_of_a_closed_file_does_not_come_with_one_of_the_new_file(loop, other, turns):
    with reused(loop, other, turns=turns) as (number, far):
        mine = "writer" if other == "reader" else "reader"
        seen = []
        far.send(b"x")
        try:
            getattr(loop, f"add_{mine}")(number, seen.append, mine)
        except FileNotFoundError:  # asyncio's way to put it
            pass
        else:
            run_until(loop, lambda: seen)
        poll(loop)
        assert set(seen) <= {mine}
        assert getattr(loop, f"remove_{other}")(number) is False


@pytest.mark.parametrize("removed", ["reader", "writer"])
def test_removing_one_callback_of_a_closed_file_removes_both(loop, removed):
    with reused(loop, "reader", "writer") as (number, far):
        far.send(b"x")
        with contextlib.suppress(FileNotFoundError):
            assert getattr(loop, f"remove_{removed}")(number) is True
        poll(loop)
        assert loop.remove_reader(number) is False
        assert loop.remove_writer(number) is False


@pytest.mark.parametrize(("first", "second"), [("reader", "writer"), ("writer", "reader")])
def test_adding_to_a_closed_number_is_refused_and_ends_its_watch(loop, first, second):
    with socket_pair() as (left, _):
        number = left.fileno()
        getattr(loop, f"add_{first}")(number, print)
        left.close()
        getattr(loop, f"add_{first}")(number, print)  # asyncio does not ask the kernel here
        with pytest.raises(OSError, match="Bad file descriptor"):
            getattr(loop, f"add_{second}")(number, print)
        assert loop.remove_reader(number) is False
        assert loop.remove_writer(number) is False


@pytest.mark.veloop_only("asyncio's transport fails to watch a number that it believes to know")
def test_reader_of_a_closed_file_is_not_called_for_a_transport(loop):
    received = []

    class Receiver(asyncio.Protocol):
        def data_received(self, data):
            received.append(data)

    async def main():
        stale = []
        with socket_pair() as (old, _):
            number = old.fileno()
            loop.add_reader(number, stale.append, 1)
            old.close()
            with socket_pair() as (new, far):
                assert new.fileno() == number
                transport, _ = await loop.connect_accepted_socket(Receiver, new)
                far.send(b"x")
                while not received:
                    await asyncio.sleep(0)
                transport.close()
                assert loop.remove_reader(number)
                await asyncio.sleep(0.01)
        assert stale == []

    run(loop, main())


def test_same_file_back_on_its_number_keeps_its_callbacks(loop):
    with Pipe() as pipe:
        reading, writing = pipe.reading, pipe.writing
        seen = []
        loop.add_reader(reading, lambda: seen.append(os.read(reading, 10)))
        copy = os.dup(reading)
        try:
            os.close(reading)
            os.dup2(copy, reading)
        finally:
            os.close(copy)
        loop.add_writer(reading, print)
        assert loop.remove_writer(reading)
        os.write(writing, b"x")
        run_until(loop, lambda: seen)
        assert loop.remove_reader(reading)


# Each leaves the loop with a descriptor that went away or turned into something else.
MISTREATMENTS = {
    "closed at once": """
        loop.add_reader(reading, called)
        os.close(reading)
    """,
    "closed at once, both directions": """
        loop.add_reader(left.fileno(), called)
        loop.add_writer(left.fileno(), called)
        left.close()
    """,
    "closed after a turn": """
        loop.add_reader(reading, called)
        turns()
        os.close(reading)
    """,
    "other direction added after close": """
        loop.add_reader(number, called)
        turns()
        left.close()
        attempt(loop.add_writer, number, called)
    """,
    "same direction added after close": """
        loop.add_reader(number, called)
        turns()
        left.close()
        attempt(loop.add_reader, number, called)
    """,
    "reused by a file at once": """
        loop.add_reader(reading, called)
        os.close(reading)
        assert os.open(__file__ or sys.executable, os.O_RDONLY) == reading
    """,
    "reused by a file after a turn": """
        loop.add_reader(reading, called)
        turns()
        os.close(reading)
        assert os.open(sys.executable, os.O_RDONLY) == reading
        attempt(loop.add_writer, reading, called)
    """,
    "reused by a pipe, other direction added": """
        loop.add_reader(reading, called)
        turns()
        os.close(reading)
        assert os.pipe()[0] == reading
        attempt(loop.add_writer, reading, called)
    """,
    "closed while a duplicate lives": """
        copy = os.dup(reading)
        loop.add_reader(reading, called)
        turns()
        os.close(reading)
        os.write(writing, b"x")
        turns()
        loop.remove_reader(reading)
    """,
    "closed while a duplicate lives, number reused": """
        copy = os.dup(reading)
        loop.add_reader(reading, called)
        turns()
        os.close(reading)
        assert os.pipe()[0] == reading
        os.write(writing, b"x")
        turns()
        loop.remove_reader(reading)
        attempt(loop.add_reader, reading, called)
    """,
    "closed by its own callback": """
        def callback():
            left.close()
        right.send(b"x")
        loop.add_reader(number, callback)
        turns()
    """,
    "closed by another callback of the same turn": """
        def callback(sock):
            sock.close()
        left.send(b"x")
        right.send(b"x")
        loop.add_reader(left, callback, right)
        loop.add_reader(right, callback, left)
        turns()
    """,
    "removed after close and reuse": """
        loop.add_reader(reading, called)
        turns()
        os.close(reading)
        assert os.pipe()[0] == reading
        loop.remove_reader(reading)
    """,
    "closed and the loop closed at once": """
        loop.add_reader(reading, called)
        os.close(reading)
        loop.close()
    """,
}

MISTREAT = """
    loop = new_event_loop()
    reading, writing = os.pipe()
    left, right = socket.socketpair()
    for each in (left, right):
        each.setblocking(False)
    number = left.fileno()
    __file__ = None

    def called(*args):
        pass

    def attempt(function, *args):
        # Refusing is fine, and so is taking it: only dying is not.
        try:
            function(*args)
        except OSError as exc:
            print("refused", type(exc).__name__)

    def turns():
        # The timer makes the loop idle, so that it polls.
        if not loop.is_closed():
            loop.call_later(0.005, loop.stop)
            loop.run_forever()

{mistreatment}

    turns()
    turns()
    if not loop.is_closed():
        # Not one of the numbers the loop was deceived about.
        spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
        fine = []
        one, two = socket.socketpair()
        two.send(b"x")
        loop.add_reader(one, lambda: (fine.append(1), loop.stop()))
        loop.run_forever()
        assert fine == [1], fine
        loop.close()
        one.close()
        two.close()
    left.close()
    right.close()
    print("usable")
"""


@pytest.mark.parametrize("mistreatment", MISTREATMENTS.values(), ids=MISTREATMENTS)
def test_descriptor_closed_behind_the_loops_back(loop_kind, mistreatment):
    lines = [line[4:] for line in mistreatment.splitlines()]
    script = MISTREAT.format(mistreatment="\n".join(lines))
    assert run_script(loop_kind, script).stdout.splitlines()[-1] == "usable"


# ------------------------------------------------------------ descriptors of a transport


@pytest.mark.parametrize("operation", OPERATIONS)
def test_descriptor_of_a_transport_is_refused(loop, operation):
    async def main():
        transport, protocol = await loop.create_connection(
            lambda: RecordingProtocol(loop), *listener.getsockname()[:2]
        )
        sock = transport.get_extra_info("socket")
        for fd in (sock.fileno(), sock):
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(loop, operation, fd)
        transport.close()
        await protocol.lost

    with listening_socket() as listener:
        run(loop, main())


def test_number_of_a_closed_transport_can_be_watched_again(loop):
    async def main():
        transport, protocol = await loop.create_connection(
            lambda: RecordingProtocol(loop), *listener.getsockname()[:2]
        )
        number = transport.get_extra_info("socket").fileno()
        transport.close()
        await protocol.lost
        return number

    with listening_socket() as listener, contextlib.ExitStack() as stack:
        number = run(loop, main())
        run_turns(loop, 2)
        # The kernel gives out the lowest number that is free, so this ends.
        while True:
            sockets = dict(enumerate(stack.enter_context(socket_pair())))
            mine = [side for side, sock in sockets.items() if sock.fileno() == number]
            if mine:
                break
        seen = []
        sockets[1 - mine[0]].send(b"x")
        loop.add_reader(number, seen.append, 1)
        run_until(loop, lambda: seen)
        assert loop.remove_reader(number)
