"""_speedups: a StreamReader's wait and the hand-over of data, from the second time on.

The first time a task is resumed directly is Python's; what it found out is used again.
"""

import asyncio
import contextvars
import gc
import sys
import weakref

import pytest

import veloop
from helpers import run
from speedups_helpers import accelerated_only
from stream_helpers import Line
from tcp_helpers import turns

pytestmark = accelerated_only


@pytest.fixture
def loop_kind(variant):
    return "veloop"


@pytest.fixture
def line(loop):
    return Line(veloop, loop)


def started(line):
    """A coroutine at its second wait for data, of which the reader has the future. -> it, that"""
    step = line.reader.read(10)
    waiter = step.send(None)
    step.close()
    assert line.reader._waiter is None
    line.reader._future = waiter
    step = line.reader.read(10)
    assert step.send(None) is waiter is line.reader._waiter
    assert waiter._asyncio_future_blocking
    waiter._asyncio_future_blocking = False
    return step, waiter


async def warm(line, loop, after=None):
    """A task that was resumed directly and waits again; calls after(data) each time. -> it, list"""
    got = []

    async def reads():
        while data := await line.reader.read(100):
            got.append(data)
            if after is not None:
                after(data)
        return got

    task = loop.create_task(reads())
    await turns()
    for data in (b"one", b"two"):
        await deliver(line, loop, data)
    assert got == [b"one", b"two"] and line.reader._wakeup is not None
    return task, got


async def deliver(line, loop, data):
    """As a transport does it: in a callback."""
    done = loop.create_future()

    def call():
        try:
            done.set_result(line.protocol._hand_over(data))
        except BaseException as exc:
            done.set_exception(exc)

    loop.call_soon(call)
    return await done


# ------------------------------------------------------------ the wait


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
@pytest.mark.parametrize("instance", [False, True])
def test_exception_thrown_into_a_wait_ends_it(line, kind, instance):
    step, waiter = started(line)
    line.reader._wakeup = line.reader._context = 1
    thrown = kind("why") if instance else kind
    with pytest.raises(kind) as caught:
        step.throw(thrown)
    if instance:
        assert caught.value is thrown
    reader = line.reader
    assert reader._waiter is reader._future is reader._wakeup is reader._context is None


@pytest.mark.parametrize("variant", ["accelerated"], indirect=True)
def test_wait_takes_what_generators_throw_take(line):
    line.reader._future = line.reader._loop.create_future()
    for args in [(ValueError, "why"), (ValueError, ValueError("why"), None), (ValueError("why"),)]:
        wait = line.reader._wait_for_data("read")
        with pytest.raises(ValueError, match="why"):
            wait.throw(*args)
    for args in [(), (1,), (ValueError, 1, None, 2), (int,)]:
        with pytest.raises(TypeError):
            line.reader._wait_for_data("read").throw(*args)


def test_wait_that_never_began_changes_nothing(line, variant):
    line.reader._future = future = line.reader._loop.create_future()
    line.reader._wait_for_data("read")
    line.reader._wait_for_data("read").close()
    with pytest.raises(ValueError):
        line.reader._wait_for_data("read").throw(ValueError)
    assert line.reader._waiter is None and line.reader._future is future


def test_closed_coroutine_leaves_the_reader_free(line, loop):
    step, waiter = started(line)
    step.close()
    assert line.reader._waiter is line.reader._future is None

    async def main():
        line.reader.feed_data(b"more")
        assert await line.reader.read(10) == b"more"

    run(loop, main())


def test_wait_ends_once(line):
    line.reader._future = waiter = line.reader._loop.create_future()
    wait = line.reader._wait_for_data("read")
    assert next(iter(wait)) is waiter is line.reader._waiter
    with pytest.raises(StopIteration) as caught:
        wait.send(None)
    assert caught.value.value is None and line.reader._waiter is None
    line.reader._waiter = later = object()
    with pytest.raises((StopIteration, RuntimeError)):
        wait.send(None)
    wait.close()
    assert line.reader._waiter is later


def test_wait_leaves_another_ones_place_alone(line):
    step, waiter = started(line)
    line.reader._waiter = other = object()
    with pytest.raises(ValueError):
        step.throw(ValueError)
    assert line.reader._waiter is other


def test_second_reader_is_refused_while_one_waits(line):
    step, waiter = started(line)
    second = line.reader.readline()
    with pytest.raises(RuntimeError, match="readuntil.. called while another coroutine"):
        second.send(None)
    assert line.reader._waiter is waiter
    step.close()


def test_future_that_refuses_to_be_waited_for(line):
    class Refuses:
        @property
        def _asyncio_future_blocking(self):
            return False

    line.reader._future = Refuses()
    step = line.reader.read(10)
    with pytest.raises(AttributeError):
        step.send(None)
    assert line.reader._waiter is line.reader._future is None


def test_waits_are_seen_by_the_collector(line, loop):
    class Future(asyncio.Future):
        pass

    line.reader._future = Future(loop=loop)
    line.reader._future.wait = wait = line.reader._wait_for_data("read")
    gone = weakref.ref(line.reader._future)
    next(iter(wait))
    line.protocol.connection_lost(None)
    line.reader = line.transport = line.protocol = None
    del wait
    gc.collect()
    assert gone() is None


def test_cancelled_reads_lose_nothing(line, loop):
    async def main():
        task, got = await warm(line, loop)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await deliver(line, loop, b"three")
        line.protocol.data_received(b"three")
        assert await line.reader.read(100) == b"three"

    run(loop, main())


# ------------------------------------------------------------ taking


