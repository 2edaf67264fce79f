"""__main__.py, _main/program.py: -m, -c, stdin, options of python; processes and signals."""

import signal
import subprocess
import sys

import pytest

from children import script_env
from helpers import PATIENCE, PYPY, WINDOWS
from main_helpers import PRINT_ARGV, VELOOP, check_same, without_carets, without_loop_frames, write

# Every test starts interpreters.
pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------ -m


@pytest.fixture
def package(folder):
    write("app/__init__.py", "print('package', __name__, __import__('sys').argv)")
    write("app/__main__.py", "from . import other; print('main of', __package__)")
    write("app/other.py", "value = 1")
    write("app/inner/__init__.py", "")
    write(
        "app/inner/tool.py",
        """
        import sys
        from ..other import value
        from . import helper
        if __name__ == "__main__":
            print(value, helper.value, sys.argv, sys.path[0], __package__, __spec__.name, __file__)
            if "fail" in sys.argv:
                helper.fail()
        """,
    )
    write("app/inner/helper.py", "value = 2\ndef fail(): 1 / 0")
    write("app/inner/broken.py", "def f(:")
    write("single.py", "import sys; print(sys.argv); sys.exit(6)")


@pytest.mark.parametrize(
    ("args", "expected", "status"),
    [
        (["app"], "main of app", 0),
        (["app.inner.tool", "a", "-m"], "1 2", 0),
        (["app.inner.tool", "fail"], "ZeroDivisionError", 1),
        (["single", "a"], "single.py', 'a']", 6),
        (["app.inner"], "cannot be directly executed", 1),
        (["app.inner.broken"], "SyntaxError", 1),
        (["app.nosuch"], "No module named app.nosuch", 1),
        (["nosuch"], "No module named nosuch", 1),
        (["single.py"], "['-m']", None),
        ([".app"], "Relative module names", 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_module(package, args, expected, status):
    done = check_same("-m", *args)
    assert expected in done.stdout + done.stderr
    assert status is None or done.returncode == status


def test_module_joined_to_its_option(package):
    assert check_same("-msingle", "a").returncode == 6


# ------------------------------------------------------------ -c


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (PRINT_ARGV, 0),
        ("def f():\n    raise ValueError('in a function')\nf()", 1),
        ("x = (", 1),
        ("", 0),
        ("import sys; sys.exit('text')", 1),
        ("print(sorted(globals().items(), key=str))", 0),
        ("import __main__; x = 1; print(__main__.x)", 0),
        ("  print('indented')\n  1 / 0", 1),
        ("print(ascii('\xe4\u20ac'))", 0),
    ],
)
def test_command(folder, code, status):
    done = check_same("-c", code, "a", "-c", "--help")
    assert done.returncode == status
    if code is PRINT_ARGV:
        assert "['-c', 'a', '-c', '--help'] __main__" in done.stdout


def test_command_joined_to_its_option(folder):
    assert check_same("-cprint(1)").stdout == "1\n"


# ------------------------------------------------------------ stdin


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (PRINT_ARGV, 0),
        ("def f():\n    1 / 0\nf()\n", 1),
        ("x = (\n", 1),
        ("", 0),
        ("import sys\nprint(sys.stdin.read() == '')", 0),
        ("print(sorted(globals().items(), key=str))", 0),
    ],
)
def test_stdin(folder, code, status):
    done = check_same("-", "a", "--demo", stdin=code)
    assert done.returncode == status
    if code is PRINT_ARGV:
        assert "['-', 'a', '--demo'] __main__" in done.stdout


# ------------------------------------------------------------ options of python


