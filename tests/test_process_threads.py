"""children.py: what other threads do while a child is being started, which does not stop them.

A child's exec waits as long as somebody has a lease on the program's file. So the start of a child
lasts exactly until another thread has done what it is to do meanwhile.
"""

import os
import textwrap
import threading

import pytest

from children import run_script
from helpers import LINUX
from process_helpers import PIPE, output_of, run

fcntl = pytest.importorskip("fcntl")

pytestmark = [pytest.mark.skipif(not LINUX, reason="needs leases, and no other system spawns so")]

holds = pytest.mark.veloop_only("Popen holds the GIL until the child has run exec")

PRELUDE = """
    import fcntl, time

    signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel's word to the lease's holder

    async def start(path, meanwhile):
        # Start the program; while that waits for exec, call meanwhile() in another thread.
        lease = os.open(path, os.O_RDONLY)
        fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        lost = []

        def work():
            while fcntl.fcntl(lease, fcntl.F_GETLEASE) == fcntl.F_WRLCK:
                time.sleep(0.001)
            try:
                meanwhile()
                fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            except BaseException as exc:
                lost.append(exc)
            os.close(lease)

        thread = threading.Thread(target=work)
        thread.start()
        process = await asyncio.create_subprocess_exec(path)
        thread.join()
        if lost:  # the kernel took the lease away, after a long time
            raise lost[0]
        return await process.wait()
"""


@pytest.fixture
def script(loop_kind, tmp_path):
    """A function that runs such a script, with a PROGRAM at hand, and returns its output."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    from veloop.loop import children

    if not children.can_spawn():
        pytest.skip("libuv starts no children here")
    with open(program) as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as exc:
            pytest.skip(f"no leases here: {exc}")

    def function(text):
        source = f"{textwrap.dedent(PRELUDE)}PROGRAM = {str(program)!r}\n{textwrap.dedent(text)}"
        # Python 3.12+ warns of a fork where there are threads.
        return run_script(loop_kind, source, "-W", "ignore::DeprecationWarning").stdout

    return function


@holds
def test_other_threads_run_while_a_child_starts(script):
    output = script(
        """
        async def main():
            print(await start(PROGRAM, lambda: print("meanwhile")))
        run(main())
        """
    )
    assert output == "meanwhile\n7\n"


@holds
def test_start_does_not_wait_for_a_process_forked_meanwhile(script):
    """That process has what uv_spawn had open: among it, the end of the pipe on which it waits."""
    output = script(
        """
        import select

        reading, writing = os.pipe()
        forked = []

        def fork():
            pid = os.fork()
            if pid == 0:
                told, _, _ = select.select([reading], [], [], 10)
                os._exit(0 if told else 1)
            forked.append(pid)

        async def main():
            print(await start(PROGRAM, fork))
            os.write(writing, b"x")
            print(os.waitstatus_to_exitcode(os.waitpid(forked[0], 0)[1]))
        run(main())
        """
    )
    assert output == "7\n0\n"


@holds
def test_failure_is_known_with_a_process_forked_meanwhile(script):
    output = script(
        """
        import select

        reading, writing = os.pipe()

        def fork():
            if os.fork() == 0:
                select.select([reading], [], [], 10)
                os._exit(0)

        async def main():
            with open(PROGRAM, "w") as file:
                file.write("#!/no/such/interpreter")
            try:
                await start(PROGRAM, fork)
            except FileNotFoundError:
                print("not found")
            os.write(writing, b"x")
            os.wait()
        run(main())
        """
    )
    assert output == "not found\n"


@pytest.mark.veloop_only("asyncio's child may read the environment while that changes")
def test_environment_changes_in_another_thread(loop):
    names = [f"VELOOP_TEST_{n}" for n in range(200)]
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for name in names:
                os.environ[name] = "x" * 20
            for name in names:
                del os.environ[name]

    os.environ["VELOOP_TEST"] = "kept"
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(40):
            command = output_of("/bin/sh", "-c", "echo $VELOOP_TEST", stdout=PIPE)
            assert run(loop, command) == (0, b"kept\n")
    finally:
        stop.set()
        thread.join()
        del os.environ["VELOOP_TEST"]
