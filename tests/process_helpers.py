"""What the tests of subprocesses share: a protocol that records, and ways to run a child."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers import PATIENCE

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL

# A child that says "ready" and then waits for its standard input to end, which it takes for a no.
READY = ("sh", "-c", "echo ready; read line; exit 9")


def python(source):
    """A command line that runs Python source, started as fast as Python can be."""
    return sys.executable, "-I", "-S", "-c", source


class RecordingProcess(asyncio.SubprocessProtocol):
    """Writes down what happens to a child; data by descriptor, joined."""

    def __init__(self, loop=None):
        loop = loop or asyncio.get_running_loop()
        self.events = []
        self.data = {}
        self.exited = loop.create_future()
        self.lost = loop.create_future()
        self.first_data = loop.create_future()
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("connection_made")

    def pipe_data_received(self, fd, data):
        assert type(data) is bytes
        self.data[fd] = self.data.get(fd, b"") + data
        if self.events[-1] != f"data {fd}":
            self.events.append(f"data {fd}")
        if not self.first_data.done():
            self.first_data.set_result(None)

    def pipe_connection_lost(self, fd, exc):
        self.events.append(f"pipe lost {fd}")

    def process_exited(self):
        self.events.append("process_exited")
        self.exited.set_result(self.transport.get_returncode())

    def connection_lost(self, exc):
        self.events.append("connection_lost")
        self.lost.set_result(exc)


def wait_until_dead(pid):
    """Return when the child has ended; it stays to be waited for."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    else:
        _wait_for_state(pid, "Z")


def wait_until_stopped(pid):
    """Return when the child was stopped by a signal; nobody takes note of it."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    else:
        _wait_for_state(pid, "T")


def _wait_for_state(pid, state):
    """As the kernel tells it, for PyPy has no os.waitid()."""
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline, f"process {pid} does not come to be {state}"
        time.sleep(0.001)


def run(loop, awaitable):
    """loop.run_until_complete, bounded."""

    async def bounded():
        return await asyncio.wait_for(awaitable, PATIENCE)

    return loop.run_until_complete(bounded())


async def start(*command, **options):
    """(transport, protocol) of a new child, without pipes unless some are asked for."""
    loop = asyncio.get_running_loop()
    options = {"stdin": None, "stdout": None, "stderr": None, **options}
    return await loop.subprocess_exec(RecordingProcess, *command, **options)


async def finish(*command, **options):
    """The protocol of a child that has ended."""
    transport, protocol = await start(*command, **options)
    await protocol.lost
    transport.close()
    return protocol


async def output_of(*command, **options):
    """(return code, output) of a child, by asyncio.create_subprocess_exec."""
    options = {"stdout": PIPE, "stdin": DEVNULL, **options}
    process = await asyncio.create_subprocess_exec(*command, **options)
    output, _ = await process.communicate()
    return process.returncode, output


@contextlib.contextmanager
def disposition(signum, handler):
    """Have a signal ignored, handled or default for a while."""
    before = signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, before)


@contextlib.contextmanager
def inheritable(count=1):
    """Descriptors that a child without close_fds inherits."""
    fds = [os.open(os.devnull, os.O_RDWR) for _ in range(count)]
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def is_alive(pid):
    """Whether there is a process of that number, dead and unreaped ones included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
