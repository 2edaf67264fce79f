"""process.py: children, their pipes and what protocols are told of them.

What a child finds when it begins to run: test_process_popen.py. Its end: test_process_exit.py.
"""

import asyncio
import contextvars
import logging
import os
import signal
import subprocess
import sys
import warnings

import pytest

from helpers import WINDOWS, collect, run_turns
from process_helpers import (
    DEVNULL,
    PIPE,
    READY,
    STDOUT,
    RecordingProcess,
    finish,
    output_of,
    python,
    run,
    start,
    wait_until_dead,
)

pytestmark = pytest.mark.skipif(WINDOWS, reason="its children are a POSIX shell")

var = contextvars.ContextVar("var", default="unset")

# ------------------------------------------------------------ the course of a child


def test_order_of_the_calls(loop):
    async def main():
        return await finish("sh", "-c", "echo out", stdout=PIPE)

    protocol = run(loop, main())
    assert protocol.events[0] == "connection_made"
    assert protocol.events[-1] == "connection_lost"
    assert sorted(protocol.events[1:-1]) == ["data 1", "pipe lost 1", "process_exited"]
    assert protocol.events.index("data 1") < protocol.events.index("pipe lost 1")
    assert protocol.data == {1: b"out\n"}


@pytest.mark.parametrize(
    ("script", "returncode"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -signal.SIGTERM), ("kill -9 $$", -9)],
)
def test_return_code(loop, script, returncode):
    protocol = run(loop, finish("sh", "-c", script))
    assert protocol.exited.result() == returncode
    assert protocol.transport.get_returncode() == returncode
    assert protocol.events == ["connection_made", "process_exited", "connection_lost"]


def test_three_pipes(loop):
    async def main():
        transport, protocol = await start(
            "sh",
            "-c",
            "read line; echo out $line; echo err >&2",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        transport.get_pipe_transport(0).write(b"hello\n")
        await protocol.lost
        transport.close()
        return protocol

    protocol = run(loop, main())
    assert protocol.data == {1: b"out hello\n", 2: b"err\n"}
    for fd in range(3):
        assert protocol.events.count(f"pipe lost {fd}") == 1


def test_closing_stdin_ends_the_childs_input(loop):
    async def main():
        transport, protocol = await start("cat", stdin=PIPE, stdout=PIPE)
        stdin = transport.get_pipe_transport(0)
        stdin.write(b"abc")
        stdin.close()
        await protocol.lost
        transport.close()
        return protocol

    protocol = run(loop, main())
    assert (protocol.data, protocol.exited.result()) == ({1: b"abc"}, 0)


def test_megabytes_through_a_child(loop):
    data = os.urandom(1 << 16) * 64

    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        output, error = await process.communicate(data)
        assert (process.returncode, error) == (0, None)
        return output

    assert run(loop, main()) == data


def test_writer_is_paused_while_the_child_does_not_read(loop):
    async def main():
        process = await asyncio.create_subprocess_exec(*READY, stdin=PIPE, stdout=PIPE)
        assert await process.stdout.readline() == b"ready\n"
        process.stdin.write(b"x" * (1 << 20))
        drain = asyncio.ensure_future(process.stdin.drain())
        await asyncio.sleep(0)
        assert not drain.done()
        process.kill()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await drain
        await process.communicate()

    run(loop, main())


def test_connection_is_lost_when_the_last_writer_of_a_pipe_is_gone(loop):
    async def main():
        transport, protocol = await start(
            "sh", "-c", "sleep 0.3 & echo $!", stdout=PIPE
        )  # the sleeper has the pipe too
        await protocol.exited
        await protocol.first_data
        await asyncio.sleep(0)
        assert not protocol.lost.done()
        await protocol.lost
        transport.close()
        return protocol

    assert run(loop, main()).events[-2:] == ["pipe lost 1", "connection_lost"]


def stock_needs_pidfds(loop_kind):
    if loop_kind == "asyncio" and not hasattr(os, "pidfd_open"):
        pytest.skip("asyncio's watcher of children is a thread where Python has no pidfds")


@pytest.mark.stock_since("3.12", "threads told of exits, in contexts of their own")
def test_process_exited_runs_in_the_context_of_the_creation(loop, loop_kind):
    stock_needs_pidfds(loop_kind)
    seen = []

    class Protocol(RecordingProcess):
        def process_exited(self):
            seen.append(var.get())
            super().process_exited()

    async def main():
        var.set("inner")
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            Protocol, "true", stdin=None, stdout=None, stderr=None
        )
        var.set("later")
        await protocol.lost
        transport.close()

    run(loop, main())
    assert seen == ["inner"]


