"""conftest.py: what a test must not leave behind is found, and named. Each case is a pytest run.

The cases run on the loop kind that the outer test has, so the guards are known to work on both.
"""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from children import script_env
from helpers import LINUX, PATIENCE

HERE = Path(__file__).parent


def run_pytest(folder, *options, env):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )


@pytest.fixture
def inner(tmp_path, loop_kind):
    """Run a test module of that text under our conftest; its output, and whether it passed."""

    def run(source):
        for name in ("conftest.py", "helpers.py", "children.py"):
            shutil.copy(HERE / name, tmp_path)
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        header = "import asyncio, gc, os, signal, socket, sys, threading, pytest\n"
        (tmp_path / "test_inner.py").write_text(header + textwrap.dedent(source))
        done = run_pytest(tmp_path, "-k", loop_kind, env=script_env(loop_kind))
        return done.returncode == 0, done.stdout + done.stderr

    return run


def test_orderly_test_passes(inner):
    passed, output = inner("""
        def test_it(loop):
            assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1
    """)
    assert passed, output
    assert "1 passed" in output


CULPRITS = {
    "unhandled exception": (
        "loop.call_soon(lambda: 1 / 0); loop.call_soon(loop.stop); loop.run_forever()",
        "nobody expected",
    ),
    "exception never retrieved": (
        "loop.create_future().set_exception(ValueError('lost'))",
        "never retrieved",
    ),
    "error logged": (
        "loop.set_exception_handler(None); loop.call_exception_handler({'message': 'oops'})",
        "oops",
    ),
    "pending task": (
        "loop.tasks = [loop.create_task(asyncio.sleep(3600))]",
        "tasks still pending",
    ),
    "leaked descriptor": ("os.dup(0)", "file descriptors left open"),
    "unclosed socket": ("sock = socket.socket(); sock = None", "unclosed <socket"),
    "unclosed loop": ("type(loop)(); gc.collect()", "unclosed event loop"),
    "coroutine never awaited": ("asyncio.sleep(1)", "never awaited"),
    "signal handler": (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "process state changed",
    ),
    "wakeup descriptor": ("signal.set_wakeup_fd(PIPE[1])", "process state changed"),
    "running loop": ("asyncio._set_running_loop(loop)", "another loop is running"),
    "thread": (
        "threading.Thread(target=threading.Event().wait, args=(1000,), daemon=True).start()",
        "threads left behind",
    ),
}
if LINUX:  # other systems do not tell
    CULPRITS["child process"] = (
        "os.spawnlp(os.P_NOWAIT, 'true', 'true')",
        "child processes left behind",
    )


@pytest.mark.parametrize(("statement", "complaint"), CULPRITS.values(), ids=CULPRITS)
def test_culprit_is_found(inner, statement, complaint):
    passed, output = inner(f"""
        import helpers
        for leaked in (helpers.leaked_fds, helpers.leaked_threads, helpers.leaked_children):
            leaked.__defaults__ = (0.1,)
        PIPE = os.pipe()
        os.set_blocking(PIPE[1], False)

        async def wait(loop):
            await loop.create_future()

        def test_it(loop):
            {statement}
    """)
    assert not passed, output
    assert complaint in output


def test_expected_error_is_no_culprit(inner):
    passed, output = inner("""
        def test_it(loop, loop_errors, asyncio_log):
            loop.call_soon(lambda: 1 / 0)
            loop.call_soon(loop.stop)
            loop.run_forever()
            assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)
            loop.set_exception_handler(None)
            loop.call_exception_handler({"message": "logged"})
            assert asyncio_log.take_one().getMessage() == "logged"
    """)
    assert passed, output


def test_unclosed_transport_is_found(inner):
    passed, output = inner("""
        import helpers
        helpers.leaked_fds.__defaults__ = (0.1,)

        @pytest.fixture
        def listener():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                yield listener

        def test_it(listener, loop):
            loop.run_until_complete(
                loop.create_connection(asyncio.Protocol, *listener.getsockname())
            )
    """)
    assert not passed, output
    assert "unclosed transport" in output


@pytest.mark.veloop_only("there are no libuv handles to leak")
def test_libuv_handle_that_stays_open_is_found(inner):
    passed, output = inner("""
        @pytest.fixture
        def sock():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                yield sock

        def test_it(sock, loop):
            loop.add_reader(sock, print)
    """)
    assert not passed, output
    assert "libuv handles still open" in output


def test_marks_skip_only_the_stock_half(inner, loop_kind):
    passed, output = inner("""
        @pytest.mark.stock_since("99.0", "not yet")
        def test_newer(loop):
            pass

        @pytest.mark.veloop_only("never")
        def test_only(loop):
            pass

        @pytest.mark.stock_since("3.11", "long ago")
        def test_older(loop):
            pass

        @pytest.mark.stock_unless(True, "always")
        def test_faulty(loop):
            pass

        @pytest.mark.stock_unless(False, "never")
        def test_sound(loop):
            pass
    """)
    assert passed, output
    assert ("2 passed, 3 skipped" if loop_kind == "asyncio" else "5 passed") in output


def test_missing_veloop_is_an_error_and_not_a_skip(tmp_path):
    for name in ("conftest.py", "helpers.py", "children.py"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "veloop.py").write_text("raise ImportError('not built')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_inner.py").write_text("def test_it(loop):\n    pass\n")
    done = run_pytest(tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode != 0
    assert "1 passed, 1 error" in done.stdout
