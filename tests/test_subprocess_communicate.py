"""subprocess.py: communicate(). No deadlock, no lost byte, also if it is cancelled."""

import asyncio
import logging
import signal
from pathlib import Path

import pytest

from helpers import LINUX, WINDOWS
from process_helpers import PIPE, READY, run
from tcp_helpers import turns, until

pytestmark = pytest.mark.skipif(WINDOWS, reason="its children are a POSIX shell")

ALL = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
BIG = bytes(range(256)) * 8000  # 2 MB: more than all pipes and buffers on the way


def shell(aio, command, **options):
    return aio.create_subprocess_shell(command, **options)


# ------------------------------------------------------------ what comes back


@pytest.mark.parametrize("pipe", ["stdin", "stdout", "stderr"])
def test_none_without_a_pipe(aio, loop, pipe):
    async def main():
        process = await shell(aio, "exit 3", **{pipe: PIPE})
        return await process.communicate(), process.returncode

    outputs = [b"" if name == pipe else None for name in ("stdout", "stderr")]
    assert run(loop, main()) == (tuple(outputs), 3)


def test_both_outputs(aio, loop):
    async def main():
        process = await shell(aio, "echo out; echo err >&2", stdout=PIPE, stderr=PIPE)
        return await process.communicate()

    assert run(loop, main()) == (b"out\n", b"err\n")


@pytest.mark.module_since("3.12", "input=None leaves stdin open")
def test_no_input_ends_stdin(aio, loop):
    async def main():
        process = await shell(aio, "cat", stdin=PIPE, stdout=PIPE)
        return await process.communicate()

    assert run(loop, main()) == (b"", None)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_input(aio, loop, kind):
    async def main():
        process = await shell(aio, "cat", stdin=PIPE, stdout=PIPE)
        return await process.communicate(kind(b"input"))

    assert run(loop, main()) == (b"input", None)


