"""add_reader and add_writer: callbacks for descriptors that belong to somebody else.

And the waits of the sock_ methods: a future that is done when there is something to do. As with
asyncio there is one callback or future for each direction of a descriptor, the latest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._uv import lib
from .._uv.errors import error
from .handles import Handle, trace

if TYPE_CHECKING:
    from .loop import EventLoop

VL_EFOREIGN = lib.VL_EFOREIGN
VL_READABLE = lib.VL_READABLE
VL_WRITABLE = lib.VL_WRITABLE
UV_EEXIST = lib.UV_EEXIST

vl_poll_set = lib.vl_poll_set


class Watch:
    """Who is told about one descriptor: a callback each time, a future once."""

    __slots__ = ("fd", "file", "ident", "loop", "reader", "simple", "writer")

    def __init__(self, loop: EventLoop, fd: int, file: Any) -> None:
        self.loop = loop
        self.fd = fd
        self.file = file  # by which it is found when it has been closed
        self.ident = 0
        self.simple = True  # C was asked for one event, once, and for nothing since
        self.reader: Handle | asyncio.Future[None] | None = None
        self.writer: Handle | asyncio.Future[None] | None = None

    def on_event(self, kind: int, events: int, unused: int) -> None:
        told = False
        if events & VL_READABLE:
            reader = self.reader
            if isinstance(reader, Handle):
                self._call(reader)
            elif reader is not None:
                told, self.reader = True, None
                if not reader.done():
                    reader.set_result(None)
        # The reader's callback may have removed or replaced the writer: look at it only now.
        if events & VL_WRITABLE:
            writer = self.writer
            if isinstance(writer, Handle):
                self._call(writer)
            elif writer is not None:
                told, self.writer = True, None
                if not writer.done():
                    writer.set_result(None)
        if not told:
            return
        loop = self.loop
        if self.simple:
            # C lets it rest: nothing more comes, and if the next wait is soon it costs less.
            del loop._watches[self.fd], loop._driver.targets[self.ident]
        elif loop._watches.get(self.fd) is self:
            _apply(self, 0)

    def _call(self, handle: Handle) -> None:
        if not handle._cancelled:
            self.loop._run_handle(handle)


def add_reader(
    loop: EventLoop, file: Any, callback: Callable[..., object], args: tuple[Any, ...]
) -> None:
    _set_reader(loop, file, _handle(loop, callback, args))


def add_writer(
    loop: EventLoop, file: Any, callback: Callable[..., object], args: tuple[Any, ...]
) -> None:
    _set_writer(loop, file, _handle(loop, callback, args))


def _handle(loop: EventLoop, callback: Callable[..., object], args: tuple[Any, ...]) -> Handle:
    handle = Handle(callback, args, loop)
    loop._driver.fresh = True
    if loop._debug:
        trace(handle, 3)
    return handle


def remove_reader(loop: EventLoop, file: Any) -> bool:
    watch = _known(loop, file)
    if watch is None or watch.reader is None:
        return False
    _drop_reader(watch)
    return True


def remove_writer(loop: EventLoop, file: Any) -> bool:
    watch = _known(loop, file)
    if watch is None or watch.writer is None:
        return False
    _drop_writer(watch)
    return True


# ------------------------------------------------------------- the waits of sock_ methods


def wait_reader(loop: EventLoop, fd: int, ready: asyncio.Future[None]) -> Watch:
    """Have the future done when fd can be read."""
    if fd in loop._watches:
        return _set_reader(loop, fd, ready)
    watch = _wait(loop, fd, VL_READABLE)
    watch.reader = ready
    return watch


def wait_writer(loop: EventLoop, fd: int, ready: asyncio.Future[None]) -> Watch:
    """Have the future done when fd can be written."""
    if fd in loop._watches:
        return _set_writer(loop, fd, ready)
    watch = _wait(loop, fd, VL_WRITABLE)
    watch.writer = ready
    return watch


def end_wait(watch: Watch, ready: asyncio.Future[None]) -> None:
    """Nobody waits for that future any more, be it done or not."""
    loop = watch.loop
    if loop.is_closed() or loop._watches.get(watch.fd) is not watch:
        return
    if watch.reader is ready:
        _drop_reader(watch)
    elif watch.writer is ready:
        _drop_writer(watch)


def _wait(loop: EventLoop, fd: int, event: int) -> Watch:
    """A watch of a descriptor that has none: for one event, which is told once."""
    if loop._closed:
        loop._check_closed()
    if fd in loop._given:
        loop._check_not_given(fd)
    driver = loop._driver
    ident = vl_poll_set(driver.pointer, fd, event, event, True)
    if ident < 0:
        raise _refusal(loop, ident, fd)
    watch = Watch(loop, fd, fd)
    watch.ident = ident
    driver.targets[ident] = watch.on_event
    loop._watches[fd] = watch
    return watch


# ------------------------------------------------------------------------- what they share


def _watch(loop: EventLoop, file: Any) -> Watch:
    loop._check_closed()
    fd = fileno(file)
    loop._check_not_given(fd)
    watch = loop._watches.get(fd) or Watch(loop, fd, file)
    watch.file = file
    return watch


def _known(loop: EventLoop, file: Any) -> Watch | None:
    watch: Watch | None
    if loop.is_closed():
        return None
    try:
        fd = fileno(file)
    except ValueError:
        # A file object that was closed while it was watched can still be removed.
        for watch in loop._watches.values():
            if watch.file is file:
                return watch
        raise
    watch = loop._watches.get(fd)
    if watch is None:
        loop._check_not_given(fd)
    return watch


def _set_reader(loop: EventLoop, file: Any, reader: Handle | asyncio.Future[None]) -> Watch:
    watch = _watch(loop, file)
    before, watch.reader = watch.reader, reader
    try:
        _apply(watch, VL_READABLE)
    except BaseException:
        watch.reader = before
        raise
    if isinstance(before, Handle):
        before.cancel()
    return watch


def _set_writer(loop: EventLoop, file: Any, writer: Handle | asyncio.Future[None]) -> Watch:
    watch = _watch(loop, file)
    before, watch.writer = watch.writer, writer
    try:
        _apply(watch, VL_WRITABLE)
    except BaseException:
        watch.writer = before
        raise
    if isinstance(before, Handle):
        before.cancel()
    return watch


def _drop_reader(watch: Watch) -> None:
    reader, watch.reader = watch.reader, None
    try:
        _apply(watch, 0)
    except BaseException:
        watch.reader = reader
        raise
    if isinstance(reader, Handle):
        reader.cancel()


def _drop_writer(watch: Watch) -> None:
    writer, watch.writer = watch.writer, None
    try:
        _apply(watch, 0)
    except BaseException:
        watch.writer = writer
        raise
    if isinstance(writer, Handle):
        writer.cancel()


def _apply(watch: Watch, added: int) -> None:
    """Make libuv watch for what there is somebody for; `added` is the event of a new one."""
    loop = watch.loop
    driver = loop._driver
    reader, writer = watch.reader, watch.writer
    events = (VL_READABLE if reader is not None else 0) | (VL_WRITABLE if writer is not None else 0)
    once = not (isinstance(reader, Handle) or isinstance(writer, Handle))
    watch.simple = False
    ident = vl_poll_set(driver.pointer, watch.fd, events, added, once)
    if ident == watch.ident:
        return
    if ident == VL_EFOREIGN:
        raise error(ident)
    # The first callback, the last one gone, or a watch that gave way to a newer file.
    if watch.ident:  # 0, that of a new watch, is the id of the signals
        driver.targets.pop(watch.ident, None)
        loop._watches.pop(watch.fd, None)
        # Who waits for the other event waits for one of the file that is no more.
        if added != VL_READABLE:
            watch.reader = None
            if isinstance(reader, Handle):
                reader.cancel()
        if added != VL_WRITABLE:
            watch.writer = None
            if isinstance(writer, Handle):
                writer.cancel()
    watch.ident = max(ident, 0)
    if ident > 0:
        driver.targets[ident] = watch.on_event
        loop._watches[watch.fd] = watch
    elif ident < 0:
        raise _refusal(loop, ident, watch.fd)


def _refusal(loop: EventLoop, status: int, fd: int) -> Exception:
    user = _user_of(loop, fd) if status == UV_EEXIST else None
    return error(status) if user is None else _in_use(fd, user)


def _user_of(loop: EventLoop, fd: int) -> object | None:
    """The transport or listener that has this descriptor, if there is one."""
    for target in loop._driver.targets.values():
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
