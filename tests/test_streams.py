"""stream_reader.py: what each read gives for what arrived, and how reads end or fail."""

import asyncio

import pytest

from helpers import PYPY, run
from stream_helpers import Line, left, pending
from tcp_helpers import turns


@pytest.fixture
def line(aio, loop):
    return Line(aio, loop)


# ------------------------------------------------------------ construction


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_must_be_positive(aio, loop, limit):
    with pytest.raises(ValueError, match="Limit cannot be <= 0"):
        aio.StreamReader(limit=limit, loop=loop)


def test_reader_without_a_loop_takes_the_running_one(aio, loop):
    async def main():
        reader = aio.StreamReader()
        assert reader._loop is loop
        assert aio.StreamReaderProtocol(reader)._loop is loop

    run(loop, main())


@pytest.mark.module_since("3.14", "get_event_loop() made a loop before")
def test_reader_without_any_loop_is_refused(aio):
    asyncio.set_event_loop(None)
    with pytest.raises(RuntimeError, match="There is no current event loop"):
        aio.StreamReader()


def test_classes_are_asyncios_to_who_asks(aio, line):
    assert isinstance(line.reader, asyncio.StreamReader)
    assert isinstance(line.protocol, asyncio.StreamReaderProtocol)


def test_repr_names_what_differs_from_a_fresh_reader(aio, loop):
    reader = aio.StreamReader(loop=loop)
    assert repr(reader) == "<StreamReader>"
    reader = aio.StreamReader(limit=4, loop=loop)
    reader.feed_data(b"data")
    error = ValueError("x")
    reader.set_exception(error)
    reader.feed_eof()
    assert repr(reader) == f"<StreamReader 4 bytes eof limit=4 exception={error!r}>"


def test_repr_names_transport_pause_and_waiter(aio, loop):
    async def main():
        line = Line(aio, loop, limit=1)
        task = await pending(loop, line.reader.read(1))
        wakeup = "Task.__wakeup" if PYPY else "Task.task_wakeup"
        assert f"waiter=<Future pending cb=[{wakeup}()]> transport={line.wire!r}>" in (
            repr(line.reader)
        )
        line.reader.feed_data(b"abcd")
        assert repr(line.reader).endswith(" paused>")
        await task

    run(loop, main())


def test_second_transport_is_refused(line):
    with pytest.raises(AssertionError, match="Transport already set"):
        line.reader.set_transport(line.wire)


# ------------------------------------------------------------ read


def test_read_gives_what_is_there_up_to_n(loop, line):
    line.reader.feed_data(b"one")
    line.reader.feed_data(b"two")
    assert run(loop, line.reader.read(4)) == b"onet"
    assert left(line.reader) == b"wo"
    assert run(loop, line.reader.read(100)) == b"wo"


def test_read_of_nothing_is_empty_at_once(loop, line):
    assert run(loop, line.reader.read(0)) == b""


def test_read_waits_for_the_first_byte(aio, loop, line):
    async def main():
        task = await pending(loop, line.reader.read(10))
        await line.deliver(b"a")
        assert await task == b"a"

    run(loop, main())


def test_read_at_the_end_is_empty(loop, line):
    line.reader.feed_eof()
    assert run(loop, line.reader.read(10)) == b""
    assert run(loop, line.reader.read()) == b""


def test_read_that_waits_hears_of_the_end(loop, line):
    async def main():
        task = await pending(loop, line.reader.read(10))
        await line.end()
        assert await task == b""

    run(loop, main())


@pytest.mark.parametrize("n", [-1, -5])
def test_read_of_all_goes_to_the_end(loop, line, n):
    async def main():
        line.reader.feed_data(b"a")
        task = await pending(loop, line.reader.read(n))
        await line.deliver(b"b")
        await line.deliver(b"c")
        await line.end()
        assert await task == b"abc"

    run(loop, main())


def test_read_of_all_is_not_stopped_by_the_limit(aio, loop):
    async def main():
        line = Line(aio, loop, limit=4)
        task = await pending(loop, line.reader.read())
        for _ in range(10):
            await line.deliver(b"0123456789")
            await turns()
        await line.end()
        assert await task == b"0123456789" * 10
        assert line.wire.calls.count("pause") == line.wire.calls.count("resume")

    run(loop, main())


@pytest.mark.own_module_only("asyncio's loses what it had collected")
def test_cancelled_read_of_all_loses_nothing(aio, loop, line):
    async def main():
        line.reader.feed_data(b"one")
        task = await pending(loop, line.reader.read())
        await line.deliver(b"two")
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        line.reader.feed_data(b"three")
        assert await line.reader.read(100) == b"onetwothree"

    run(loop, main())


def test_cancelled_read_leaves_the_reader_usable(loop, line):
    async def main():
        for _ in range(3):
            task = await pending(loop, line.reader.read(10))
            task.cancel("why")
            with pytest.raises(asyncio.CancelledError, match="why"):
                await task
        task = await pending(loop, line.reader.read(10))
        await line.deliver(b"data")
        assert await task == b"data"

    run(loop, main())


def test_data_that_comes_after_the_cancellation_stays(loop, line):
    async def main():
        task = await pending(loop, line.reader.read(10))
        task.cancel()
        line.reader.feed_data(b"data")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await line.reader.read(10) == b"data"

    run(loop, main())


def test_cancellation_after_the_data_came_loses_none(loop, line):
    async def main():
        task = await pending(loop, line.reader.read(10))
        line.reader.feed_data(b"data")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await line.reader.read(10) == b"data"

    run(loop, main())


# ------------------------------------------------------------ readexactly