@pytest.mark.parametrize(
    ("options", "source", "status"),
    [
        (["-W", "error"], "import warnings; warnings.warn('careful')", 1),
        (["-W", "error"], "import sys; print(sys.warnoptions)", 0),
        (["-W", "ignore"], "import warnings; warnings.warn('careful')", 0),
        (["-W", "error"], "x = 1\nprint(x is 1)", 1),
        (["-O"], "assert False; print(__debug__)", 0),
        (["-P"], "import sys; print(sys.path); import beside", 1),
        (["-X", "dev"], "import sys; print(sys.flags); open('prog.py')", 0),
        (["-B", "-u"], "import sys; print(sys.flags)", 0),
    ],
    ids=str,
)
def test_options_of_python(folder, options, source, status):
    write("prog.py", source)
    write("beside.py", "")
    assert check_same("prog.py", options=options).returncode == status


def test_safe_path_by_environment(folder):
    write("app/__main__.py", "import beside, sys; print(sys.path[0])")
    write("app/beside.py", "")
    write("prog.py", "import sys; print(sys.path); import app")
    env = {"PYTHONSAFEPATH": "1"}
    assert check_same("app", env=env).returncode == 0
    assert check_same("prog.py", env=env).returncode == 1
    assert check_same("-c", "import sys; print(sys.path)", env=env).returncode == 0
    assert check_same("-", env=env, stdin="import sys; print(sys.path)").returncode == 0


@pytest.mark.skipif(PYPY, reason="its prompt goes elsewhere")
@pytest.mark.parametrize("source", ["x = 5", "x = 5; 1 / 0", "x = 5; raise SystemExit(1)"])
def test_inspect_after_the_program(folder, source):
    write("prog.py", source)
    done = check_same("prog.py", options=["-i"], stdin="print(x, __name__)\n")
    assert "5 __main__" in done.stdout


# ------------------------------------------------------------ processes


MULTIPROCESSING = """
import multiprocessing, sys

class Point:
    def __init__(self, x): self.x = x

def double(point): return Point(2 * point.x)

def show(): print("child", __name__, sys.argv, flush=True)

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        print([point.x for point in pool.map(double, [Point(1), Point(2)])], flush=True)
    child = context.Process(target=show)
    child.start()
    child.join()
    print(child.exitcode)
"""
METHODS = ["spawn"] if WINDOWS else ["spawn", "forkserver", "fork"]


@pytest.mark.parametrize("method", METHODS)
def test_multiprocessing_of_a_script(folder, method):
    write("prog.py", MULTIPROCESSING.format(method=method))
    done = check_same("prog.py", "arg")
    assert "[2, 4]" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("method", METHODS)
def test_multiprocessing_of_a_module(folder, method):
    write("app/__init__.py", "")
    write("app/prog.py", MULTIPROCESSING.format(method=method))
    assert "[2, 4]" in check_same("-m", "app.prog", "arg").stdout


# ------------------------------------------------------------ signals


def interrupted(*args, source):
    """(exit status, stderr) of a program that got SIGINT when it had printed a line."""
    write("prog.py", source)
    with subprocess.Popen(
        [sys.executable, *args, "prog.py"],
        env=script_env("veloop"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)
        return process.returncode, stderr


@pytest.mark.skipif(WINDOWS, reason="no signal can be sent to one process")
@pytest.mark.parametrize(
    "source",
    [
        # On one line, for nobody knows how far it gets.
        "import time; print('ready', flush=True); time.sleep(60)",
        """
        import asyncio
        async def main():
            print("ready", flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
        """,
        """
        import signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("ready", flush=True)
        signal.pause()
        """,
        """
        import signal, sys
        signal.signal(signal.SIGINT, lambda *args: sys.exit(9))
        print("ready", flush=True)
        signal.pause()
        """,
    ],
    ids=["time.sleep", "asyncio.run", "default action", "own handler"],
)
def test_interrupt(folder, source):
    status, stderr = interrupted(source=source)
    our_status, our_stderr = interrupted(*VELOOP, source=source)
    assert our_status == status
    stderr, our_stderr = map(without_carets, (stderr, our_stderr))
    assert without_loop_frames(our_stderr) == without_loop_frames(stderr)
    assert status in (-signal.SIGINT, 9)
