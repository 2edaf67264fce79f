"""children.py: the end of a child is known, whoever handles SIGCHLD, whichever thread runs the
loop, however many there are and however early they die; and nothing is left of them.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

from children import run_script
from helpers import (
    LINUX,
    PATIENCE,
    PYPY,
    WINDOWS,
    Background,
    collect,
    import_veloop,
    in_thread,
    leaked_threads,
    open_fds,
    run_turns,
)
from helpers import new_event_loop as make_loop
from process_helpers import (
    DEVNULL,
    PIPE,
    READY,
    RecordingProcess,
    disposition,
    finish,
    inheritable,
    is_alive,
    output_of,
    run,
    start,
    wait_until_dead,
    wait_until_stopped,
)

pytestmark = pytest.mark.skipif(WINDOWS, reason="about POSIX processes")
linux = pytest.mark.skipif(not LINUX, reason="needs /proc")


@pytest.fixture(params=["pidfd", "thread"])
def way(request, loop_kind, monkeypatch):
    """Both ways to learn of an exit, also where the better one is there."""
    if loop_kind == "asyncio":
        if request.param == "thread":
            pytest.skip("asyncio's own affair")
    elif request.param == "thread":
        without_pidfd(monkeypatch)
    return request.param


def without_pidfd(monkeypatch):
    import_veloop()
    from veloop._uv import lib
    from veloop.loop import children

    class WithoutPidfd:
        def __getattr__(self, name):
            return getattr(lib, name)

        def vl_exit_pidfd(self, pid):
            return -38  # ENOSYS, as from an old kernel or a sandbox

    monkeypatch.setattr(children, "lib", WithoutPidfd())


# ------------------------------------------------------------ both ways


def test_exit_is_known(loop, way):
    protocol = run(loop, finish("sh", "-c", "exit 3"))
    assert protocol.exited.result() == 3
    assert protocol.events == ["connection_made", "process_exited", "connection_lost"]


def test_killed_child(loop, way):
    async def main():
        transport, protocol = await start("cat", stdin=PIPE)
        transport.kill()
        await protocol.lost
        transport.close()
        return protocol.exited.result()

    assert run(loop, main()) == -signal.SIGKILL


def test_stopped_child_is_not_dead(loop, way):
    async def main():
        transport, protocol = await start(*READY, stdin=PIPE, stdout=PIPE)
        await protocol.first_data
        transport.send_signal(signal.SIGSTOP)
        wait_until_stopped(transport.get_pid())
        await asyncio.sleep(0.02)
        assert not protocol.exited.done()
        transport.send_signal(signal.SIGCONT)
        transport.get_pipe_transport(0).write(b"\n")
        await protocol.lost
        transport.close()
        return protocol.exited.result()

    assert run(loop, main()) == 9


def test_child_that_is_dead_before_anybody_looks(loop, way, monkeypatch):
    original = subprocess.Popen.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        wait_until_dead(self.pid)

    monkeypatch.setattr(subprocess.Popen, "__init__", init)
    protocol = run(loop, finish("sh", "-c", "exit 3"))
    assert protocol.exited.result() == 3


@pytest.mark.stock_since("3.12", "its thread may be faster")
def test_child_that_another_one_reaps(loop, way, caplog):
    if way == "thread" and not hasattr(os, "waitid"):
        pytest.skip("without os.waitid() our thread waits by reaping, and nobody else can")

    async def main():
        transport, protocol = await start(*READY, stdin=PIPE, stdout=PIPE)
        await protocol.first_data
        os.kill(transport.get_pid(), signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # a thread may have been faster
            os.waitpid(transport.get_pid(), 0)
        returncode = await protocol.exited
        await protocol.lost
        transport.close()
        return returncode

    assert run(loop, main()) == 255
    assert "255" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.veloop_only("asyncio fails if a child is dead before it has a pidfd")
def test_children_while_sigchld_is_ignored(loop, way, caplog):
    """The kernel reaps them: their ends are known, their statuses are not."""

    async def main():
        return [(await finish("sh", "-c", "exit 3")).exited.result() for _ in range(3)]

    with disposition(signal.SIGCHLD, signal.SIG_IGN):
        assert run(loop, main()) == [255, 255, 255]
    assert caplog.text.count("returncode 255") == 3


@pytest.mark.veloop_only("asyncio leaves its pidfd open")
def test_loop_that_is_closed_while_a_child_runs(new_loop, way, caplog):
    loop = new_loop()

    async def main():
        transport, protocol = await start("sleep", "1000")
        protocol.exited.cancel()
        protocol.lost.cancel()
        return transport

    transport = run(loop, main())
    loop.close()
    proc = transport.get_extra_info("subprocess")
    assert is_alive(proc.pid)
    transport.close()
    assert proc.wait() == -signal.SIGKILL
    if way == "thread":
        for thread in threading.enumerate():
            if thread.name == f"veloop-waitpid-{proc.pid}":
                thread.join(PATIENCE)
        assert "is closed" in caplog.text


@pytest.mark.veloop_only("asyncio leaves the child running")
def test_child_that_nobody_can_watch_is_not_left(loop, monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    without_pidfd(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            run(loop, start("cat", stdin=PIPE, stdout=PIPE))


# ------------------------------------------------------------ SIGCHLD is the application's


def test_handler_of_the_loop_gets_sigchld(loop):
    seen = []

    async def main():
        loop.add_signal_handler(signal.SIGCHLD, lambda: seen.append(1))
        try:
            for number in range(3):
                assert (await finish("sh", "-c", "exit 3")).exited.result() == 3
                while len(seen) <= number:
                    await asyncio.sleep(0)
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)

    run(loop, main())


def test_handler_of_the_signal_module_gets_sigchld(loop):
    seen = []
    with disposition(signal.SIGCHLD, lambda *args: seen.append(args[0])):
        handler = signal.getsignal(signal.SIGCHLD)
        assert run(loop, finish("sh", "-c", "exit 3")).exited.result() == 3
        run_turns(loop, 3)
        assert signal.getsignal(signal.SIGCHLD) is handler
    assert set(seen) == {signal.SIGCHLD}


@linux
def test_disposition_of_sigchld_is_left_alone(loop):
    def caught():
        with open("/proc/self/status") as status:
            return [line for line in status if line.startswith(("SigCgt", "SigIgn"))]

    run_turns(loop)
    before = caught()
    run(loop, finish("true"))
    assert caught() == before


def test_popen_beside_the_loop_keeps_its_status(loop):
    async def main():
        popen = subprocess.Popen(["sh", "-c", "exit 4"])
        assert (await finish("sh", "-c", "exit 3")).exited.result() == 3
        return popen.wait()

    assert run(loop, main()) == 4


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="no child watchers")
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfds")
def test_pidfd_child_watcher_of_asyncio_on_this_loop(loop):
    """asyncio's watcher calls the running loop's private _add_reader."""

    async def main():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            watcher = asyncio.PidfdChildWatcher()
        popen = subprocess.Popen(["sh", "-c", "exit 7"])
        done = loop.create_future()
        watcher.attach_loop(loop)
        with watcher:
            watcher.add_child_handler(popen.pid, lambda pid, code: done.set_result((pid, code)))
            assert await done == (popen.pid, 7)
        watcher.attach_loop(None)
        popen.returncode = 7

    run(loop, main())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="no child watchers")
@pytest.mark.veloop_only("asyncio's loops need one")
def test_no_child_watcher_is_needed(loop, monkeypatch):
    def fail(*args):
        raise AssertionError("a child watcher was asked for")

    monkeypatch.setattr(asyncio.events, "get_event_loop_policy", fail)
    assert run(loop, output_of("echo", "hello")) == (0, b"hello\n")


# ------------------------------------------------------------ threads


def test_loop_in_another_thread(loop_kind):
    def other():
        loop = make_loop(loop_kind)
        try:
            return run(loop, output_of("sh", "-c", "echo hello; exit 3"))
        finally:
            loop.close()

    if loop_kind == "asyncio" and sys.version_info < (3, 12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asyncio.get_child_watcher()  # it is made in the main thread
    assert in_thread(other) == (3, b"hello\n")


def test_several_loops_in_several_threads_at_once(loop_kind):
    # Other loops refuse this: "Racing with another loop to spawn a process".
    threads, rounds = 4, 15
    barrier = threading.Barrier(threads)

    def work(number):
        loop = make_loop(loop_kind)

        async def main():
            for index in range(rounds):
                answer = f"{number}.{index}".encode()
                process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
                assert await process.communicate(answer) == (answer, None)
                assert process.returncode == 0

        try:
            barrier.wait()
            run(loop, main())
        finally:
            loop.close()

    workers = [Background(work, number) for number in range(threads)]
    for worker in workers:
        worker.result()


def test_children_do_not_get_each_others_pipes(loop_kind):
    """With two threads that start children, and one that opens descriptors all the time."""
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            for fd in os.pipe():
                os.close(fd)

    def work():
        loop = make_loop(loop_kind)

        async def main():
            for _ in range(15):
                # Each end of file comes only when nobody else has the other end.
                process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
                other = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=DEVNULL)
                process.stdin.close()
                assert await process.stdout.read() == b""
                assert await process.wait() == 0
                await other.communicate(b"")

        try:
            run(loop, main())
        finally:
            loop.close()

    with Background(disturb):
        try:
            workers = [Background(work) for _ in range(2)]
            for worker in workers:
                worker.result()
        finally:
            stop.set()


@linux
def test_descriptors_of_the_loop_are_not_inherited(loop):
    async def main():
        with inheritable(1) as fds:
            process = await asyncio.create_subprocess_exec(
                "ls", "/proc/self/fd", stdin=DEVNULL, stdout=PIPE, close_fds=False
            )
            output, _ = await process.communicate()
            return fds, {int(fd) for fd in output.split()}

    opened = {fd for fd in open_fds() if os.get_inheritable(fd)}
    mine, theirs = run(loop, main())
    extra = theirs - opened - set(mine) - {0, 1, 2}
    assert len(extra) <= 1  # ls itself reads the folder


@pytest.mark.veloop_only("asyncio's transports do not look at threads")
def test_other_thread_may_not_start_a_child(loop):
    async def main():
        def wrong():
            coroutine = loop.subprocess_exec(lambda: RecordingProcess(loop), "true")
            try:
                with pytest.raises(RuntimeError):
                    coroutine.send(None)
            finally:
                coroutine.close()

        await loop.run_in_executor(None, wrong)
        await loop.shutdown_default_executor()

    run(loop, main())


# ------------------------------------------------------------ many


def test_500_children_at_once(loop):
    count = 100 if PYPY else 500

    async def main():
        return await asyncio.gather(*(finish("sh", "-c", f"exit {n % 251}") for n in range(count)))

    protocols = run(loop, main())
    assert [p.exited.result() for p in protocols] == [n % 251 for n in range(count)]


@linux
def test_nothing_is_left_of_many_children(loop):
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def some(count):
        for _ in range(count):
            assert await output_of("echo", "hello", stderr=PIPE) == (0, b"hello\n")

    # PyPy's memory is not looked at, and each fork of so large a process takes it long.
    first, more = (10, 30) if PYPY else (50, 150)
    run(loop, some(first))
    collect()
    fds, memory, threads = len(open_fds()), resident(), set(threading.enumerate())
    run(loop, some(more))
    collect()
    assert len(open_fds()) == fds
    assert not leaked_threads(threads)  # stock asyncio's waiter may be a little behind its child
    # ASAN keeps what was freed, and PyPy as much as it likes.
    if "asan" not in os.environ.get("LD_PRELOAD", "") and not PYPY:
        assert resident() - memory < 2 << 20


@pytest.mark.slow
def test_soak_of_cancelled_and_killed_children(loop):
    async def work():
        process = await asyncio.create_subprocess_exec(*READY, stdin=PIPE, stdout=PIPE)
        try:
            await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            process._transport.close()

    async def one(number):
        task = asyncio.ensure_future(work())
        for _ in range(number % 11):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def main():
        await asyncio.gather(*(one(number) for number in range(60)))

    run(loop, main())


def test_fork_with_children(loop_kind):
    """A forked process uses a loop of its own, and has the parent's children for nobody."""
    script = """
    import warnings
    warnings.simplefilter("ignore")
    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        pid = os.fork()
        if pid == 0:
            try:
                asyncio._set_running_loop(None)
                code = 1
                async def other():
                    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
                    return await process.wait()
                loop = new_event_loop()
                code = loop.run_until_complete(other())
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(await process.communicate(b"hello"), process.returncode)
    run(main())
    """
    assert run_script(loop_kind, script).stdout == "3\n(b'hello', None) 0\n"
