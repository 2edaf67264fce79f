"""Unix signals and Ctrl-C.

Python's own C handler stays installed for every signal: it notes the signal and writes its
number to a wakeup descriptor, which libuv watches. So whatever signal arrives, also while the
loop sleeps, ends the sleep; the interpreter then runs the Python-level handler (that is how
KeyboardInterrupt comes), and the numbers read lead to the handlers of add_signal_handler.

In a flood of signals the descriptor may have no room for a number. The Python-level handler of ours
looks for that, so that then, too, each handler is called after the last signal of its kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import select
import signal
import socket
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._uv import IS_PYPY, lib
from .._uv.errors import check
from .._uv.events import SIGNALS, Driver
from .debug import logger
from .handles import Handle, TimerHandle, trace

if TYPE_CHECKING:
    from .core import Core

# PyPy's C handler ends the main thread's count of bytecodes, so that it looks for signals. If
# another thread counts at that moment, this is undone, and the loop would sleep before anybody
# looks. A call that changes no mask looks, too.
_run_python_handlers = getattr(signal, "pthread_sigmask", None) if IS_PYPY else None


_noted: set[int] = set()
_is_checking = False


def _caught(signum: int, frame: object) -> None:
    """Python's C handler has written the number to the wakeup descriptor, if there was room.

    In a flood this is interrupted by itself: what comes then is left to the first call, for else
    they would lie one in the other until the stack is full.
    """
    global _is_checking
    _noted.add(signum)
    if _is_checking:
        return
    while _noted:
        _is_checking = True
        try:
            while _noted:  # one that came before the line above has seen to all of them
                number = _noted.pop()
                for signals in list(_all):
                    signals._check_room(number)
        finally:
            _is_checking = False


class Signals:
    __slots__ = (
        *("__weakref__", "_before", "_before_file", "_driver", "_maybe_lost", "_pair", "_ready"),
        *("_running", "handlers"),
    )

    def __init__(self, driver: Driver, ready: deque[Handle | TimerHandle]) -> None:
        self._driver = driver
        self._ready = ready
        self._pair: _Pair = None
        self._before: int | None = None  # the wakeup descriptor of before we took it
        self._before_file: _File = None  # and what it was
        self._running = False  # in the main thread
        self._maybe_lost: set[int] = set()
        self.handlers: dict[int, Handle] = {}

    # ------------------------------------------------------------ the wakeup descriptor

    def _write_end(self) -> int:
        if self._pair is None:
            pair = _open_pair()
            try:
                check(lib.vl_signals_watch(self._driver.pointer, pair[0]))
            except BaseException:
                _close_pair(pair)
                raise
            self._driver.targets[SIGNALS] = self._on_event
            self._pair = pair
        return self._pair[1]

    def _take(self) -> bool:
        """Have the wakeup descriptor, and remember whose it was; False outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return False
        ours = self._write_end()
        try:
            before = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        except ValueError:  # the main thread of an interpreter that is not the main one
            return False
        if before != ours:
            self._before = before
            self._before_file = _file_of(before)
        return True

    def _give_back(self) -> None:
        """Nothing needs the wakeup descriptor any more: let the program have it again."""
        if self._running or self.handlers or self._before is None:
            return
        before, self._before = self._before, None
        try:
            current = signal.set_wakeup_fd(before)
            if self._pair is None or current != self._pair[1]:
                signal.set_wakeup_fd(current)  # somebody else has taken it meanwhile
        except (ValueError, OSError) as exc:
            logger.info("set_wakeup_fd(%d) failed: %s", before, exc)
            signal.set_wakeup_fd(-1)

    def enter(self) -> None:
        """run_forever begins: from here on every signal ends the loop's sleep."""
        self._running = self._take()

    def leave(self) -> None:
        """run_forever ends. With handlers installed signals go on to be noted for the next run."""
        if self._running:
            self._running = False
            self._give_back()

    def forked(self) -> None:
        """In the child: what is signalled to it is not to reach the parent. The handlers stay,
        as they do with asyncio."""
        self._running = False
        self._before = None
        if self._pair is None:
            return
        try:
            current = signal.set_wakeup_fd(-1)
            if current not in (-1, self._pair[1]):
                signal.set_wakeup_fd(current)
        except ValueError:  # not the main interpreter: it cannot have been ours
            pass

    def _on_event(self, kind: int, size: int, offset: int) -> None:
        numbers = self._driver.slab[offset : offset + size]
        self._pass_on(numbers)
        for signum in numbers:
            self._call(signum)
        if self._maybe_lost:
            self._maybe_lost.difference_update(numbers)
            if not _readable(self._pair):  # else the rest is still to come
                while self._maybe_lost:
                    self._call(self._maybe_lost.pop())
        if _run_python_handlers is not None:
            _run_python_handlers(signal.SIG_BLOCK, ())

    def _pass_on(self, numbers: bytes) -> None:
        """The program's own wakeup descriptor gets them as well, unless it is another file now."""
        before = self._before
        if before is not None and before != -1 and self._before_file is not None:
            if _file_of(before) == self._before_file:
                with contextlib.suppress(OSError):  # it is full, for one: Python says no more
                    os.write(before, numbers)

    def _call(self, signum: int) -> None:
        handle = self.handlers.get(signum)
        if handle is None:
            return
        if handle._cancelled:
            self.remove(signum)
        else:
            self._ready.append(handle)

    def _check_room(self, signum: int) -> None:
        if signum in self.handlers and not _writable(self._pair):
            self._maybe_lost.add(signum)

    # ------------------------------------------------------------------------- handlers

    def add(
        self, loop: Core, sig: int, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        _check_signal(sig)
        loop._check_closed()
        if not self._take():
            raise RuntimeError(
                f"add_signal_handler({sig!r}): set_wakeup_fd only works in main thread "
                "of the main interpreter"
            )
        _all.add(self)
        handle = Handle(callback, args, loop)
        if loop._debug:
            trace(handle, 2)
        before = self.handlers.get(sig)
        self.handlers[sig] = handle
        try:
            signal.signal(sig, _caught)
            if sys.platform != "win32":
                signal.siginterrupt(sig, False)  # restart what the signal interrupts
        except OSError as exc:
            if before is None:
                del self.handlers[sig]
            else:
                self.handlers[sig] = before
            self._give_back()
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise

    def remove(self, sig: int) -> bool:
        _check_signal(sig)
        if self.handlers.pop(sig, None) is None:
            return False
        default = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            signal.signal(sig, default)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise
        self._give_back()
        return True

    def close(self, loop: Core) -> None:
        if sys.is_finalizing():
            if self.handlers:
                warnings.warn(
                    f"Closing the loop {loop!r} on interpreter shutdown stage, "
                    "skipping signal handlers removal",
                    ResourceWarning,
                    stacklevel=3,
                    source=loop,
                )
                self.handlers.clear()
        else:
            for sig in list(self.handlers):
                self.remove(sig)

    def close_descriptors(self) -> None:
        """After the driver's close: nothing watches them any more."""
        if self._pair is not None:
            _close_pair(self._pair)
            self._pair = None


# Those that have, or had, handlers: Python's table of handlers is to keep no loop alive.
_all: weakref.WeakSet[Signals] = weakref.WeakSet()

_Pair = tuple[int, int] | None  # the descriptors of the end to read and the end to write
_File = tuple[int, int] | None


def _file_of(fd: int) -> _File:
    """Which file a descriptor is; None if it is none, or a socket of Windows."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


if sys.platform == "win32":

    def _open_pair() -> tuple[int, int]:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        return reader.detach(), writer.detach()

    def _close_pair(pair: tuple[int, int]) -> None:
        for end in pair:
            socket.close(end)

    # select() takes any number there, and poll() does not exist.

    def _readable(pair: _Pair) -> bool:
        return pair is not None and bool(select.select([pair[0]], [], [], 0)[0])

    def _writable(pair: _Pair) -> bool:
        return pair is None or bool(select.select([], [pair[1]], [], 0)[1])
else:

    def _open_pair() -> tuple[int, int]:
        # No socket pair: Linux has room for 65,536 numbers in a pipe, for 278 in a socket.
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        return reader, writer

    def _close_pair(pair: tuple[int, int]) -> None:
        for end in pair:
            os.close(end)

    def _readable(pair: _Pair) -> bool:
        return pair is not None and bool(_poll(pair[0], select.POLLIN))

    def _writable(pair: _Pair) -> bool:
        return pair is None or bool(_poll(pair[1], select.POLLOUT))

    def _poll(fd: int, events: int) -> list[tuple[int, int]]:
        poll = select.poll()  # unlike select() it takes any number
        poll.register(fd, events)
        return poll.poll(0)


def _check_signal(sig: object) -> None:
    if not isinstance(sig, int):
        raise TypeError(f"sig must be an int, not {sig!r}")
    if sig not in signal.valid_signals():
        raise ValueError(f"invalid signal number {sig}")
