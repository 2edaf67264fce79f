"""Run a script, a module, a command or stdin as `python` itself does.

The program finds the sys.argv, sys.path and __main__ it would find there, and leaves with the same
exit status: its exception goes on to the interpreter. Only the traceback is cut, at the last
moment, to begin where it begins without us.
"""

from __future__ import annotations

import builtins
import io
import linecache
import os
import pkgutil
import runpy
import sys
import textwrap
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import ModuleType, TracebackType
from typing import Any


def run_script(path: str, args: list[str]) -> None:
    """Run a file, or a folder or zip archive that has a __main__.py."""
    sys.argv = [path, *args]
    full = _full_path(path)
    if pkgutil.get_importer(full) is not None:
        _set_path(full, also_if_safe=True)
        _new_main()
        with _Outermost():
            runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
        return
    try:
        with io.open_code(full) as file:
            source = file.read()
    except OSError as exc:
        reason = f"[Errno {exc.errno}] {exc.strerror}"
        print(f"{sys.orig_argv[0]}: can't open file {full!r}: {reason}", file=sys.stderr)
        sys.exit(2)
    code = pkgutil.read_code(io.BytesIO(source))
    loader = SourceFileLoader if code is None else SourcelessFileLoader
    names = _new_main(full, loader("__main__", full))
    _set_path(os.path.dirname(full if os.name == "nt" else os.path.realpath(path)))
    with _Outermost():
        exec(code or compile(source, full, "exec", dont_inherit=True), names)


def run_module(name: str, args: list[str]) -> None:
    """Run a module, or a package that has a __main__ module."""
    sys.argv = ["-m", *args]
    _new_main()
    with _Outermost():
        runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def run_command(source: str, args: list[str]) -> None:
    """Run Python code given as text."""
    sys.argv = ["-c", *args]
    _set_path("")
    names = _new_main()
    source += "\n"
    if sys.version_info >= (3, 14):
        source = textwrap.dedent(source)
    with _Outermost():
        code = compile(source, "<string>", "exec", dont_inherit=True)
        if sys.version_info >= (3, 13):  # since then, tracebacks show the code
            key = code if hasattr(linecache, "_getlines_from_code") else "<string>"
            linecache._register_code(key, source, "<string>")  # type: ignore[attr-defined]
        exec(code, names)


def run_stdin(args: list[str]) -> None:
    """Run Python code read from stdin, up to its end also where stdin is a terminal."""
    sys.argv = ["-", *args]
    _set_path("")
    names = _new_main("<stdin>")
    with _Outermost():
        source = sys.stdin.buffer.read() if sys.stdin is not None else b""
        exec(compile(source, "<stdin>", "exec", dont_inherit=True), names)


def _full_path(path: str) -> str:
    """The script's path as `python` makes it absolute: normalised on Windows only."""
    if os.name == "nt":
        return os.path.abspath(path)
    try:
        return os.path.join(os.getcwd(), path)
    except OSError:  # the working directory was removed
        return path


def _set_path(first: str, also_if_safe: bool = False) -> None:
    """Put `first` where `-m` has put the working directory: at the head of sys.path."""
    if sys.flags.safe_path and not also_if_safe:
        return
    if not sys.flags.safe_path and sys.path[:1] == [_working_directory()]:
        del sys.path[0]
    sys.path.insert(0, first)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def _new_main(file: str | None = None, loader: Any = BuiltinImporter) -> dict[str, Any]:
    """Replace our __main__ module by one as it is when a program starts; return its names."""
    main = ModuleType("__main__")
    names = vars(main)
    names["__loader__"] = loader
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
    if file is not None:
        names["__file__"] = file
        if sys.version_info < (3, 15):
            names["__cached__"] = None
    sys.modules["__main__"] = main
    if "__mp_main__" in sys.modules:  # what multiprocessing calls it
        sys.modules["__mp_main__"] = main
    return names


class _Outermost:
    """A block whose exceptions are printed as if there were no frame outside of it.

    Python itself adds the frames outside while the exception passes them, so nothing can be cut
    before the very end: a sys.excepthook of ours, put there only when the program is over, cuts
    the traceback and hands it to the program's own hook.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is None or (isinstance(exc, SystemExit) and not sys.flags.inspect):
            return
        while tb is not None and tb.tb_frame.f_globals is globals():
            tb = tb.tb_next
        hook = getattr(sys, "excepthook", None)

        def excepthook(
            kind: type[BaseException], value: BaseException, whole: TracebackType | None
        ) -> None:
            if hook is None:  # the program has deleted it
                del sys.excepthook
                print("sys.excepthook is missing", file=sys.stderr)
            else:
                sys.excepthook = hook
            if value is exc:
                value.__traceback__ = sys.last_traceback = whole = tb
            (hook or sys.__excepthook__)(kind, value, whole)

        sys.excepthook = excepthook
