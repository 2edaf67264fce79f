"""examples/: every program runs, ends by itself, prints what it should, with asyncio the same."""

import ast
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from children import script_env
from helpers import PATIENCE, WINDOWS

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
POSIX = {"subprocesses", "unix_socket"}  # programs and sockets that Windows lacks

# What the whole output must match.
OUTPUT = {
    "chat": r"\* Ada comes in, 1 here\n\* Bob comes in, 2 here\nBob: hello!\n\* Bob leaves\n",
    "echo_streams": r"(\w+), line 0 \| \1, line 1 \| \1, line 2\n"
    r"(\w+), line 0 \| \2, line 1 \| \2, line 2\n",
    "echo_tcp": r"sent 3 bytes, got 3, equal: True\nsent 300000 bytes, got 300000, equal: True\n",
    "echo_udp": r"sent 100 datagrams, got \d+ back\n",
    "loops": r"current: True\na callback\nresult: 8\nclosed: True\n"
    r"from another thread: \[0, 2, 4\]\nthe same loop: True\n",
    "primitives": r"balance: 45 locked: False\nbefore the start: \[\]\n"
    r"A runs, B runs, C runs; places: \[0, 1, 2\]\nbought: a loaf\n"
    r"error: BoundedSemaphore released too many times\n",
    "starttls": r"plain: go ahead\n"
    r"(TLSv1\.\d): nobody else listens now\n\1: heard: a secret\n",
    "subprocesses": r"ONE\nTWO\nexit status 0\n0 1 4 9 16\nthe shell said 3\n",
    "unix_socket": r"5 words\nfile is gone: True\n",
    "signals": r"reloading\nSIGTERM: ending\nworker: cleaned up\nbye\n",
    "threads": r"digests:( \w{12}){4}\nsleeper: awake\n(from the thread: \d\n){3}.*True\n",
    "waiting": r"all: \['a', 'b', 'c'\]\nthe first: \['quick'\] pending: 1\n"
    r"the other was cancelled: True\nas they end: 1 2 3\ntoo late\nin time: yes\nexpired: False\n"
    r"shielded: saved\nalone again: True True\n",
    "workers": r"1: \w+ had to put out the fire\n2: \w+ had to answer the phone\n"
    r"3: \w+ had to sweep\nfirst in, first out: 0 1 2 3 4\nlast in, first out: 2 1 0\n",
    "timers": r"(.* tick\n)(.*\n)*.* timeout\n100 sleeps of 1 ms: none early: True, .*\n",
}
# Those that serve on the port that is given, until Ctrl-C.
SERVERS = ["chat", "echo_streams", "echo_tcp"]

examples = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
here = pytest.mark.parametrize(
    "path",
    [path for path in EXAMPLES if not (WINDOWS and path.stem in POSIX)],
    ids=lambda path: path.stem,
)


def command(path, *args):
    return [sys.executable, "-u", "-W", "error", str(path), *args]


def path_of(name):
    (path,) = (path for path in EXAMPLES if path.stem == name)
    return path


# Each example begins so, and does the same when it begins with the stock module.
IMPORT = "import veloop as asyncio\n"
STOCK_SINCE = {
    "chat": ((3, 12), "it reports a client's task that is cancelled as an error"),
    "unix_socket": ((3, 13), "cleanup_socket= of create_unix_server"),
}

# What the examples show between them, of asyncio's names that programs use every day.
NAMES = set(
    """
    all_tasks as_completed BoundedSemaphore CancelledError Condition create_subprocess_exec
    create_task current_task Event gather get_event_loop get_running_loop LifoQueue Lock
    new_event_loop open_connection PriorityQueue Queue run run_coroutine_threadsafe Semaphore
    set_event_loop shield sleep start_server StreamReader StreamReaderProtocol Task timeout
    TimeoutError to_thread wait wait_for Barrier TaskGroup Runner create_subprocess_shell
    open_unix_connection ensure_future Protocol DatagramProtocol subprocess
    """.split()
)


def test_there_are_examples():
    assert {path.stem for path in EXAMPLES} == {*OUTPUT}
    assert {*SERVERS} <= {*OUTPUT}
    text = "".join(path.read_text("utf-8") for path in EXAMPLES)
    assert set(re.findall(r"\basyncio\.(\w+)", text)) >= NAMES


def check(path):
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
    assert re.fullmatch(OUTPUT[path.stem], done.stdout), done.stdout


@here
@pytest.mark.slow
def test_example_runs(path):
    assert IMPORT in path.read_text("utf-8")
    check(path)


@here
@pytest.mark.slow
def test_example_does_the_same_with_asyncio(path, tmp_path):
    version, reason = STOCK_SINCE.get(path.stem, ((3, 11), ""))
    if sys.version_info < version:
        pytest.skip(f"stock asyncio only since {version}: {reason}")
    shutil.copytree(path.parent.parent / "tests" / "certs", tmp_path / "tests" / "certs")
    copy = tmp_path / "examples" / path.name
    copy.parent.mkdir()
    copy.write_text(path.read_text("utf-8").replace(IMPORT, "import asyncio\n"), "utf-8")
    check(copy)


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
