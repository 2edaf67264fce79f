"""process.py on Windows. The tests with a POSIX shell's children: test_process.py."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from helpers import WINDOWS
from process_helpers import DEVNULL, PIPE, STDOUT, RecordingProcess, finish, python, run, start

pytestmark = [
    pytest.mark.skipif(not WINDOWS, reason="about processes as Windows has them"),
    pytest.mark.proactor,
]

MUCH = 1 << 20

ECHO = python("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())")
# Says "ready" and waits for the end of its standard input.
READY = python("import sys; print('ready', flush=True); sys.stdin.read(); sys.exit(9)")


def test_exit_status(loop):
    async def main():
        protocol = await finish(*python("raise SystemExit(7)"))
        assert await protocol.exited == 7
        assert protocol.events == ["connection_made", "process_exited", "connection_lost"]

    run(loop, main())


def test_output_comes_by_descriptor(loop):
    source = "import sys; sys.stdout.write('out'); sys.stderr.write('err')"

    async def main():
        protocol = await finish(*python(source), stdout=PIPE, stderr=PIPE)
        assert protocol.data == {1: b"out", 2: b"err"}

    run(loop, main())


def test_standard_error_into_standard_output(loop):
    source = "import sys; print('out', flush=True); print('err', file=sys.stderr)"

    async def main():
        protocol = await finish(*python(source), stdout=PIPE, stderr=STDOUT)
        assert protocol.data[1].split() == [b"out", b"err"]

    run(loop, main())


def test_much_goes_through_a_child(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec(*ECHO, stdin=PIPE, stdout=PIPE)
        output, _ = await process.communicate(bytes(MUCH))
        assert (process.returncode, len(output)) == (0, MUCH)

    run(loop, main())


def test_input_is_closed_when_the_child_goes(loop):
    async def main():
        transport, protocol = await start(*READY, stdin=PIPE, stdout=PIPE)
        await protocol.first_data
        transport.kill()
        await protocol.lost
        assert "pipe lost 0" in protocol.events
        assert transport.get_pipe_transport(0).is_closing()
        transport.close()

    run(loop, main())


def test_shell(aio, loop):
    async def main():
        process = await aio.create_subprocess_shell("echo out&& exit 3", stdout=PIPE)
        output, _ = await process.communicate()
        assert (process.returncode, output.strip()) == (3, b"out")

    run(loop, main())


def test_program_that_is_not_there(aio, loop):
    with pytest.raises(FileNotFoundError):
        run(loop, aio.create_subprocess_exec("no-such-program"))


@pytest.mark.parametrize("method", ["kill", "terminate"])
def test_end_by_force(aio, loop, method):
    async def main():
        process = await aio.create_subprocess_exec(*READY, stdin=PIPE, stdout=PIPE)
        assert (await process.stdout.readline()).strip() == b"ready"
        getattr(process, method)()
        return await process.wait()

    assert run(loop, main()) == 1


def test_sigterm_is_terminate_and_others_are_refused(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec(*READY, stdin=PIPE, stdout=PIPE)
        with pytest.raises(ValueError, match="Unsupported signal"):
            process.send_signal(signal.SIGABRT)
        process.send_signal(signal.SIGTERM)
        return await process.wait()

    assert run(loop, main()) == 1


def test_creation_flags_and_startup_information(loop):
    flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    startup = subprocess.STARTUPINFO(dwFlags=subprocess.STARTF_USESHOWWINDOW)

    async def main():
        command = python("raise SystemExit(4)")
        protocol = await finish(*command, creationflags=flags, startupinfo=startup)
        assert await protocol.exited == 4

    run(loop, main())


def test_folder_and_environment(loop, tmp_path):
    source = "import os, sys; sys.stdout.write(os.getcwd() + '|' + os.environ['ONE'])"

    async def main():
        environment = {**os.environ, "ONE": "1"}
        command = (sys.executable, "-c", source)
        options = {"cwd": tmp_path, "env": environment, "stdout": PIPE}
        protocol = await finish(*command, **options)
        folder, one = protocol.data[1].decode().split("|")
        assert (os.path.samefile(folder, tmp_path), one) == (True, "1")

    run(loop, main())


def test_many_children_at_once(loop):
    async def main():
        commands = [python(f"raise SystemExit({n})") for n in range(8)]
        protocols = await asyncio.gather(*(finish(*command) for command in commands))
        assert [await protocol.exited for protocol in protocols] == list(range(8))

    run(loop, main())


@pytest.mark.veloop_only("asyncio's has a bare handle")
def test_extra_info_has_the_popen_object(loop):
    async def main():
        transport, protocol = await loop.subprocess_exec(
            RecordingProcess, *READY, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        process = transport.get_extra_info("subprocess")
        assert isinstance(process, subprocess.Popen)
        assert process.pid == transport.get_pid()
        transport.get_pipe_transport(0).close()
        assert await protocol.exited == 9
        await protocol.lost
        transport.close()

    run(loop, main())
