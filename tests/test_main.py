"""__main__.py, _main/program.py: python -m veloop runs programs as python does.

Most tests run a program twice, with `python PROGRAM` and with `python -m veloop PROGRAM`, and want
the same stdout, the same stderr and the same exit status.
"""

import os
import py_compile
import sys
import zipfile
from pathlib import Path

import pytest

from helpers import PYPY, WINDOWS, import_veloop
from main_helpers import PRINT_ARGV, check_same, veloop, without_loop_frames, write

# Every test starts interpreters.
pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------ the same as python

# name -> (source of prog.py, a text that must be in its output or None, exit status)
SCRIPTS = {
    "nothing": ("", None, 0),
    "output": ("print('hello')", "hello", 0),
    "exception": (
        """
        def deep(n):
            if n == 0:
                raise ValueError("at the bottom")
            deep(n - 1)
        deep(3)
        """,
        "ValueError: at the bottom",
        1,
    ),
    "exception with a cause": (
        """
        try:
            {}["key"]
        except KeyError as exc:
            raise RuntimeError("second") from exc
        """,
        "direct cause",
        1,
    ),
    "exception group": (
        """
        def fail(exc):
            raise exc
        errors = []
        for exc in ValueError(1), TypeError(2):
            try:
                fail(exc)
            except Exception as error:
                errors.append(error)
        raise ExceptionGroup("several", errors)
        """,
        "ExceptionGroup: several",
        1,
    ),
    "exception of C code": ("import json; json.loads('[')", "JSONDecodeError", 1),
    "exit with a number": ("import sys; print('out'); sys.exit(3)", "out", 3),
    "exit with a text": ("raise SystemExit('text of the exit')", "text of the exit", 1),
    "exit without a value": ("import sys; sys.exit()", None, 0),
    "exit while handling": (
        """
        try:
            1 / 0
        finally:
            raise SystemExit(4)
        """,
        None,
        4,
    ),
    "hard exit": ("import os, sys; print('out'); sys.stdout.flush(); os._exit(5)", "out", 5),
    "syntax error": ("x = 1\ndef f(:\n    pass\n", "SyntaxError", 1),
    "indentation error": ("if 1:\nx = 1\n", "IndentationError", 1),
    "syntax error in a module": ("import broken", "SyntaxError", 1),
    "missing module": ("import nosuchmodule", "nosuchmodule", 1),
    "unraisable": (
        """
        class Bad:
            def __del__(self):
                raise ValueError("in the finalizer")
        Bad()
        import gc; gc.collect()
        print("still here")
        """,
        "still here",
        0,
    ),
    "unraisable at exit": (
        """
        class Bad:
            def __del__(self):
                raise ValueError("in the finalizer")
        bad = Bad()
        """,
        None,
        0,
    ),
    "exception in a thread": (
        """
        import threading
        def fail():
            raise ValueError("in the thread")
        thread = threading.Thread(target=fail, name="T")
        thread.start()
        thread.join()
        """,
        "in the thread",
        0,
    ),
    "thread that outlives the main thread": (
        """
        import threading
        event = threading.Event()
        def wait():
            threading.main_thread().join()
            print("last")
        threading.Thread(target=wait).start()
        raise ValueError("first")
        """,
        "last",
        1,
    ),
    "exit handlers": (
        """
        import atexit, sys
        atexit.register(lambda: print("bye", sys.excepthook is sys.__excepthook__))
        raise ValueError("before")
        """,
        "bye True",
        1,
    ),
    "exception hook": (
        """
        import sys, traceback
        def hook(kind, value, tb):
            print(kind, value, traceback.extract_tb(tb), value.__traceback__ is tb)
            print(sys.last_value is value, sys.last_traceback is tb, sys.excepthook is hook)
        sys.excepthook = hook
        def fail():
            raise ValueError("for the hook")
        fail()
        """,
        "True True True",
        1,
    ),
    "exception hook that exits": (
        """
        import sys
        def hook(*args):
            sys.exit(7)
        sys.excepthook = hook
        raise ValueError
        """,
        None,
        7,
    ),
    "no exception hook": ("import sys; del sys.excepthook; 1 / 0", "hook is missing", 1),
    "import __main__": (
        """
        import __main__, sys
        x = 42
        print(__main__.x, __main__ is sys.modules["__main__"], vars(__main__) is globals())
        """,
        "42 True True",
        0,
    ),
    "names of the main module": (
        """
        print(sorted((name, value) for name, value in globals().items() if name != "__loader__"))
        print(type(__loader__).__name__, __loader__.name, __loader__.path.endswith("prog.py"))
        """,
        "('__spec__', None)",
        0,
    ),
    "argv and path": (
        "import sys; print(sys.argv, sys.path, sys.flags, sys.dont_write_bytecode)",
        "['prog.py']",
        0,
    ),
    "module beside the script": ("import beside; print(beside.__file__)", "beside.py", 0),
    "pickling": (
        """
        import pickle
        class Point:
            def __init__(self, x): self.x = x
        data = pickle.dumps(Point(3))
        print(b"__main__" in data, pickle.loads(data).x, Point)
        """,
        "True 3 <class '__main__.Point'>",
        0,
    ),
    "annotations and docstring": (
        '"""The doc."""\nx: int = 1\nimport sys, typing\n'
        "print(__doc__, typing.get_type_hints(sys.modules['__main__']))",
        "The doc.",
        0,
    ),
    "future import": (
        "from __future__ import annotations\ndef f(x: nosuch): pass\nprint(f.__annotations__)",
        "nosuch",
        0,
    ),
    "no future import": ("def f(x: 1 + 1): pass\nprint(f.__annotations__)", "{'x': 2}", 0),
    "warning": ("import warnings\nwarnings.warn('careful')\nprint('after')", "careful", 0),
    "warning of the compiler": ("x = 1\nprint(x is 1)", "SyntaxWarning", 0),
    "encoding declaration": ("# -*- coding: latin-1 -*-\nprint(ascii('\xe4'))", "xc3", 0),
    "main guard": ("if __name__ == '__main__': print('guarded')", "guarded", 0),
    "exec in the script": ("exec(compile('1/0', 'made-up', 'exec'))", "made-up", 1),
    "stdin is the program's": ("import sys; print(sys.stdin.read())", "", 0),
    "assert": ("assert 1 > 2, 'impossible'", "impossible", 1),
    "KeyboardInterrupt": ("raise KeyboardInterrupt('by hand')", "KeyboardInterrupt", None),
    "GeneratorExit": ("raise GeneratorExit", "GeneratorExit", 1),
}


