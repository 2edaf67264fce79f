"""anyio's subprocesses and signals, on veloop and on asyncio."""

import os
import signal
import subprocess
import sys

import pytest
from payload import MEGABYTE, Checksum, payload
from running import on_anyio

from children import Script, run_script
from helpers import WINDOWS

anyio = pytest.importorskip("anyio", reason="anyio is not installed (pip install '.[test]')")

pytestmark = [
    pytest.mark.slow,  # each child is an interpreter
    pytest.mark.skipif(WINDOWS, reason="signals and exit codes as on Unix"),
]


def python(text):
    return [sys.executable, "-c", text]


COUNT = "import sys, zlib; d = sys.stdin.buffer.read(); print(f'{len(d)}:{zlib.crc32(d):08x}')"
ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
SLEEP = "import os, time; os.write(1, b'up\\n'); time.sleep(60)"


@on_anyio
async def test_run_process():
    """Output, errors, exit codes, environment and folder."""
    done = await anyio.run_process("printf out; printf err >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out", b"err")
    done = await anyio.run_process(["sh", "-c", "exit 3"], check=False)
    assert done.returncode == 3
    with pytest.raises(subprocess.CalledProcessError) as caught:
        await anyio.run_process("printf partly; exit 4")
    assert (caught.value.returncode, caught.value.output) == (4, b"partly")
    done = await anyio.run_process("printf '%s in %s' $WHO $(pwd)", cwd="/", env={"WHO": "me"})
    assert done.stdout == b"me in /"
    done = await anyio.run_process("echo both; echo of them >&2", stderr=subprocess.STDOUT)
    assert done.stdout == b"both\nof them\n"
    with pytest.raises(FileNotFoundError):
        await anyio.run_process(["/no/such/program"])


@on_anyio
async def test_large_input_and_output():
    """5 MB in, a checksum out; 5 MB in and out through a child that knows no end of its buffers."""
    data = payload(5 * MEGABYTE)
    done = await anyio.run_process(python(COUNT), input=data)
    assert done.stdout.decode().strip() == str(Checksum(data))
    done = await anyio.run_process("cat", input=data)
    assert done.stdout == data


@on_anyio
async def test_talking_to_a_process():
    """Lines to its stdin, each answered on its stdout, then the end of both."""
    async with await anyio.open_process(python(ECHO)) as process:
        for number in range(100):
            await process.stdin.send(b"line %d\n" % number)
            assert await process.stdout.receive() == b"line %d\n" % number
        await process.stdin.aclose()
        with pytest.raises(anyio.EndOfStream):
            await process.stdout.receive()
        assert await process.wait() == 0
    assert process.returncode == 0


@pytest.mark.parametrize("way", ["terminate", "kill"])
@on_anyio
async def test_ending_a_process(way):
    async with await anyio.open_process(python(SLEEP)) as process:
        assert await process.stdout.receive() == b"up\n"
        getattr(process, way)()
        signum = signal.SIGTERM if way == "terminate" else signal.SIGKILL
        assert await process.wait() == -signum


@on_anyio
async def test_cancelling_kills_the_process():
    """`run_process` in a scope that is cancelled: the child is gone when it returns."""
    pids = []

    async def runs():
        async with await anyio.open_process(python(SLEEP)) as process:
            pids.append(process.pid)
            await process.stdout.receive()
            started.set()
            await process.wait()

    started = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(runs)
        await started.wait()
        group.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    # Not before it has its input: asyncio loses a child that is cancelled while it is started.
    reading, writing = os.pipe()
    told = f"import os, time; input(); os.write({writing}, b'up'); time.sleep(60)"
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(
                lambda: anyio.run_process(python(told), input=b"go\n", pass_fds=[writing])
            )
            await anyio.wait_readable(reading)
            scope.cancel()
    assert scope.cancelled_caught
    os.close(reading)
    os.close(writing)


@on_anyio
async def test_many_processes():
    """At once: each exit code reaches the one who waits for it."""

    async def runs(code):
        done = await anyio.run_process(f"printf {code}; exit {code}", check=False)
        codes.append((done.returncode, int(done.stdout)))

    codes = []
    async with anyio.create_task_group() as group:
        for code in range(30):
            group.start_soon(runs, code)
    assert sorted(codes) == [(code, code) for code in range(30)]


@on_anyio
async def test_files_as_streams(tmp_path):
    """stdin from a file, stdout into one, nothing for stderr."""
    (tmp_path / "in").write_bytes(payload(MEGABYTE))
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        process = await anyio.open_process(
            ["cat"], stdin=source, stdout=target, stderr=subprocess.DEVNULL
        )
        async with process:
            assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
            assert await process.wait() == 0
    assert (tmp_path / "out").read_bytes() == payload(MEGABYTE)


@on_anyio
async def test_options_of_the_child():
    """Those of subprocess.Popen that anyio hands on."""
    reading, writing = os.pipe()
    try:
        done = await anyio.run_process(
            f"printf x >/dev/fd/{writing}; ps -o sid= -p $$; echo $$",
            env={"PATH": os.environ.get("PATH", os.defpath)},
            pass_fds=[writing],
            start_new_session=True,
        )
        session, pid = map(int, done.stdout.split())
        assert session == pid
        assert os.read(reading, 1) == b"x"
    finally:
        os.close(reading)
        os.close(writing)


# ------------------------------------------------------------ signals


@on_anyio
async def test_several_signals():
    """In the order they were sent; the handlers are gone afterwards."""
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            os.kill(os.getpid(), signum)
            assert await anext(signals) == signum
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == before


@on_anyio
async def test_signals_and_children():
    """A receiver of SIGCHLD does not take the exit of a child from its waiter."""
    with anyio.open_signal_receiver(signal.SIGCHLD) as signals:
        done = await anyio.run_process("exit 3", check=False)
        assert done.returncode == 3
        assert await anext(signals) == signal.SIGCHLD


RUN = "{'loop_factory': new_event_loop}"


def test_ctrl_c(loop_kind):
    """The program's task is cancelled, cleans up, and the KeyboardInterrupt comes out of `run`."""
    source = f"""
    import anyio
    async def main():
        try:
            print("up", flush=True)
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0)
            print("cleaned up", flush=True)
    try:
        anyio.run(main, backend_options={RUN})
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    """
    with Script(loop_kind, source, "-W", "error") as script:
        script.expect("up")
        script.wait_idle()
        script.signal(signal.SIGINT)
        script.expect("cleaned up")
        script.expect("interrupted")
        assert script.finish() == (0, "", "")


def test_a_program_that_ends_with_children_alive(loop_kind):
    """The run ends with an exception; nothing hangs, and nothing is said about leftovers."""
    source = f"""
    import anyio
    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.run_process, "sleep 60")
            await anyio.sleep(0.05)
            raise LookupError("told to fail")
    try:
        anyio.run(main, backend_options={RUN})
    except* LookupError:
        print("failed as told")
    """
    done = run_script(loop_kind, source)
    assert (done.stdout, done.stderr) == ("failed as told\n", "")