def test_set_protocol(loop):
    async def main():
        transport, first = await start(*READY, stdin=PIPE, stdout=PIPE)
        await first.first_data
        assert transport.get_protocol() is first
        second = RecordingProcess()
        second.transport = transport
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        transport.get_pipe_transport(0).write(b"\n")
        await second.lost
        transport.close()
        assert second.exited.result() == 9
        assert not first.exited.done()
        for protocol in (first, second):  # nobody else waits for these
            protocol.exited.cancel()
            protocol.lost.cancel()

    run(loop, main())


# ------------------------------------------------------------ what stdin, stdout, stderr may be


def test_stderr_to_stdout(loop):
    command = "sh", "-c", "echo out; echo err >&2"
    assert run(loop, output_of(*command, stderr=STDOUT)) == (0, b"out\nerr\n")


def test_devnull(loop):
    command = "sh", "-c", "echo lost; cat; echo $? >&2"
    protocol = run(loop, finish(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE))
    assert protocol.data == {2: b"0\n"}


@pytest.mark.parametrize("as_file", [False, True], ids=["descriptor", "file"])
def test_files_and_descriptors(loop, tmp_path, as_file):
    (tmp_path / "in").write_bytes(b"from a file")
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        stdin, stdout = (source, target) if as_file else (source.fileno(), target.fileno())
        protocol = run(loop, finish("cat", stdin=stdin, stdout=stdout))
        assert not source.closed
        os.fstat(target.fileno())  # they are the caller's
    assert protocol.exited.result() == 0
    assert (tmp_path / "out").read_bytes() == b"from a file"


def test_pipe_between_two_children(loop):
    async def main():
        reading, writing = os.pipe()
        first = await asyncio.create_subprocess_exec("echo", "hello", stdout=writing)
        os.close(writing)
        second = await asyncio.create_subprocess_exec("cat", stdin=reading, stdout=PIPE)
        os.close(reading)
        output, _ = await second.communicate()
        return output, await first.wait()

    assert run(loop, main()) == (b"hello\n", 0)


def test_stdin_is_a_pipe_that_can_be_opened_by_name(loop):
    # With a socket, as other loops have it, opening /dev/stdin fails with ENXIO.
    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "cat </dev/stdin >/dev/stdout", stdin=PIPE, stdout=PIPE
        )
        return (await process.communicate(b"by name"))[0]

    assert run(loop, main()) == b"by name"


def test_pipesize(loop):
    fcntl = pytest.importorskip("fcntl")
    if not hasattr(fcntl, "F_GETPIPE_SZ"):
        pytest.skip("this system's pipes have one size")

    async def main():
        transport, protocol = await start(*READY, stdin=PIPE, stdout=PIPE, pipesize=8192)
        proc = transport.get_extra_info("subprocess")
        sizes = {fcntl.fcntl(proc.stdin, fcntl.F_GETPIPE_SZ)}
        sizes.add(fcntl.fcntl(proc.stdout, fcntl.F_GETPIPE_SZ))
        transport.get_pipe_transport(0).close()
        await protocol.lost
        transport.close()
        return sizes

    assert run(loop, main()) == {8192}