# CPython's command line is the model also on PyPy, whose own differs in small ways.
PYPY_DIFFERS = pytest.mark.skipif(PYPY, reason="PyPy's own command line does this in another way")
ON_PYPY = {"exception hook that exits": PYPY_DIFFERS, "no exception hook": PYPY_DIFFERS}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=ON_PYPY.get(name, ())) for name in SCRIPTS]
)
def test_script(folder, name):
    source, expected, status = SCRIPTS[name]
    write("prog.py", source)
    write("broken.py", "def f(:\n")
    write("beside.py", "")
    done = check_same("prog.py")
    if expected is not None:
        assert expected in done.stdout + done.stderr
    if status is not None:
        assert done.returncode == status
    assert str(Path(import_veloop().__file__).parent) not in done.stderr
    assert "runpy" not in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["a", "b c", ""],
        ["-c", "print(1)"],
        ["-m", "json.tool"],
        ["--help"],
        ["--version"],
        ["--demo", "--"],
        ["-"],
    ],
    ids=" ".join,
)
def test_arguments_after_the_script_are_its_own(folder, args):
    write("prog.py", PRINT_ARGV)
    assert repr(["prog.py", *args]) in check_same("prog.py", *args).stdout


def test_script_in_another_folder(folder):
    write("sub/prog.py", "import beside, sys; print(sys.path[0], __file__); 1 / 0")
    write("sub/beside.py", "print(__file__)")
    write("beside.py", "print('the wrong one')")
    for path in ("sub/prog.py", str(folder / "sub/prog.py")):
        assert "wrong" not in check_same(path).stdout


@PYPY_DIFFERS
def test_path_of_a_script_is_not_normalised(folder):
    write("sub/prog.py", "import sys; print(sys.path[0], __file__); 1 / 0")
    for path in ("./sub/prog.py", "sub/../sub/prog.py"):
        assert path in check_same(path).stdout or WINDOWS


@pytest.mark.skipif(WINDOWS, reason="making a symlink needs a privilege")
def test_symlink_to_a_script(folder):
    write("real/prog.py", "import beside, sys; print(sys.path[0], __file__)")
    write("real/beside.py", "")
    os.symlink("real/prog.py", "link.py")
    assert "real" in check_same("link.py").stdout


