"""poll.py: add_reader, add_writer and their removal, on everything that can be polled.

What happens to descriptors that are closed, reused or no descriptors at all: test_poll_errors.py.
"""

import contextvars
import os
import random
import socket
import struct
import sys
import weakref

import pytest

from helpers import (
    WINDOWS,
    Background,
    Pipe,
    collect,
    fill,
    poll,
    run_turns,
    run_until,
    socket_pair,
    tcp_pair,
)

var = contextvars.ContextVar("var", default="unset")
posix = pytest.mark.skipif(WINDOWS, reason="only sockets can be polled on Windows")


@pytest.fixture
def pair():
    with socket_pair() as sockets:
        yield sockets


# ------------------------------------------------------------ readiness


def test_reader_is_called_when_there_is_something_to_read(loop, pair):
    left, right = pair
    seen = []
    loop.add_reader(left, lambda: seen.append(left.recv(100)))
    poll(loop)
    assert seen == []
    right.send(b"hello")
    run_until(loop, lambda: seen)
    poll(loop)
    assert seen == [b"hello"]
    assert loop.remove_reader(left)


def test_reader_is_called_again_while_something_is_left(loop, pair):
    left, right = pair
    seen = []
    right.send(b"abc")
    loop.add_reader(left, lambda: seen.append(left.recv(1)))
    run_until(loop, lambda: len(seen) == 3)
    poll(loop)
    assert seen == [b"a", b"b", b"c"]
    loop.remove_reader(left)


def test_reader_is_called_at_the_end_of_the_stream(loop, pair):
    left, right = pair
    seen = []
    loop.add_reader(left, lambda: seen.append(left.recv(1)))
    right.close()
    run_until(loop, lambda: len(seen) >= 2)
    loop.remove_reader(left)
    assert set(seen) == {b""}


def test_writer_is_called_while_there_is_room(loop, pair):
    left, _ = pair
    seen = []
    loop.add_writer(left, seen.append, 1)
    run_until(loop, lambda: len(seen) >= 2)
    assert loop.remove_writer(left)


def test_writer_is_called_only_when_there_is_room_again(loop, pair):
    left, right = pair
    taken = fill(left)
    seen = []
    loop.add_writer(left, seen.append, 1)
    poll(loop)
    assert seen == []
    while taken > 0:
        taken -= len(right.recv(1 << 20))
    run_until(loop, lambda: seen)
    loop.remove_writer(left)


def test_callback_gets_its_arguments(loop, pair):
    left, right = pair
    seen = []

    def reader(*args):
        seen.append(("reader", *args))
        loop.remove_reader(left)

    def writer(*args):
        seen.append(("writer", *args))
        loop.remove_writer(left)

    right.send(b"x")
    loop.add_reader(left, reader, 1, None)
    loop.add_writer(left, writer, "two")
    run_until(loop, lambda: len(seen) == 2)
    assert sorted(seen, key=str) == [("reader", 1, None), ("writer", "two")]


def test_idle_loop_is_woken_by_data(loop, pair):
    left, right = pair
    loop.add_reader(left, loop.stop)
    with Background(right.send, b"x"):
        loop.run_forever()
    loop.remove_reader(left)


def test_readers_are_served_while_callbacks_never_end(loop, pair):
    # However busy the ready queue is, the loop polls from time to time.
    left, right = pair
    right.send(b"x")
    running = True

    def spin():
        if running:
            loop.call_soon(spin)

    loop.add_reader(left, loop.stop)
    loop.call_soon(spin)
    loop.run_forever()
    running = False
    loop.remove_reader(left)
    run_turns(loop, 2)


# ------------------------------------------------------------ what can be polled


def by_number(sock):
    return sock.fileno()


def by_socket(sock):
    return sock


def by_object(sock):
    class HasFileno:
        def fileno(self):
            return sock.fileno()

    return HasFileno()


@pytest.mark.parametrize("give", [by_number, by_socket, by_object])
@pytest.mark.parametrize("take", [by_number, by_socket, by_object])
def test_descriptor_may_be_a_number_or_an_object_with_fileno(loop, pair, give, take):
    left, right = pair
    seen = []
    right.send(b"x")
    loop.add_reader(give(left), seen.append, "reader")
    loop.add_writer(give(left), seen.append, "writer")
    run_until(loop, lambda: len(set(seen)) == 2)
    assert loop.remove_reader(take(left))
    assert loop.remove_writer(take(left))
    assert not loop.remove_reader(give(left))
    assert not loop.remove_writer(give(left))


@posix
def test_pipe(loop):
    seen = []
    with Pipe() as pipe:
        reading, writing = pipe.reading, pipe.writing
        loop.add_reader(reading, lambda: seen.append(os.read(reading, 10)))
        loop.add_writer(writing, seen.append, "room")
        run_until(loop, lambda: "room" in seen)
        loop.remove_writer(writing)
        os.write(writing, b"data")
        run_until(loop, lambda: b"data" in seen)
        pipe.close(writing)
        run_until(loop, lambda: b"" in seen)
        assert loop.remove_reader(reading)


