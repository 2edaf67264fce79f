"""add_reader and add_writer: callbacks for descriptors that belong to somebody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._uv import lib
from .._uv.errors import error
from .handles import Handle

if TYPE_CHECKING:
    from .loop import EventLoop

VL_EFOREIGN = lib.VL_EFOREIGN
VL_READABLE = lib.VL_READABLE
VL_WRITABLE = lib.VL_WRITABLE
UV_EEXIST = lib.UV_EEXIST


class Watch:
    """The callbacks of one descriptor."""

    __slots__ = ("fd", "file", "ident", "loop", "reader", "writer")

    def __init__(self, loop: EventLoop, fd: int, file: Any) -> None:
        self.loop = loop
        self.fd = fd
        self.file = file  # by which it is found when it has been closed
        self.ident = 0
        self.reader: Handle | None = None
        self.writer: Handle | None = None

    def on_event(self, kind: int, events: int, unused: int) -> None:
        if events & VL_READABLE:
            self._call(self.reader)
        # The reader's callback may have removed or replaced the writer: look at it only now.
        if events & VL_WRITABLE:
            self._call(self.writer)

    def _call(self, handle: Handle | None) -> None:
        if handle is not None and not handle._cancelled:
            self.loop._run_handle(handle)


class Poller:
    __slots__ = ("_loop", "watches")

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self.watches: dict[int, Watch] = {}

    def add_reader(
        self, file: Any, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> Handle:
        watch = self._watch(file)
        handle = Handle(callback, args, self._loop)
        before, watch.reader = watch.reader, handle
        try:
            self._apply(watch, VL_READABLE)
        except BaseException:
            watch.reader = before
            raise
        if before is not None:
            before.cancel()
        return handle

    def add_writer(
        self, file: Any, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> Handle:
        watch = self._watch(file)
        handle = Handle(callback, args, self._loop)
        before, watch.writer = watch.writer, handle
        try:
            self._apply(watch, VL_WRITABLE)
        except BaseException:
            watch.writer = before
            raise
        if before is not None:
            before.cancel()
        return handle

    def remove_reader(self, file: Any) -> bool:
        watch = self._known(file)
        if watch is None or watch.reader is None:
            return False
        handle, watch.reader = watch.reader, None
        try:
            self._apply(watch, 0)
        except BaseException:
            watch.reader = handle
            raise
        handle.cancel()
        return True

    def remove_writer(self, file: Any) -> bool:
        watch = self._known(file)
        if watch is None or watch.writer is None:
            return False
        handle, watch.writer = watch.writer, None
        try:
            self._apply(watch, 0)
        except BaseException:
            watch.writer = handle
            raise
        handle.cancel()
        return True

    def close(self) -> None:
        """The loop has been closed, and the watches with it."""
        self.watches.clear()

    def _watch(self, file: Any) -> Watch:
        self._loop._check_closed()
        fd = fileno(file)
        self._loop._check_not_given(fd)
        watch = self.watches.get(fd) or Watch(self._loop, fd, file)
        watch.file = file
        return watch

    def _known(self, file: Any) -> Watch | None:
        watch: Watch | None
        if self._loop.is_closed():
            return None
        try:
            fd = fileno(file)
        except ValueError:
            # A file object that was closed while it was watched can still be removed.
            for watch in self.watches.values():
                if watch.file is file:
                    return watch
            raise
        watch = self.watches.get(fd)
        if watch is None:
            self._loop._check_not_given(fd)
        return watch

    def _apply(self, watch: Watch, added: int) -> None:
        """Make libuv watch for what there are callbacks for; `added` is the event of a new one."""
        driver = self._loop._driver
        events = (VL_READABLE if watch.reader is not None else 0) | (
            VL_WRITABLE if watch.writer is not None else 0
        )
        ident = lib.vl_poll_set(driver.pointer, watch.fd, events, added)
        if ident == watch.ident:
            return
        if ident == VL_EFOREIGN:
            raise error(ident)
        # The first callback, the last one gone, or a watch that gave way to a newer file.
        if watch.ident:  # 0, that of a new watch, is the id of the signals
            driver.targets.pop(watch.ident, None)
            self.watches.pop(watch.fd, None)
            # The callback for the other event is one of the file that is no more.
            if watch.reader is not None and added != VL_READABLE:
                watch.reader.cancel()
                watch.reader = None
            if watch.writer is not None and added != VL_WRITABLE:
                watch.writer.cancel()
                watch.writer = None
        watch.ident = max(ident, 0)
        if ident > 0:
            driver.targets[ident] = watch.on_event
            self.watches[watch.fd] = watch
        elif ident < 0:
            user = self._user_of(watch.fd) if ident == UV_EEXIST else None
            raise error(ident) if user is None else _in_use(watch.fd, user)

    def _user_of(self, fd: int) -> object | None:
        """The transport or listener that has this descriptor, if there is one."""
        for target in self._loop._driver.targets.values():
            owner = getattr(target, "__self__", None)
            if getattr(owner, "_fileno", _no_fileno)() == fd:
                return owner
        return None


def fileno(file: Any) -> int:
    """The descriptor of a file object or number, with the errors of the selectors module."""
    if isinstance(file, int):
        fd = file
    else:
        try:
            fd = int(file.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {file!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


def _no_fileno() -> int:
    return -1


def _in_use(file: object, user: object) -> RuntimeError:
    return RuntimeError(f"File descriptor {file!r} is used by transport {user!r}")
