"""Child interpreters for tests that must not take pytest down with them: aborts, signals, options.

`run_script` runs a child to its end, `Script` talks to one. Both give the child the names
`new_event_loop` and `run` of the loop under test, and both bound its life.
"""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from helpers import PATIENCE, import_veloop, wait_until_idle

_PRELUDE = """
import asyncio, faulthandler, os, signal, socket, sys, threading
faulthandler.enable()
KIND = {kind!r}
if KIND == "veloop":
    import veloop
    new_event_loop = veloop.new_event_loop
    run = veloop.run
else:
    new_event_loop = asyncio.SelectorEventLoop
    run = asyncio.run
"""


def script_env(kind, **extra):
    """The environment for a child that can import what the tests can."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    if kind == "veloop":
        source = str(Path(import_veloop().__file__).resolve().parent.parent)
        env["PYTHONPATH"] = source
    env.update(extra)
    return env


def script_command(kind, source, *options):
    """The command line of a child that has `new_event_loop` and `run` of that kind at hand."""
    text = _PRELUDE.format(kind=kind) + textwrap.dedent(source)
    return [sys.executable, "-u", *options, "-c", text]


def run_script(kind, source, *options, env=None, check=True):
    """Run such a child to its end; CompletedProcess with text output.

    A child that dies (an abort of libuv, a segfault) fails the test with its output.
    """
    done = subprocess.run(
        script_command(kind, source, "-W", "error", *options),
        env=script_env(kind, **(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"exit code {done.returncode}\n-- stdout\n{done.stdout}\n-- stderr\n{done.stderr}"
        )
    return done


class Script:
    """A child that is talked to: `expect(line)` reads its output, `signal` hits it, `finish` ends.

    For tests of signals: the child prints a line when it is where the signal shall find it.
    """

    def __init__(self, kind, source, *options, env=None):
        self._process = subprocess.Popen(
            script_command(kind, source, *options),
            env=script_env(kind, **(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # The whole conversation is bounded, also where the child hangs.
        self._watchdog = threading.Timer(PATIENCE, self._process.kill)
        self._watchdog.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._watchdog.cancel()
        self._watchdog.join()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()

    def expect(self, line):
        got = self._process.stdout.readline().rstrip("\n")
        if got != line:
            rest = self._process.stdout.read()
            raise AssertionError(
                f"expected {line!r}, got {got!r}\n{rest}\n{self._process.stderr.read()}"
            )

    def signal(self, signum):
        self._process.send_signal(signum)

    def wait_idle(self):
        wait_until_idle(self._process.pid, self._process.pid)

    def finish(self):
        """(exit code, rest of stdout, stderr), when the child has ended by itself."""
        stdout, stderr = self._process.communicate()
        if not self._watchdog.is_alive():
            raise AssertionError(f"the child hung\n-- stdout\n{stdout}\n-- stderr\n{stderr}")
        return self._process.returncode, stdout, stderr