@posix
def test_writer_of_a_pipe_nobody_reads_is_called(loop):
    seen = []
    with Pipe() as pipe:
        reading, writing = pipe.reading, pipe.writing
        pipe.close(reading)
        loop.add_writer(writing, seen.append, 1)
        run_until(loop, lambda: len(seen) >= 2)
        assert loop.remove_writer(writing)
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")


@posix
def test_full_pipe_nobody_reads_any_more_is_writable(loop):
    # The kernel says only "error" here, and the writer must hear of it.
    seen = []
    with Pipe() as pipe:
        reading, writing = pipe.reading, pipe.writing
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writing, b"x" * 65536)
        loop.add_writer(writing, seen.append, 1)
        poll(loop)
        assert seen == []
        pipe.close(reading)
        run_until(loop, lambda: seen)
        assert loop.remove_writer(writing)


@posix
def test_terminal(loop):
    seen = []
    master, slave = os.openpty()
    try:
        loop.add_reader(master, lambda: seen.append(os.read(master, 100)))
        os.write(slave, b"line\n")
        run_until(loop, lambda: seen)
        assert seen[0].startswith(b"line")
        assert loop.remove_reader(master)
    finally:
        os.close(master)
        os.close(slave)


def test_datagram_socket(loop):
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        seen = []
        loop.add_reader(receiver, lambda: seen.append(receiver.recv(100)))
        sender.sendto(b"datagram", receiver.getsockname())
        run_until(loop, lambda: seen)
        loop.remove_reader(receiver)
    assert seen == [b"datagram"]


def test_listening_socket(loop):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        accepted = []
        loop.add_reader(listener, lambda: accepted.append(listener.accept()[0]))
        with socket.create_connection(listener.getsockname()):
            run_until(loop, lambda: accepted)
        loop.remove_reader(listener)
        accepted[0].close()


