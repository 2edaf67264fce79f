"""subprocess.py: a child's streams and its end. communicate(): test_subprocess_communicate.py.

How children are started and watched is the loop's business: test_process.py.
"""

import asyncio
import signal
import subprocess

import pytest

from helpers import WINDOWS, collect, import_veloop
from process_helpers import DEVNULL, PIPE, READY, STDOUT, python, run

pytestmark = pytest.mark.skipif(WINDOWS, reason="its children are a POSIX shell")


def exec_(aio, *command, **options):
    return aio.create_subprocess_exec(*command, **options)


async def end(process):
    """Let a READY child end, and wait for it."""
    process.stdin.close()
    return await process.wait()


# ------------------------------------------------------------ the process


def test_constants_are_those_of_the_standard_module(aio):
    for name in ("PIPE", "STDOUT", "DEVNULL"):
        assert getattr(aio.subprocess, name) is getattr(subprocess, name)


def test_exec(aio, loop):
    async def main():
        process = await exec_(aio, "sh", "-c", "exit 3")
        assert type(process) is aio.subprocess.Process
        assert process.pid > 0
        assert repr(process) == f"<Process {process.pid}>"
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        assert await process.wait() == 3
        return process.returncode

    assert run(loop, main()) == 3


def test_shell(aio, loop):
    async def main():
        process = await aio.create_subprocess_shell("echo out; exit 3", stdout=PIPE)
        assert await process.stdout.read() == b"out\n"
        return await process.wait()

    assert run(loop, main()) == 3


def test_keywords_go_to_the_loop(aio, loop, tmp_path):
    async def main():
        process = await exec_(aio, "pwd", stdout=PIPE, cwd=tmp_path, env={"A": "b"})
        return await process.communicate()

    assert run(loop, main()) == (f"{tmp_path.resolve()}\n".encode(), None)


def test_program_that_is_not_there(aio, loop):
    with pytest.raises(FileNotFoundError):
        run(loop, exec_(aio, "/no/such/program"))


@pytest.mark.parametrize("option", [{"text": True}, {"encoding": "utf-8"}, {"bufsize": 1}])
def test_text_is_refused(aio, loop, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        run(loop, exec_(aio, "true", **option))


def test_needs_a_running_loop(aio):
    for start in (exec_(aio, "true"), aio.create_subprocess_shell("true")):
        with pytest.raises(RuntimeError, match="no running event loop"):
            start.send(None)


# ------------------------------------------------------------ its end


def test_returncode_is_none_until_the_end(aio, loop):
    async def main():
        process = await exec_(aio, *READY, stdin=PIPE, stdout=PIPE)
        before = process.returncode
        assert await end(process) == 9
        return before, process.returncode

    assert run(loop, main()) == (None, 9)


def test_many_wait(aio, loop):
    async def main():
        process = await exec_(aio, *READY, stdin=PIPE, stdout=PIPE)
        waits = [asyncio.ensure_future(process.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waits[0].cancel()
        process.stdin.close()
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        return [*results[1:], await process.wait()]

    assert run(loop, main()) == [9, 9, 9]


def test_wait_with_a_timeout_may_be_repeated(aio, loop):
    async def main():
        process = await exec_(aio, *READY, stdin=PIPE, stdout=PIPE)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), 0.001)
        if aio is not asyncio:
            assert not process._protocol._exit_waiters
        return await end(process)

    assert run(loop, main()) == 9


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (lambda process: process.send_signal(signal.SIGUSR1), "SIGUSR1"),
        (lambda process: process.terminate(), "SIGTERM"),
        (lambda process: process.kill(), "SIGKILL"),
    ],
    ids=["send_signal", "terminate", "kill"],
)
def test_signals(aio, loop, act, name):
    async def main():
        process = await exec_(aio, *READY, stdin=PIPE, stdout=PIPE)
        assert await process.stdout.readline() == b"ready\n"
        act(process)
        return await process.wait()

    assert run(loop, main()) == -getattr(signal, name)


@pytest.mark.parametrize("method", ["terminate", "kill", "send_signal"])
def test_signal_after_the_end(aio, loop, method):
    async def main():
        process = await exec_(aio, "true")
        await process.wait()
        await asyncio.sleep(0.001)  # until the transport has ended
        with pytest.raises(ProcessLookupError):
            getattr(process, method)(*([signal.SIGTERM] if method == "send_signal" else []))

    run(loop, main())


def test_wait_does_not_wait_for_who_holds_the_pipes(aio, loop):
    async def main():
        process = await aio.create_subprocess_shell(
            "exec 3>&-; cat <&4 >&1 & exit 5", stdin=PIPE, stdout=PIPE
        )
        return await process.wait(), process

    # cat has no descriptor 4 and ends at once; what matters is the shell's own end.
    code, process = run(loop, main())
    assert code == 5
    assert run(loop, process.stdout.read()) == b""


# ------------------------------------------------------------ its streams