def test_large_input_and_output(aio, loop):
    async def main():
        process = await shell(aio, "tee /dev/stderr", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        return await process.communicate(BIG)

    assert run(loop, main()) == (BIG, BIG)


def test_output_before_input_is_read(aio, loop):
    """The child writes to both before it reads: whoever waits for one only hangs."""

    async def main():
        write = "head -c 1000000 /dev/zero"
        process = await shell(
            aio, f"{write} >&2; {write}; cat", stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=1000
        )
        return [len(each) for each in await process.communicate(BIG)]

    assert run(loop, main()) == [1000000 + len(BIG), 1000000]


def test_output_that_was_there_before(aio, loop):
    """More than the stream's limit: reading of the pipe is paused when communicate() comes."""

    async def main():
        process = await shell(aio, "head -c 1000000 /dev/zero; echo", stdout=PIPE, limit=1000)
        pipe = process._transport.get_pipe_transport(1)
        paused = loop.create_future()
        pause = pipe.pause_reading

        def spy():
            pause()
            if not paused.done():
                paused.set_result(None)

        pipe.pause_reading = spy
        await paused
        return await process.communicate()

    assert run(loop, main()) == (bytes(1000000) + b"\n", None)


def test_output_is_what_nobody_has_read(aio, loop):
    async def main():
        process = await shell(aio, "echo one; echo two", stdout=PIPE)
        assert await process.stdout.readline() == b"one\n"
        output, _ = await process.communicate()
        return output, await process.stdout.read(), process.stdout.at_eof()

    assert run(loop, main()) == (b"two\n", b"", True)


@pytest.mark.parametrize("input", [None, b"more"])
def test_process_that_is_dead(aio, loop, input):
    async def main():
        process = await shell(aio, "echo out; exit 3", stdin=PIPE, stdout=PIPE)
        await process.wait()
        return await process.communicate(input), process.returncode

    assert run(loop, main()) == ((b"out\n", None), 3)


def test_twice(aio, loop):
    async def main():
        process = await shell(aio, "echo out", stdout=PIPE)
        return [await process.communicate() for _ in range(2)]

    assert run(loop, main()) == [(b"out\n", None), (b"", None)]


# ------------------------------------------------------------ errors


@pytest.mark.parametrize("size", [1, len(BIG)])
def test_broken_pipe_is_no_error(aio, loop, size):
    async def main():
        process = await shell(aio, "exec <&-; echo out", stdin=PIPE, stdout=PIPE)
        return await process.communicate(BIG[:size])

    assert run(loop, main()) == (b"out\n", None)


@pytest.mark.own_module_only("asyncio leaves the readers behind")
def test_text_is_refused_and_nothing_is_lost(aio, loop):
    async def main():
        process = await shell(aio, "cat", stdin=PIPE, stdout=PIPE)
        with pytest.raises((TypeError, AssertionError)):
            await process.communicate("text")
        return await process.communicate(b"bytes")

    assert run(loop, main()) == (b"bytes", None)


@pytest.mark.own_module_only("some versions raise AttributeError")
def test_input_without_a_pipe_is_ignored(aio, loop):

    async def main():
        process = await shell(aio, "echo out", stdout=PIPE)
        return await process.communicate(b"nowhere to go")

    assert run(loop, main()) == (b"out\n", None)


@pytest.mark.own_module_only("asyncio's fails when the pipe is really closed")
def test_error_of_a_pipe_is_raised(aio, loop):
    async def main():
        process = await shell(aio, "exit 0", stdout=PIPE)
        process._protocol.pipe_connection_lost(1, OSError("no more"))
        with pytest.raises(OSError, match="no more"):
            await process.communicate()
        await process.wait()

    run(loop, main())


@pytest.mark.own_module_only("asyncio's says read()")
def test_only_one_at_a_time(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec(*READY, stdin=PIPE, stdout=PIPE)
        first = asyncio.ensure_future(process.communicate())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=r"communicate\(\) called while another"):
            await process.communicate()
        return await first

    assert run(loop, main()) == (b"ready\n", None)


# ------------------------------------------------------------ cancellation


def test_cancelled(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("sleep", "60", **ALL)
        task = asyncio.ensure_future(process.communicate(BIG))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        process.kill()
        return await process.wait()

    assert run(loop, main()) == -9


lossless = pytest.mark.own_module_only("asyncio loses what it has read by then")
needs_proc = pytest.mark.skipif(not LINUX, reason="looks whether the child has stopped")


async def stopped(process):
    """Wait until the child has stopped itself."""
    stat = Path(f"/proc/{process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.001)


async def cancelled_halfway(aio, command, condition):
    """A child that has stopped itself after what communicate() took before it was cancelled."""
    process = await shell(aio, command, **ALL)
    task = asyncio.ensure_future(process.communicate(b"go\n"))
    await asyncio.sleep(0)
    while not condition(process._protocol._capture):
        await asyncio.sleep(0.001)
    await stopped(process)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return process


@needs_proc
def test_cancelled_sends_the_whole_input(aio, loop):
    async def main():
        command = "read go; kill -STOP $$; wc -c"
        process = await shell(aio, command, stdin=PIPE, stdout=PIPE)
        task = asyncio.ensure_future(process.communicate(b"go\n" + BIG))
        await stopped(process)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        return int(await process.stdout.read()), await process.wait()

    # The shell reads the line byte by byte.
    assert run(loop, main()) == (len(BIG), 0)


@needs_proc
@lossless
def test_cancelled_loses_nothing_for_the_next_one(aio, loop):
    async def main():
        process = await cancelled_halfway(
            aio,
            "read go; echo one; echo two >&2; kill -STOP $$; echo three",
            lambda capture: capture.chunks[1] and capture.chunks[2],
        )
        process.send_signal(signal.SIGCONT)
        return await process.communicate()

    assert run(loop, main()) == (b"one\nthree\n", b"two\n")


@needs_proc
@lossless
def test_cancelled_loses_nothing_for_the_streams(aio, loop):
    async def main():
        process = await cancelled_halfway(
            aio,
            "read go; echo one; exec >&-; echo two >&2; kill -STOP $$; echo end >&2",
            lambda capture: 1 in capture.ends and capture.chunks[2],
        )
        first = await process.stdout.read(), await process.stderr.readline()
        assert process.stdout.at_eof()
        process.send_signal(signal.SIGCONT)
        return *first, await process.stderr.read(), await process.wait()

    assert run(loop, main()) == (b"one\n", b"two\n", b"end\n", 0)


# ------------------------------------------------------------ debug


def test_debug_tells_what_happens(aio, loop, caplog):
    async def main():
        process = await shell(aio, "cat", stdin=PIPE, stdout=PIPE)
        await process.communicate(b"12345")

    loop.set_debug(True)
    loop.slow_callback_duration = 10
    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(loop, main())
    text = caplog.text
    assert "communicate: feed stdin (5 bytes)" in text
    assert "communicate: close stdin" in text


def test_debug_tells_of_a_broken_pipe(aio, loop, caplog):
    async def main():
        process = await shell(aio, "echo out", stdin=PIPE, stdout=PIPE)
        await process.wait()
        while not process.stdin.is_closing():
            await asyncio.sleep(0.001)
        await turns(5)  # the stream is told in the turns after that
        await process.communicate(BIG)

    loop.set_debug(True)
    loop.slow_callback_duration = 10
    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(loop, main())
    assert "communicate: stdin got " in caplog.text


@needs_proc
def test_stream_stops_the_pipe_again_after_a_cancelled_one(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("yes", stdout=PIPE)
        pipe = process._transport.get_pipe_transport(1)
        await until(lambda: not pipe.is_reading())  # nobody reads: the stream has stopped it
        task = loop.create_task(process.communicate())
        await until(pipe.is_reading)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: not pipe.is_reading())
        process.kill()
        await process.communicate()

    run(loop, main())


def test_stream_that_somebody_reads_is_not_taken(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        line = loop.create_task(process.stdout.readline())
        await turns()
        with pytest.raises(RuntimeError, match="already waiting for incoming data"):
            await process.communicate(b"a line\n")
        process.stdin.write(b"a line\n")
        process.stdin.close()
        assert await line == b"a line\n"
        await process.wait()

    run(loop, main())