def reset(sock):
    """Close so that the other side gets a reset instead of an end of stream."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_reset_connection_is_ready_until_it_is_removed(loop, direction):
    # The kernel flags an error then; the callback must come so that it can see which.
    seen = []
    with tcp_pair() as (client, server):
        client.setblocking(False)
        fill(client)
        reset(server)
        getattr(loop, f"add_{direction}")(client, seen.append, 1)
        run_until(loop, lambda: len(seen) >= 2)
        assert getattr(loop, f"remove_{direction}")(client)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.skipif(sys.platform == "win32", reason="connect reports differently there")
def test_refused_connection_is_writable(loop):
    with socket.socket() as holder, socket.socket() as sock:
        holder.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.connect(holder.getsockname())
        seen = []
        loop.add_writer(sock, seen.append, 1)
        run_until(loop, lambda: seen)
        loop.remove_writer(sock)
        with pytest.raises(ConnectionRefusedError):
            sock.connect(holder.getsockname())


# ------------------------------------------------------------ two directions, replacing, removing


def test_both_directions_of_one_descriptor_are_independent(loop, pair):
    left, right = pair
    seen = []
    loop.add_reader(left, seen.append, "reader")
    loop.add_writer(left, seen.append, "writer")
    run_until(loop, lambda: "writer" in seen)
    assert "reader" not in seen
    assert loop.remove_writer(left)
    seen.clear()
    poll(loop)
    assert seen == []
    right.send(b"x")
    run_until(loop, lambda: "reader" in seen)
    assert "writer" not in seen
    assert loop.remove_reader(left)


def test_adding_again_replaces_the_callback(loop, pair):
    left, right = pair
    seen = []
    loop.add_reader(left, seen.append, "first")
    loop.add_reader(left, seen.append, "second")
    right.send(b"x")
    run_until(loop, lambda: seen)
    assert set(seen) == {"second"}
    # One removal is enough.
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False


def test_replaced_callback_does_not_run_any_more_in_the_same_turn(loop):
    seen = []
    with socket_pair() as (one, one_peer), socket_pair() as (two, two_peer):

        def callback(name, other):
            seen.append(name)
            for sock in (one, two):
                loop.remove_reader(sock)
            loop.add_reader(other, seen.append, "replaced")

        one_peer.send(b"x")
        two_peer.send(b"x")
        loop.add_reader(one, callback, "one", two)
        loop.add_reader(two, callback, "two", one)
        run_until(loop, lambda: len(seen) >= 2)
        assert seen[0] in ("one", "two")
        assert set(seen[1:]) == {"replaced"}
        loop.remove_reader(one)
        loop.remove_reader(two)


def test_removed_callback_does_not_run_any_more_in_the_same_turn(loop):
    # Both are ready at once; whoever is first removes the other.
    seen = []
    with socket_pair() as (one, one_peer), socket_pair() as (two, two_peer):

        def callback(name):
            seen.append(name)
            loop.remove_reader(one)
            loop.remove_reader(two)

        one_peer.send(b"x")
        two_peer.send(b"x")
        loop.add_reader(one, callback, "one")
        loop.add_reader(two, callback, "two")
        run_until(loop, lambda: seen)
        poll(loop)
    assert len(seen) == 1


def test_removal_tells_whether_there_was_something_to_remove(loop, pair):
    left, right = pair
    assert loop.remove_reader(left) is False
    assert loop.remove_writer(left) is False
    loop.add_reader(left, print)
    assert loop.remove_writer(left) is False
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False
    loop.add_writer(right, print)
    assert loop.remove_reader(right) is False
    assert loop.remove_writer(right) is True


def test_callback_may_remove_itself(loop, pair):
    left, right = pair
    seen = []

    def callback():
        seen.append(loop.remove_reader(left))

    right.send(b"x")
    loop.add_reader(left, callback)
    run_until(loop, lambda: seen)
    poll(loop)
    assert seen == [True]


def test_callback_may_replace_itself(loop, pair):
    left, right = pair
    seen = []

    def callback(number):
        seen.append(number)
        loop.add_reader(left, callback, number + 1)

    right.send(b"x")
    loop.add_reader(left, callback, 0)
    run_until(loop, lambda: len(seen) >= 3)
    loop.remove_reader(left)
    assert seen[:3] == [0, 1, 2]


def test_removed_and_added_again_works(loop, pair):
    left, right = pair
    seen = []
    for number in range(20):
        loop.add_reader(left, seen.append, number)
        if number % 2:
            poll(loop)
        loop.remove_reader(left)
    right.send(b"x")
    loop.add_reader(left, seen.append, "last")
    run_until(loop, lambda: seen)
    assert set(seen) == {"last"}
    loop.remove_reader(left)


def test_descriptor_may_be_closed_right_after_its_removal(loop):
    seen = []
    for _ in range(50):
        with socket_pair() as (left, right):
            loop.add_reader(left, seen.append, 1)
            loop.add_writer(right, seen.append, 2)
            loop.remove_reader(left)
            loop.remove_writer(right)
    poll(loop)
    assert seen == []


def test_many_descriptors_at_random(loop):
    # Against a model: who was sent something and is registered gets exactly that.
    rng = random.Random(5)
    pairs = [socket.socketpair() for _ in range(100)]
    got = dict.fromkeys(range(len(pairs)), b"")
    sent = dict(got)
    registered = set()

    def read(number, sock):
        assert number in registered
        got[number] += sock.recv(1000)

    try:
        for left, _ in pairs:
            left.setblocking(False)
        for _ in range(500):
            number = rng.randrange(len(pairs))
            left, right = pairs[number]
            if number in registered and rng.random() < 0.5:
                registered.remove(number)
                assert loop.remove_reader(left) is True
            else:
                registered.add(number)
                loop.add_reader(left, read, number, left)
            data = bytes([rng.randrange(256)])
            right.send(data)
            sent[number] += data
            if rng.random() < 0.1:
                poll(loop)
                for each in registered:
                    assert got[each] == sent[each]
    finally:
        for number in registered:
            loop.remove_reader(pairs[number][0])
        for left, right in pairs:
            left.close()
            right.close()


# ------------------------------------------------------------ callbacks


def test_callback_runs_in_the_context_it_was_added_in(loop, pair):
    left, right = pair
    seen = []
    token = var.set("adding")
    loop.add_reader(left, lambda: seen.append(var.get()))
    var.reset(token)
    right.send(b"x")
    run_until(loop, lambda: seen)
    loop.remove_reader(left)
    assert set(seen) == {"adding"}


def test_exception_in_a_callback_is_reported_and_the_reader_stays(loop, pair, loop_errors):
    left, right = pair
    calls = []

    def callback():
        calls.append(left.recv(1))
        raise ValueError(f"call {len(calls)}")

    right.send(b"ab")
    loop.add_reader(left, callback)
    run_until(loop, lambda: len(calls) == 2)
    assert loop.remove_reader(left)
    assert [str(c["exception"]) for c in loop_errors.take()] == ["call 1", "call 2"]


def test_interrupt_in_a_callback_breaks_out_and_the_reader_stays(loop, pair):
    left, right = pair

    def interrupt():
        left.recv(1)
        raise KeyboardInterrupt

    right.send(b"ab")
    loop.add_reader(left, interrupt)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
    assert loop.remove_reader(left)


def test_removed_callback_is_released(loop, pair):
    class Target:
        def __call__(self):
            left.recv(1)

    left, right = pair
    target = Target()
    ref = weakref.ref(target)
    loop.add_reader(left, target)
    del target
    right.send(b"x")
    poll(loop)
    assert ref() is not None
    loop.remove_reader(left)
    run_turns(loop, 2)
    collect()
    assert ref() is None


def test_close_of_the_loop_forgets_the_readers(new_loop, pair):
    left, right = pair
    loop = new_loop()
    loop.add_reader(left, print)
    loop.add_writer(right, print)
    loop.close()
    # The sockets are the program's, as before.
    left.send(b"x")
    assert right.recv(1) == b"x"
    assert loop.remove_reader(left) is False


def test_two_loops_may_watch_one_descriptor(new_loop, pair):
    left, right = pair
    loops = [new_loop(), new_loop()]
    seen = []
    right.send(b"x")
    for loop in loops:
        loop.add_reader(left, seen.append, loop)
    for loop in loops:
        run_until(loop, lambda loop=loop: loop in seen)
        assert loop.remove_reader(left)