def test_streams_are_the_modules(aio, loop):
    async def main():
        process = await exec_(aio, "cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert type(process.stdin) is aio.StreamWriter
        assert type(process.stdout) is type(process.stderr) is aio.StreamReader
        assert process.stdout is not process.stderr
        process.stdin.write(b"one\ntwo")
        await process.stdin.drain()
        assert await process.stdout.readline() == b"one\n"
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.stdout.read() == b"two"
        assert await process.stderr.read() == b""
        return await process.wait()

    assert run(loop, main()) == 0


def test_stderr_into_stdout(aio, loop):
    async def main():
        process = await aio.create_subprocess_shell("echo err >&2", stdout=PIPE, stderr=STDOUT)
        assert process.stderr is None
        return await process.communicate()

    assert run(loop, main()) == (b"err\n", None)


def test_devnull(aio, loop):
    async def main():
        process = await exec_(aio, "cat", stdin=DEVNULL, stdout=PIPE)
        assert process.stdin is None
        return await process.communicate()

    assert run(loop, main()) == (b"", None)


def test_limit_is_that_of_the_streams(aio, loop):
    async def main():
        process = await exec_(aio, "printf", "%s", "x" * 100, stdout=PIPE, limit=50)
        with pytest.raises((ValueError, asyncio.LimitOverrunError)):
            await process.stdout.readline()
        return await process.wait()

    assert run(loop, main()) == 0


def test_reading_pauses_at_the_limit(aio, loop):
    """A child that writes more than anybody reads is held up, and goes on when somebody does."""

    async def main():
        process = await exec_(aio, "head", "-c", "1000000", "/dev/zero", stdout=PIPE, limit=1000)
        pipe = process._transport.get_pipe_transport(1)
        paused = loop.create_future()
        pause = pipe.pause_reading

        def spy():
            pause()
            if not paused.done():
                paused.set_result(None)

        pipe.pause_reading = spy
        await paused
        assert process.returncode is None
        size = 0
        while data := await process.stdout.read(5000):
            size += len(data)
        assert await process.wait() == 0
        return size

    assert run(loop, main()) == 1000000


def test_drain_waits_for_the_child(aio, loop):
    async def main():
        process = await exec_(aio, *READY, stdin=PIPE, stdout=PIPE)
        process.stdin.write(b"x" * 2_000_000)
        drains = [asyncio.ensure_future(process.stdin.drain()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(drain.done() for drain in drains)
        process.kill()
        kinds = [type(exc) for exc in await asyncio.gather(*drains, return_exceptions=True)]
        await process.wait()
        return kinds

    for kind in run(loop, main()):
        assert issubclass(kind, ConnectionError | type(None))


def test_write_after_the_child_is_dead(aio, loop):
    async def main():
        process = await exec_(aio, "true", stdin=PIPE)
        await process.wait()
        with pytest.raises(ConnectionError):
            for _ in range(100):
                process.stdin.write(b"x")
                await process.stdin.drain()

    run(loop, main())


def test_closed_stdin_can_be_waited_for_twice(aio, loop):
    async def main():
        process = await exec_(aio, "cat", stdin=PIPE)
        waits = [asyncio.ensure_future(process.stdin.wait_closed()) for _ in range(2)]
        await asyncio.sleep(0)
        process.stdin.close()
        await asyncio.gather(*waits)
        return await process.wait()

    assert run(loop, main()) == 0


# ------------------------------------------------------------ the protocol


def test_repr_of_the_protocol(aio, loop):
    async def main():
        process = await exec_(aio, "cat", stdin=PIPE, stdout=PIPE)
        text = repr(process._protocol)
        await process.communicate(b"")
        return text

    text = run(loop, main())
    assert text.startswith("<SubprocessStreamProtocol stdin=<StreamWriter ")
    assert " stdout=<StreamReader " in text
    assert "stderr" not in text


def test_transport_is_closed_at_the_end(aio, loop):
    async def main():
        process = await exec_(aio, "echo", stdout=PIPE, stdin=PIPE)
        await process.stdout.read()
        await process.wait()
        await asyncio.sleep(0.001)
        return process._transport.is_closing()

    assert run(loop, main())


@pytest.mark.own_module_only("asyncio's fails when the pipe is really closed")
def test_pipe_error_reaches_the_reader(aio, loop):
    async def main():
        process = await exec_(aio, *READY, stdin=PIPE, stdout=PIPE)
        process._protocol.pipe_connection_lost(1, OSError("no more"))
        with pytest.raises(OSError, match="no more"):
            await process.stdout.read()
        return await end(process)

    assert run(loop, main()) == 9


def test_process_nobody_waits_for_is_no_leak(aio, loop):
    async def main():
        process = await exec_(aio, "true")
        await process.wait()

    run(loop, main())
    collect()


def test_protocol_of_our_own_module_is_exported():
    veloop = import_veloop()
    assert issubclass(veloop.subprocess.SubprocessStreamProtocol, asyncio.SubprocessProtocol)


def test_python_child(aio, loop):
    async def main():
        process = await exec_(aio, *python("print(input())"), stdin=PIPE, stdout=PIPE)
        return await process.communicate(b"hello\n")

    assert run(loop, main()) == (b"hello\n", None)