def test_readexactly_cuts_and_joins_chunks(loop, line):
    line.reader.feed_data(b"abcdef")
    assert run(loop, line.reader.readexactly(2)) == b"ab"
    line.reader.feed_data(b"ghi")
    line.reader.feed_data(b"j")
    assert run(loop, line.reader.readexactly(7)) == b"cdefghi"
    assert left(line.reader) == b"j"
    assert run(loop, line.reader.readexactly(1)) == b"j"
    assert left(line.reader) == b""


def test_readexactly_waits_for_all_of_it(loop, line):
    async def main():
        task = await pending(loop, line.reader.readexactly(6))
        for chunk in (b"ab", b"cd"):
            await line.deliver(chunk)
            await turns()
            assert not task.done()
        await line.deliver(b"efgh")
        assert await task == b"abcdef"
        assert left(line.reader) == b"gh"

    run(loop, main())


def test_readexactly_of_nothing_and_of_less_than_nothing(loop, line):
    assert run(loop, line.reader.readexactly(0)) == b""
    with pytest.raises(ValueError, match="readexactly size can not be less than zero"):
        run(loop, line.reader.readexactly(-1))


def test_readexactly_beyond_the_limit_resumes_reading(aio, loop):
    async def main():
        line = Line(aio, loop, limit=2)
        line.reader.feed_data(b"12345")
        assert line.wire.calls == ["pause"]
        task = await pending(loop, line.reader.readexactly(10))
        assert line.wire.calls == ["pause", "resume"]
        await line.deliver(b"67890")
        assert await task == b"1234567890"

    run(loop, main())


def test_readexactly_at_the_end_gives_the_rest_with_the_error(loop, line):
    line.reader.feed_data(b"ab")
    line.reader.feed_data(b"c")
    line.reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        run(loop, line.reader.readexactly(4))
    assert (caught.value.partial, caught.value.expected) == (b"abc", 4)
    assert type(caught.value.partial) is bytes
    assert line.reader.at_eof()


def test_cancelled_readexactly_keeps_what_came(loop, line):
    async def main():
        task = await pending(loop, line.reader.readexactly(10))
        await line.deliver(b"abc")
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await line.reader.readexactly(3) == b"abc"

    run(loop, main())


# ------------------------------------------------------------ errors, the end


READS = {
    "read": lambda reader: reader.read(4),
    "read all": lambda reader: reader.read(),
    "readexactly": lambda reader: reader.readexactly(4),
    "readline": lambda reader: reader.readline(),
    "readuntil": lambda reader: reader.readuntil(b"--"),
}
every_read = pytest.mark.parametrize("how", READS)


@every_read
def test_exception_is_raised_by_each_later_read(loop, line, how):
    error = ConnectionResetError("gone")
    line.reader.feed_data(b"12345\n--")
    line.reader.set_exception(error)
    assert line.reader.exception() is error
    for _ in range(2):
        with pytest.raises(ConnectionResetError) as caught:
            run(loop, READS[how](line.reader))
        assert caught.value is error


@every_read
def test_exception_is_raised_by_the_read_that_waits(loop, line, how):
    async def main():
        task = await pending(loop, READS[how](line.reader))
        line.protocol.connection_lost(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError, match="gone"):
            await task

    run(loop, main())


def test_exception_does_not_take_the_place_of_data_that_came_before(loop, line):
    async def main():
        task = await pending(loop, line.reader.read(10))
        line.reader.feed_data(b"data")
        line.reader.set_exception(ConnectionResetError("gone"))
        assert await task == b"data"

    run(loop, main())


def test_exception_for_a_cancelled_read_is_kept_for_the_next(loop, line):
    async def main():
        task = await pending(loop, line.reader.read(10))
        task.cancel()
        line.reader.set_exception(ConnectionResetError("gone"))
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ConnectionResetError):
            await line.reader.read(10)

    run(loop, main())


@pytest.mark.own_module_only("asyncio's waits for ever")
def test_exception_right_behind_data_that_is_not_enough(loop, line):
    async def main():
        task = await pending(loop, line.reader.readexactly(10))
        line.reader.feed_data(b"data")
        line.reader.set_exception(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError, match="gone"):
            await task

    run(loop, main())


@every_read
def test_second_read_at_the_same_time_is_refused(loop, line, how):
    async def main():
        task = await pending(loop, line.reader.read(1))
        name = {"readline": "readuntil", "read all": "read"}.get(how, how)
        with pytest.raises(RuntimeError) as caught:
            await READS[how](line.reader)
        assert str(caught.value) == (
            f"{name}() called while another coroutine is already waiting for incoming data"
        )
        await line.deliver(b"x")
        assert await task == b"x"

    run(loop, main())


@pytest.mark.own_module_only("asyncio's first read returns b'', which means the end")
def test_read_waits_on_if_another_took_its_data(aio, loop, line):
    async def main():
        first = await pending(loop, line.reader.read(10))
        line.reader.feed_data(b"one")
        assert await line.reader.read(10) == b"one"
        second = loop.create_task(line.reader.read(10))
        with pytest.raises(RuntimeError):  # of the two, who was there first waits on
            await second
        await line.deliver(b"two")
        assert await first == b"two"

    run(loop, main())


def test_at_eof_needs_the_end_and_nothing_unread(loop, line):
    reader = line.reader
    assert not reader.at_eof()
    reader.feed_data(b"some")
    reader.feed_eof()
    assert not reader.at_eof()
    assert run(loop, reader.read(2)) == b"so"
    assert not reader.at_eof()
    assert run(loop, reader.read(2)) == b"me"
    assert reader.at_eof()


def test_data_after_the_end_is_refused(line):
    line.reader.feed_eof()
    with pytest.raises(AssertionError, match="feed_data after feed_eof"):
        line.reader.feed_data(b"more")
