"""stream_reader.py: reading up to a newline, or up to any separator."""

import asyncio

import pytest

from helpers import run
from stream_helpers import Line, left, pending
from tcp_helpers import turns


@pytest.fixture
def line(aio, loop):
    return Line(aio, loop)


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


@pytest.mark.own_module_only("asyncio's searches only behind as many bytes as it saw")
@pytest.mark.parametrize("separators", [b"-", b"--", (b"-", b"+++"), (b"--", b"++++")])
@pytest.mark.parametrize("seen", [[b"abcd"], [b"abcd", b"e"]], ids=["at once", "joined"])
def test_separator_behind_what_another_read_took(aio, loop, line, separators, seen):
    async def main():
        task = await pending(loop, line.reader.readuntil(separators))
        for chunk in seen:
            await line.deliver(chunk)
            await turns()
        assert await line.reader.read(100) == b"".join(seen)
        await line.deliver(b"--x")
        await turns()
        assert task.done()
        assert await task + left(line.reader) == b"--x"

    run(loop, main())


@pytest.mark.own_module_only("asyncio's searches only behind as many bytes as it saw")
@pytest.mark.parametrize("separators", [b"--", (b"--", b"++++")])
@pytest.mark.parametrize("size", [1, 100])
def test_separator_when_another_read_took_some_of_much(aio, loop, line, separators, size):
    async def main():
        task = await pending(loop, line.reader.readuntil(separators))
        await line.deliver(b"x" * 1000)
        await line.deliver(b"y")  # a small piece behind much
        await turns()
        assert await line.reader.read(1000 - size) == b"x" * (1000 - size)
        await line.deliver(b"--" + b"z" * 2000)
        await turns()
        assert task.done()
        assert await task == b"x" * size + b"y--"

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