# ------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"text": True}, "text must be False"),
        ({"bufsize": 4096}, "bufsize must be 0"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("method", ["subprocess_exec", "subprocess_shell"])
def test_only_unbuffered_bytes(loop, method, wrong, message):
    made = []
    with pytest.raises(ValueError, match=message):
        run(loop, getattr(loop, method)(lambda: made.append(1), "true", **wrong))
    assert not made


def test_shell_or_no_shell(loop):
    with pytest.raises(ValueError, match="shell must be False"):
        run(loop, loop.subprocess_exec(RecordingProcess, "true", shell=True))
    with pytest.raises(ValueError, match="shell must be True"):
        run(loop, loop.subprocess_shell(RecordingProcess, "true", shell=False))
    for wrong in (None, ["true"], 42):
        with pytest.raises(ValueError, match="cmd must be a string"):
            run(loop, loop.subprocess_shell(RecordingProcess, wrong))


@pytest.mark.parametrize("command", ["echo one  two", b"echo one  two"], ids=["str", "bytes"])
def test_shell_command(loop, command):
    async def main():
        process = await asyncio.create_subprocess_shell(command, stdout=PIPE)
        return (await process.communicate())[0]

    assert run(loop, main()) == b"one two\n"


def test_program_and_arguments_of_all_kinds(loop, tmp_path):
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    for name in (program, str(program), os.fsencode(program)):
        assert run(loop, output_of(name, "a", b"b", tmp_path)) == (
            0,
            b"a b %s\n" % os.fsencode(tmp_path),
        )


@pytest.mark.parametrize("wrong", [None, 42, 1.5, object()], ids=repr)
def test_argument_that_is_no_text(loop, wrong):
    for command in ((wrong,), ("true", wrong)):
        with pytest.raises(TypeError) as ours:
            run(loop, output_of(*command))
        with pytest.raises(TypeError) as popens:
            subprocess.Popen(command)
        assert str(ours.value) == str(popens.value)


def test_null_characters(loop):
    for command, options in [
        (("true", "a\0b"), {}),
        (("tr\0ue",), {}),
        (("true",), {"env": {"A": "a\0b"}}),
        (("true",), {"cwd": "a\0b"}),
    ]:
        with pytest.raises(ValueError, match="null byte|null character"):
            run(loop, output_of(*command, **options))
    with pytest.raises(ValueError, match="illegal environment variable name"):
        run(loop, output_of("true", env={"A=B": "c"}))


def test_keyword_nobody_knows(loop):
    with pytest.raises(TypeError, match="no_such_keyword"):
        run(loop, output_of("true", no_such_keyword=1))


@pytest.mark.veloop_only("asyncio starts the child, and then fails")
def test_on_a_closed_loop(new_loop):
    loop = new_loop()
    loop.close()
    for method in (loop.subprocess_exec, loop.subprocess_shell):
        coroutine = method(RecordingProcess, "true")
        with pytest.raises(RuntimeError, match="closed"):
            coroutine.send(None)
        coroutine.close()


def test_factory_that_raises(loop):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(loop, loop.subprocess_exec(fail, "true"))


# ------------------------------------------------------------ signals to the child


def test_signals(loop):
    async def main(method, *args):
        transport, protocol = await start("cat", stdin=PIPE)
        getattr(transport, method)(*args)
        returncode = await protocol.exited
        await protocol.lost
        transport.close()
        return returncode

    assert run(loop, main("terminate")) == -signal.SIGTERM
    assert run(loop, main("kill")) == -signal.SIGKILL
    assert run(loop, main("send_signal", signal.SIGUSR1)) == -signal.SIGUSR1


@pytest.mark.stock_since("3.14.9", "gh-127049: signals went to the number of a reaped child")
def test_signal_to_a_child_that_has_exited(loop, monkeypatch):
    sent = []

    class Protocol(RecordingProcess):
        def process_exited(self):
            monkeypatch.setattr(os, "kill", lambda *args: sent.append(args))
            for method in (self.transport.kill, self.transport.terminate):
                method()
            self.transport.send_signal(signal.SIGUSR1)
            monkeypatch.undo()
            super().process_exited()

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(Protocol, "true", stdin=None)
        await protocol.lost
        for method in (transport.kill, transport.terminate):
            with pytest.raises(ProcessLookupError):
                method()
        transport.close()

    run(loop, main())
    assert not sent  # the number may be somebody else's by now


def test_wrong_signal(loop):
    async def main():
        transport, protocol = await start(*READY, stdin=PIPE, stdout=DEVNULL)
        for wrong, error in ((None, TypeError), (12345, OSError)):
            with pytest.raises(error):
                transport.send_signal(wrong)
        transport.get_pipe_transport(0).close()
        assert await protocol.exited == 9
        await protocol.lost
        transport.close()

    run(loop, main())


# ------------------------------------------------------------ close


def test_close_kills_and_closes_the_pipes(loop):
    async def main():
        transport, protocol = await start("cat", stdin=PIPE, stdout=PIPE)
        assert not transport.is_closing()
        transport.close()
        transport.close()
        assert transport.is_closing()
        await protocol.lost
        return protocol

    protocol = run(loop, main())
    assert protocol.exited.result() == -signal.SIGKILL
    assert protocol.events[-1] == "connection_lost"
    assert protocol.transport.get_pipe_transport(1).is_closing()


def test_close_after_the_end_does_nothing(loop):
    async def main():
        transport, protocol = await start("true")
        await protocol.lost
        transport.close()
        transport.close()
        assert transport.get_returncode() == 0
        assert repr(transport).endswith(f"closed pid={transport.get_pid()} returncode=0>")

    run(loop, main())


@pytest.mark.veloop_only("asyncio warns and says 255: its close() takes the status away")
def test_close_does_not_lose_the_status(loop, caplog):
    async def main():
        transport, protocol = await start("sh", "-c", "exit 3")
        wait_until_dead(transport.get_pid())
        transport.close()
        await protocol.lost
        return protocol.exited.result()

    assert run(loop, main()) == 3
    assert not caplog.records


@pytest.mark.stock_since("3.12", "the child watcher kept the transport for a while")
def test_transport_that_is_dropped_warns_and_kills(loop, loop_kind):
    stock_needs_pidfds(loop_kind)

    async def main():
        transport, protocol = await start("cat", stdin=PIPE)
        pid = transport.get_pid()
        # What watches the child holds the transport until the child is dead.
        transport.get_extra_info("subprocess").kill()
        await protocol.lost
        protocol.transport = None
        return pid

    with pytest.warns(ResourceWarning, match="unclosed transport <.*pid=[0-9]+"):
        run(loop, main())
        collect()


# ------------------------------------------------------------ facts about a child


def test_what_the_transport_knows(loop):
    async def main():
        transport, protocol = await start(*READY, stdin=PIPE, stdout=PIPE)
        assert isinstance(transport, asyncio.SubprocessTransport)
        proc = transport.get_extra_info("subprocess")
        assert isinstance(proc, subprocess.Popen)
        assert proc.args == READY
        assert transport.get_pid() == proc.pid
        assert transport.get_returncode() is None
        assert proc.poll() is None
        assert isinstance(transport.get_pipe_transport(0), asyncio.WriteTransport)
        assert isinstance(transport.get_pipe_transport(1), asyncio.ReadTransport)
        assert transport.get_pipe_transport(2) is None
        assert transport.get_pipe_transport(77) is None
        assert transport.get_extra_info("nothing", "default") == "default"
        text = repr(transport)
        assert f"pid={proc.pid} running stdin=<" in text
        assert "stdout=<" in text
        assert "stderr" not in text
        transport.get_pipe_transport(0).close()
        await protocol.lost
        assert proc.returncode == transport.get_returncode() == 9
        transport.close()

    run(loop, main())


def test_process_of_asyncio(loop):
    async def main():
        process = await asyncio.create_subprocess_exec(*READY, stdin=PIPE, stdout=PIPE)
        assert await process.stdout.readline() == b"ready\n"
        assert process.returncode is None
        waiting = [asyncio.ensure_future(process.wait()) for _ in range(3)]
        cancelled = asyncio.ensure_future(process.wait())
        await asyncio.sleep(0)
        cancelled.cancel()
        process.stdin.close()
        assert await asyncio.gather(*waiting) == [9, 9, 9]
        assert cancelled.cancelled()
        assert await process.wait() == process.returncode == 9
        assert await process.stdout.read() == b""
        process._transport.close()

    run(loop, main())


def test_debug_log(loop, caplog):
    async def main():
        protocol = await finish("true", stdout=PIPE, stderr=STDOUT)
        transport, second = await loop.subprocess_shell(
            RecordingProcess, "exit 3", stdin=None, stdout=DEVNULL, stderr=None
        )
        await second.lost
        transport.close()
        return protocol.transport.get_pid()

    loop.set_debug(True)
    caplog.set_level(logging.DEBUG, "asyncio")
    pid = run(loop, main())
    text = caplog.text
    assert "execute program 'true' stdout=stderr=<pipe>" in text
    assert f"process 'true' created: pid {pid}" in text
    assert "exited with return code 0" in text
    assert f"run shell command 'exit 3' stdout={DEVNULL}" in text
    assert "exited with return code 3" in text


# ------------------------------------------------------------ failure on the way


def test_cancelled_while_it_starts(loop):
    async def main():
        task = asyncio.ensure_future(start("cat", stdin=PIPE, stdout=PIPE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(loop, main())


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
@pytest.mark.parametrize("error", [OSError, asyncio.CancelledError])
@pytest.mark.stock_since("3.14.9", "the other pipes stayed open")
def test_pipe_that_cannot_be_connected(loop, monkeypatch, method, error):
    async def fail(*args):
        raise error("no pipe today")

    monkeypatch.setattr(loop, method, fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error):
            run(loop, start("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE))
        collect()
    run_turns(loop, 3)


def test_error_in_connection_made_is_reported(loop, loop_errors):
    class Protocol(RecordingProcess):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError

    async def main():
        transport, protocol = await loop.subprocess_exec(Protocol, "true", stdin=None)
        await protocol.lost
        transport.close()

    run(loop, main())
    assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)


def test_interpreter_as_a_child(loop):
    source = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(5)"

    async def main():
        process = await asyncio.create_subprocess_exec(*python(source), stdin=PIPE, stdout=PIPE)
        output, _ = await process.communicate(b"hello")
        return output, process.returncode

    assert run(loop, main()) == (b"HELLO", 5)
    assert sys.exc_info() == (None, None, None)
