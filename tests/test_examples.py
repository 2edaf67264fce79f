"""examples/: every program there runs, ends by itself and prints what it should."""

import ast
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from children import script_env
from helpers import PATIENCE, WINDOWS

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))

# What the whole output must match, for those whose output is worth checking.
OUTPUT = {
    "chat": r"\* Ada comes in, 1 here\n\* Bob comes in, 2 here\nBob: hello!\n\* Bob leaves\n",
    "echo_streams": r"(\w+), line 0 \| \1, line 1 \| \1, line 2\n"
    r"(\w+), line 0 \| \2, line 1 \| \2, line 2\n",
    "echo_tcp": r"sent 3 bytes, got 3, equal: True\nsent 300000 bytes, got 300000, equal: True\n",
    "echo_udp": r"sent 100 datagrams, got \d+ back\n",
    "starttls": r"plain: go ahead\nTLSv1\.\d: heard: a secret\n",
    "subprocesses": r"ONE\nTWO\nexit status 0\n0 1 4 9 16\n",
    "unix_socket": r"5 words\nfile is gone: True\n",
    "signals": r"reloading\nSIGTERM: ending\nworker: cleaned up\nbye\n",
    "threads": r"digests:( \w{12}){4}\nsleeper: awake\n(from the thread: \d\n){3}.*True\n",
    "timers": r"(.* tick\n)(.*\n)*.* timeout\n100 sleeps of 1 ms: none early: True, .*\n",
}
# Those that serve on the port that is given, until Ctrl-C.
SERVERS = ["chat", "echo_streams", "echo_tcp"]

examples = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def command(path, *args):
    return [sys.executable, "-u", "-W", "error", str(path), *args]


def path_of(name):
    (path,) = (path for path in EXAMPLES if path.stem == name)
    return path


def test_there_are_examples():
    assert {path.stem for path in EXAMPLES} >= {*OUTPUT, *SERVERS}


@examples
@pytest.mark.slow
def test_example_runs(path):
    done = subprocess.run(
        command(path),
        env=script_env("veloop"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    expected = OUTPUT.get(path.stem)
    assert expected is None or re.fullmatch(expected, done.stdout), done.stdout


@examples
def test_example_is_short_and_says_how_to_run_it(path):
    source = path.read_text("utf-8")
    assert len(source.splitlines()) < 60
    assert f"python examples/{path.name}" in ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.skipif(WINDOWS, reason="Ctrl-C can't be sent to one process")
@pytest.mark.slow
def test_server_runs_until_interrupted(name):
    with subprocess.Popen(
        command(path_of(name), "0"),
        env=script_env("veloop"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stdout.readline()
        assert "Ctrl-C to stop" in line
        if match := re.search(r"(\S+):(\d+),", line):
            with socket.create_connection((match[1], int(match[2])), PATIENCE) as client:
                client.sendall(b"hello\n")
                assert client.recv(6) == b"hello\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout, stderr) == (0, "", "")
