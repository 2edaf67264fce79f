"""stream_reader.py: what each read gives for what arrived, by one coroutine at a time."""

import asyncio

import pytest

from helpers import run
from stream_helpers import Line, pending
from tcp_helpers import pattern, turns


@pytest.fixture
def line(aio, loop):
    return Line(aio, loop)


def left(reader):
    return bytes(reader._buffer)


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
        assert f"waiter=<Future pending cb=[Task.task_wakeup()]> transport={line.wire!r}>" in (
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


# ------------------------------------------------------------ large reads out of many chunks

LARGE = pattern(300_000)


async def delivered(line, data=LARGE, size=50_000):
    for start in range(0, len(data), size):
        await line.deliver(data[start : start + size])
        await turns()


@pytest.mark.parametrize("size", [700, 50_000])
def test_large_readexactly_and_what_is_left(loop, line, size):
    async def main():
        task = await pending(loop, line.reader.readexactly(len(LARGE) - 10))
        await delivered(line, size=size)
        assert await task == LARGE[:-10]
        assert await line.reader.read(100) == LARGE[-10:]

    run(loop, main())


def test_large_read_to_the_end(loop, line):
    async def main():
        task = await pending(loop, line.reader.read())
        await delivered(line)
        await line.end()
        assert await task == LARGE

    run(loop, main())


def test_large_readexactly_at_the_end_gives_all_with_the_error(loop, line):
    async def main():
        task = await pending(loop, line.reader.readexactly(len(LARGE) + 1))
        await delivered(line)
        await line.end()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await task
        assert (caught.value.partial, caught.value.expected) == (LARGE, len(LARGE) + 1)

    run(loop, main())


def test_cancelled_large_readexactly_keeps_what_came(loop, line):
    async def main():
        task = await pending(loop, line.reader.readexactly(len(LARGE) + 1))
        await delivered(line)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await line.reader.readexactly(len(LARGE)) == LARGE

    run(loop, main())


@pytest.mark.own_module_only("asyncio's loses what it had collected")
def test_failed_large_read_to_the_end_keeps_what_came(loop, line):
    async def main():
        task = await pending(loop, line.reader.read())
        await delivered(line)
        line.reader.set_exception(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError):
            await task
        assert left(line.reader) == LARGE

    run(loop, main())


# ------------------------------------------------------------ readline, async for


def test_lines_of_one_chunk(loop, line):
    line.reader.feed_data(b"a\n\nbc\nrest")
    assert [run(loop, line.reader.readline()) for _ in range(3)] == [b"a\n", b"\n", b"bc\n"]
    assert left(line.reader) == b"rest"


def test_line_over_several_chunks(loop, line):
    async def main():
        task = await pending(loop, line.reader.readline())
        for chunk in (b"a", b"bcd", b"e"):
            await line.deliver(chunk)
            await turns()
        await line.deliver(b"f\ng")
        assert await task == b"abcdef\n"
        assert left(line.reader) == b"g"

    run(loop, main())


def test_last_line_may_lack_its_newline(loop, line):
    line.reader.feed_data(b"a\nb")
    line.reader.feed_eof()
    assert [run(loop, line.reader.readline()) for _ in range(4)] == [b"a\n", b"b", b"", b""]


def test_async_for_gives_the_lines(loop, line):
    async def main():
        line.reader.feed_data(b"a\nb\n\nc")
        line.reader.feed_eof()
        return [each async for each in line.reader]

    assert run(loop, main()) == [b"a\n", b"b\n", b"\n", b"c"]


def test_line_of_just_the_limit(aio, loop):
    line = Line(aio, loop, limit=3)
    line.reader.feed_data(b"abc\nabc\n")
    assert run(loop, line.reader.readline()) == b"abc\n"
    assert run(loop, line.reader.readline()) == b"abc\n"


def test_too_long_line_that_is_there_is_discarded(aio, loop):
    line = Line(aio, loop, limit=3)
    line.reader.feed_data(b"abcd\nef\n")
    with pytest.raises(ValueError, match="Separator is found, but chunk is longer than limit"):
        run(loop, line.reader.readline())
    assert left(line.reader) == b"ef\n"
    assert run(loop, line.reader.readline()) == b"ef\n"


def test_too_long_line_without_its_end_is_discarded_as_far_as_it_came(aio, loop):
    line = Line(aio, loop, limit=3)
    line.reader.feed_data(b"abcd")
    with pytest.raises(ValueError, match="Separator is not found, and chunk exceed the limit") as e:
        run(loop, line.reader.readline())
    assert isinstance(e.value.__context__, asyncio.LimitOverrunError)
    assert left(line.reader) == b""


def test_discarding_a_line_resumes_reading(aio, loop):
    line = Line(aio, loop, limit=3)
    line.reader.feed_data(b"0123456789")
    assert line.wire.calls == ["pause"]
    with pytest.raises(ValueError):
        run(loop, line.reader.readline())
    assert line.wire.calls == ["pause", "resume"]


def test_line_whose_begin_another_read_took_before_readline_saw_it(loop, line):
    async def main():
        task = await pending(loop, line.reader.readline())
        line.reader.feed_data(b"a")
        assert await line.reader.read(1) == b"a"
        await turns()
        await line.deliver(b"\na")
        assert await task == b"\n"
        assert left(line.reader) == b"a"

    run(loop, main())


@pytest.mark.own_module_only("asyncio's searches only behind as many bytes as it saw")
@pytest.mark.parametrize("seen", [b"a", b"abc"])
def test_line_whose_begin_another_read_took_after_readline_saw_it(aio, loop, line, seen):
    async def main():
        task = await pending(loop, line.reader.readline())
        await line.deliver(seen)
        await turns()
        assert await line.reader.read(len(seen)) == seen
        await line.deliver(b"\na")
        await turns()
        assert task.done()
        assert await task == b"\n"
        assert left(line.reader) == b"a"

    run(loop, main())


# ------------------------------------------------------------ readuntil


def test_readuntil_gives_the_separator_too(loop, line):
    line.reader.feed_data(b"ab--cd-")
    assert run(loop, line.reader.readuntil(b"--")) == b"ab--"
    line.reader.feed_data(b"-")
    assert run(loop, line.reader.readuntil(b"--")) == b"cd--"


@pytest.mark.parametrize("cut", range(1, 10))
def test_separator_in_two_chunks(loop, line, cut):
    data = b"some\r\n\r\nmore"

    async def main():
        task = loop.create_task(line.reader.readuntil(b"\r\n\r\n"))
        await line.deliver(data[:cut])
        await turns()
        await line.deliver(data[cut:])
        assert await task == b"some\r\n\r\n"
        assert left(line.reader) == b"more"

    run(loop, main())


def test_separator_byte_by_byte(loop, line):
    async def main():
        task = await pending(loop, line.reader.readuntil(b"aab"))
        for byte in b"aaab":
            assert not task.done()
            await line.deliver(bytes([byte]))
            await turns()
        assert await task == b"aaab"

    run(loop, main())


@pytest.mark.parametrize("separator", [bytearray(b"--"), memoryview(b"--")])
def test_separator_may_be_any_bytes(loop, line, separator):
    line.reader.feed_data(b"ab--cd")
    assert run(loop, line.reader.readuntil(separator)) == b"ab--"


def test_empty_separator_is_refused(loop, line):
    with pytest.raises(ValueError, match="Separator should be at least one-byte string"):
        run(loop, line.reader.readuntil(b""))


@pytest.mark.module_since("3.13", "several separators")
def test_no_separator_or_an_empty_one_among_others_is_refused(loop, line):
    with pytest.raises(ValueError, match="Separator should contain at least one element"):
        run(loop, line.reader.readuntil(()))
    with pytest.raises(ValueError, match="Separator should be at least one-byte string"):
        run(loop, line.reader.readuntil((b"a", b"")))


@pytest.mark.module_since("3.13", "several separators")
@pytest.mark.parametrize(
    ("data", "separators", "expected"),
    [
        (b"a\r\nb\n", (b"\n", b"\r\n"), b"a\r\n"),
        (b"one,two;", (b";", b","), b"one,"),
        (b"xabcd", (b"abcd", b"bc"), b"xabc"),
        (b"x--!", (b"!", b"---", b"--"), b"x--"),
    ],
)
def test_separator_that_ends_first_counts(loop, line, data, separators, expected):
    line.reader.feed_data(data)
    assert run(loop, line.reader.readuntil(separators)) == expected


@pytest.mark.module_since("3.13", "several separators")
def test_shortest_of_the_separators_counts_against_the_limit(aio, loop):
    line = Line(aio, loop, limit=3)
    line.reader.feed_data(b"abcEND")
    assert run(loop, line.reader.readuntil((b"END", b"xxxxxx"))) == b"abcEND"
    line.reader.feed_data(b"abcXEND")
    with pytest.raises(asyncio.LimitOverrunError) as caught:
        run(loop, line.reader.readuntil((b"XEND", b"END")))
    assert caught.value.consumed == 4


def test_readuntil_at_the_end_gives_the_rest_with_the_error(loop, line):
    line.reader.feed_data(b"ab-")
    line.reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        run(loop, line.reader.readuntil(b"--"))
    assert (caught.value.partial, caught.value.expected) == (b"ab-", None)
    assert left(line.reader) == b""


def test_readuntil_finds_what_came_with_the_end(loop, line):
    async def main():
        task = await pending(loop, line.reader.readuntil(b"--"))
        line.reader.feed_data(b"a--")
        line.reader.feed_eof()
        assert await task == b"a--"

    run(loop, main())


@pytest.mark.parametrize(
    ("data", "separator", "consumed"),
    [
        (b"abcde", b"\n", 5),
        (b"abcde-", b"--", 5),
        (b"abcde--", b"--", 5),
        (b"abcde--f--", b"--", 5),
    ],
)
def test_overrun_says_what_can_be_consumed_and_keeps_all(aio, loop, data, separator, consumed):
    line = Line(aio, loop, limit=4)
    line.reader.feed_data(data)
    for _ in range(2):
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            run(loop, line.reader.readuntil(separator))
        assert caught.value.consumed == consumed
    assert left(line.reader) == data


def test_overrun_may_show_only_while_waiting(aio, loop):
    async def main():
        line = Line(aio, loop, limit=4)
        task = await pending(loop, line.reader.readuntil(b"\n"))
        await line.deliver(b"abc")
        await line.deliver(b"de")
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await task
        assert caught.value.consumed == 5
        assert left(line.reader) == b"abcde"

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


# ------------------------------------------------------------ what is fed, what is in the buffer


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_fed_data_is_returned_as_bytes(loop, line, kind):
    line.reader.feed_data(kind(b"data\n"))
    result = run(loop, line.reader.readline())
    assert result == b"data\n"
    assert type(result) is bytes


def test_fed_bytearray_may_change_afterwards(loop, line):
    data = bytearray(b"data")
    line.reader.feed_data(data)
    data[:] = b"xxxx"
    assert run(loop, line.reader.read(10)) == b"data"


def test_empty_data_wakes_nobody(loop, line):
    async def main():
        task = await pending(loop, line.reader.read(10))
        line.reader.feed_data(b"")
        await line.deliver(b"")
        await turns()
        assert not task.done()
        await line.deliver(b"x")
        assert await task == b"x"

    run(loop, main())


@pytest.mark.own_module_only("asyncio's copies")
def test_chunk_that_satisfies_a_read_is_handed_over_itself(aio, loop, line):
    chunk = b"x" * 1000 + b"\n"
    for coro in (
        lambda: line.reader.read(5000),
        lambda: line.reader.readexactly(1001),
        lambda: line.reader.readline(),
        lambda: line.reader.readuntil(b"x\n"),
        lambda: line.reader.read(1001),
    ):
        line.reader.feed_data(chunk)
        assert run(loop, coro()) is chunk


def test_buffer_shows_and_takes_what_is_unread(loop, line):
    # Private in asyncio, and still used by libraries that hand a stream over.
    reader = line.reader
    reader.feed_data(b"abcdef")
    assert run(loop, reader.read(1)) == b"a"
    assert reader._buffer == b"bcdef"
    del reader._buffer[:2]
    reader._buffer.extend(b"gh")
    assert run(loop, reader.read(3)) == b"def"
    assert len(reader._buffer) == 2
    reader._buffer = bytearray(b"xyz\n")
    assert run(loop, reader.readline()) == b"xyz\n"
    reader.feed_data(b"gone")
    reader._buffer.clear()
    reader.feed_eof()
    assert run(loop, reader.read()) == b""


def test_old_data_is_not_copied_for_each_small_piece(aio, loop):
    # A line that comes byte by byte: quadratic copying would take minutes.
    line = Line(aio, loop, limit=1 << 22)
    line.reader.feed_data(b"x" * (1 << 20))
    for _ in range(20_000):
        line.reader.feed_data(b"y")
    line.reader.feed_data(b"\n")
    assert len(run(loop, line.reader.readline())) == (1 << 20) + 20_001


# ------------------------------------------------------------ pausing the transport


def test_transport_pauses_beyond_twice_the_limit_and_resumes_at_the_limit(aio, loop):
    line = Line(aio, loop, limit=4)
    line.reader.feed_data(b"12345678")
    assert line.wire.calls == []
    line.reader.feed_data(b"9")
    line.reader.feed_data(b"0")
    assert line.wire.calls == ["pause"]
    run(loop, line.reader.read(5))
    assert line.wire.calls == ["pause"]
    run(loop, line.reader.read(1))
    assert line.wire.calls == ["pause", "resume"]
    run(loop, line.reader.read(1))
    assert line.wire.calls == ["pause", "resume"]


def test_one_large_chunk_pauses_and_one_large_read_resumes(aio, loop):
    async def main():
        line = Line(aio, loop, limit=4)
        task = await pending(loop, line.reader.readexactly(1))
        await line.deliver(b"0123456789")
        await task
        assert line.wire.calls == ["pause"]
        assert await line.reader.read(100) == b"123456789"
        assert line.wire.calls == ["pause", "resume"]

    run(loop, main())


def test_transport_that_cannot_pause_is_not_asked_again(aio, loop):
    line = Line(aio, loop, limit=1)
    asked = []

    def pause_reading():
        asked.append(1)
        raise NotImplementedError

    line.wire.pause_reading = pause_reading
    for _ in range(3):
        line.reader.feed_data(b"1234")
    assert len(asked) == 1
    assert run(loop, line.reader.readexactly(12)) == b"1234" * 3