def test_compiled_script(folder):
    write("prog.py", "import sys\nprint(__file__, type(__loader__))\n1 / 0")
    py_compile.compile("prog.py", "prog.pyc")
    os.remove("prog.py")
    assert "SourcelessFileLoader" in check_same("prog.pyc").stdout


@PYPY_DIFFERS
def test_compiled_script_of_any_name(folder):
    write("prog.py", "1 / 0")
    py_compile.compile("prog.py", "prog.bin")
    assert "ZeroDivisionError" in check_same("prog.bin").stderr


def test_missing_script(folder):
    done = check_same("nosuch.py", "arg", clean=lambda text: text.replace("'", ""))
    assert done.returncode == 2
    assert "can't open file" in done.stderr


@pytest.mark.skipif(WINDOWS or os.geteuid() == 0, reason="everybody may read everything")
def test_unreadable_script(folder):
    write("prog.py", "")
    os.chmod("prog.py", 0)
    assert "Permission denied" in check_same("prog.py").stderr


def test_folder_with_a_main_module(folder):
    write("app/__main__.py", PRINT_ARGV + "; import beside; beside.fail()")
    write("app/beside.py", "def fail(): 1 / 0")
    done = check_same("app", "arg")
    assert "['app', 'arg'] __main__" in done.stdout
    assert done.returncode == 1


def test_zip_archive_with_a_main_module(folder):
    with zipfile.ZipFile("app.zip", "w") as archive:
        archive.writestr("__main__.py", PRINT_ARGV + "; import beside; beside.fail()")
        archive.writestr("beside.py", "def fail(): 1 / 0")
    done = check_same("app.zip", "arg")
    assert "['app.zip', 'arg'] __main__" in done.stdout


def test_folder_without_a_main_module(folder):
    os.mkdir("app")
    done = check_same("app")
    assert done.returncode == 1
    assert "can't find '__main__' module" in done.stderr


# ------------------------------------------------------------ asyncio programs


def test_traceback_of_an_asyncio_program(folder):
    write(
        "prog.py",
        """
        import asyncio
        async def inner():
            await asyncio.sleep(0)
            raise ValueError("in a task")
        async def main():
            async with asyncio.TaskGroup() as group:
                group.create_task(inner())
        asyncio.run(main())
        """,
    )
    done = check_same("prog.py", clean=without_loop_frames)
    assert "ValueError: in a task" in done.stderr
    assert done.returncode == 1


def test_stream_program(folder):
    write(
        "prog.py",
        """
        import asyncio
        async def serve(reader, writer):
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()
        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            async with server:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"hello\\n")
                print(await reader.read())
                writer.close()
                await writer.wait_closed()
        asyncio.run(main(), debug=True)
        """,
    )
    assert check_same("prog.py").stdout == "b'HELLO\\n'\n"


# ------------------------------------------------------------ the command line


def test_version():
    module = import_veloop()
    done = veloop("--version")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["veloop"] == module.__version__
    assert lines["libuv"] == module.libuv_version
    assert lines["Python"].split()[0] == sys.version.split()[0].rstrip("+")
    assert lines["accelerator"] in ("yes", "no")
    assert (done.stderr, done.returncode) == ("", 0)
    assert veloop("-V").stdout == done.stdout


def test_version_without_the_accelerator():
    assert "accelerator  no" in veloop("--version", env={"VELOOP_PURE": "1"}).stdout


def test_help():
    done = veloop("--help")
    assert done.stdout.startswith("usage: python -m veloop SCRIPT")
    assert (done.stderr, done.returncode) == ("", 0)
    assert veloop("-h").stdout == done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "nothing to run"),
        (["-m"], "argument expected for the -m option"),
        (["-c"], "argument expected for the -c option"),
        (["--nosuch"], "unknown option '--nosuch'"),
        (["-W", "error", "prog.py"], "unknown option '-W'; options of Python go before"),
        (["--version", "more"], "--version takes no argument, got 'more'"),
        (["--demo", "5"], "--demo takes no argument, got '5'"),
    ],
    ids=str,
)
def test_bad_usage(folder, args, message):
    done = veloop(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("usage: python -m veloop SCRIPT")
    assert f"python -m veloop: error: {message}" in done.stderr