@pytest.mark.parametrize("head", [bytes, bytearray])
@pytest.mark.parametrize("paused", [False, True])
def test_take_removes_what_it_returns(line, head, paused):
    reader = line.reader
    whole = head(b"abcdefgh")
    reader._head = whole
    for size, data, left in [(0, b"", 8), (3, b"abc", 5), (4, b"defg", 1), (1, b"h", 0)]:
        reader._paused = paused
        assert reader._take(size) == data
        assert len(reader._head) - reader._pos == left
        assert not reader._paused
    assert not reader._head and reader._pos == 0
    if head is bytes:
        reader._head = whole
        assert reader._take(8) is whole


def test_take_survives_odd_state(line):
    reader = line.reader
    for pos, size in [(10, 1), (-1, 1), (1, 2**80), (2**80, 1), (0, 9), (0, -1)]:
        reader._head, reader._pos = b"abcdefgh", pos
        try:
            assert isinstance(reader._take(size), bytes)
        except (IndexError, OverflowError, TypeError, ValueError):
            pass
    for value in (None, "text", b"1"):
        reader._head, reader._pos = b"abcdefgh", value
        with pytest.raises(TypeError):
            reader._take(1)
    for name in ("_head", "_pos"):
        reader._head, reader._pos = b"abcdefgh", 0
        delattr(reader, name)
        with pytest.raises(AttributeError):
            reader._take(1)
    reader._head, reader._pos = b"", 0


# ------------------------------------------------------------ the hand-over


def test_data_goes_to_the_task_again_and_again(line, loop):
    async def main():
        task, got = await warm(line, loop)
        for i in range(300):
            assert await deliver(line, loop, b"%d" % i)
        assert got[2:] == [b"%d" % i for i in range(300)]
        line.reader.feed_eof()
        assert await task is got

    run(loop, main())


def test_future_that_others_watch_is_done_for_them_too_later(line, loop):
    async def main():
        task, got = await warm(line, loop)
        others = loop.create_future()
        line.reader._waiter.add_done_callback(others.set_result)
        assert not await deliver(line, loop, b"three")
        assert got == [b"one", b"two"]
        line.protocol.data_received(b"three")
        await others
        await turns()
        assert got == [b"one", b"two", b"three"]
        task.cancel()

    run(loop, main())


def test_context_that_is_entered_is_entered_later(line, loop):
    async def main():
        context = contextvars.copy_context()
        got = []

        async def reads():
            while data := await line.reader.read(100):
                got.append(data)

        task = loop.create_task(reads(), context=context)
        await turns()
        await deliver(line, loop, b"one")
        await deliver(line, loop, b"two")
        done = loop.create_future()
        loop.call_soon(lambda: done.set_result(context.run(line.protocol._hand_over, b"three")))
        assert await done
        await turns()
        assert got == [b"one", b"two", b"three"]
        task.cancel()

    run(loop, main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exception_that_ends_the_program_comes_out_and_the_rest_is_kept(line, loop, kind):
    async def main():
        def fails(data):
            if data == b"three":
                line.reader._head = b"left"
                raise kind("end")

        task, got = await warm(line, loop, fails)
        with pytest.raises(kind, match="end"):
            await deliver(line, loop, b"three")
        assert line.reader._wakeup is line.reader._context is line.reader._waiter is None
        with pytest.raises(kind):
            task.result()
        assert await line.reader.read(100) == b"left"

    run(loop, main())


def test_reader_that_gets_too_full_pauses_its_transport(line, loop):
    async def main():
        def ends(data):
            if len(data) > 3:
                raise ValueError("enough")

        task, got = await warm(line, loop, ends)
        size = 4 * line.reader._limit
        assert await deliver(line, loop, b"x" * size)
        with pytest.raises(ValueError, match="enough"):
            await task
        assert line.wire.calls == ["pause"]
        assert len(await line.reader.readexactly(size - 100)) == size - 100
        assert line.wire.calls == ["pause", "resume"]

    run(loop, main())


@pytest.mark.parametrize(
    "spoil",
    [
        "reader._wakeup = reader._context = None",
        "del reader._wakeup",
        "reader._future = None",
        "del reader._future",
        "protocol._hands_over = False",
        "del protocol._hands_over",
        "protocol._loop._nesting = True",
        "protocol._stream_reader_wr = None",
        "protocol._stream_reader_wr = lambda: reader",
    ],
)
def test_hand_over_survives_odd_state(line, loop, spoil):
    """Whatever is not as always is the Python method's business, and an exception at most."""

    async def main():
        task, got = await warm(line, loop)
        kept = {name: getattr(line.reader, name) for name in ("_wakeup", "_context", "_future")}
        exec(spoil, {"reader": line.reader, "protocol": line.protocol})
        try:
            await deliver(line, loop, b"three")
        except (AttributeError, TypeError):
            pass
        loop.set_nesting(False)
        for name, value in kept.items():
            setattr(line.reader, name, value)
        task.cancel()
        await asyncio.wait([task])
        assert task.done()

    run(loop, main())


def test_other_data_than_bytes(line, loop):
    async def main():
        task, got = await warm(line, loop)
        assert await deliver(line, loop, bytearray(b"three"))
        assert got[2:] == [b"three"]
        task.cancel()

    run(loop, main())


@pytest.mark.parametrize("variant", ["accelerated"], indirect=True)
def test_hand_overs_keep_no_references(line, loop):
    async def main():
        task, got = await warm(line, loop)
        data = b"three"
        kept = (line.reader, line.protocol, task, data, None, False, True, line.reader._future)
        await deliver(line, loop, data)
        del got[:]
        gc.collect()
        before = [sys.getrefcount(each) for each in kept]
        for _ in range(500):
            await deliver(line, loop, data)
        del got[:]
        gc.collect()
        after = [sys.getrefcount(each) for each in kept]
        assert all(abs(a - b) < 50 for a, b in zip(after, before, strict=True)), (before, after)
        task.cancel()

    run(loop, main())
