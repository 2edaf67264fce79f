"""The event drain: the only door from C into Python.

`Driver` owns one libuv loop. `poll` runs it once; what happened meanwhile is then in the ring,
as records of four integers (see decl/event.h), and `dispatch` calls the target registered
under each record's id. If a target raises KeyboardInterrupt or SystemExit, the records
behind it stay and the next `dispatch` goes on with them: nothing that was read is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from . import ffi, lib
from .errors import check, error

# A target is called with the record's kind and its two values.
Target = Callable[[int, int, int], None]
Record = tuple[int, int, int, int]

VL_ACCEPT = lib.VL_ACCEPT
VL_GETADDRINFO = lib.VL_GETADDRINFO
VL_GETNAMEINFO = lib.VL_GETNAMEINFO

vl_loop_run = lib.vl_loop_run
unpack = ffi.unpack

SIGNALS = 0  # the id under which the bytes of the signal wakeup descriptor come


class Driver:
    """One libuv loop: its pointer, its slab, and who is told about what."""

    __slots__ = ("_capacity", "_ring", "out", "pointer", "records", "slab", "targets")

    def __init__(self) -> None:
        status = ffi.new("int *")
        pointer = lib.vl_loop_new(status)
        if pointer == ffi.NULL:
            raise error(status[0])
        self.pointer = ffi.gc(pointer, lib.vl_loop_free)
        self.targets: dict[int, Target] = {}
        self.records: Iterator[Record] | None = None
        self.slab = ffi.buffer(lib.vl_loop_slab(pointer), lib.vl_loop_slab_size(pointer))
        self.out = ffi.new("vl_handle_t **")  # where the open functions put the handle
        self._remember_ring()

    def _remember_ring(self) -> None:
        self._ring = lib.vl_loop_ring(self.pointer)
        self._capacity = lib.vl_loop_ring_capacity(self.pointer)

    def enter(self) -> None:
        """The calling thread owns the loop until `leave`."""
        check(lib.vl_loop_enter(self.pointer))

    def leave(self) -> None:
        lib.vl_loop_leave(self.pointer)

    def poll(self, timeout: float) -> None:
        """Run libuv once, for at most `timeout` seconds; negative: until something happens."""
        n = vl_loop_run(self.pointer, timeout)
        if n:
            if n > self._capacity:
                self._remember_ring()
            if n < 0:
                raise error(n)
            numbers = iter(unpack(self._ring, 4 * n))
            self.records = zip(numbers, numbers, numbers, numbers, strict=False)

    def dispatch(self) -> None:
        """Tell the targets what the last poll, or an interrupted dispatch, left to tell."""
        targets = self.targets
        records = self.records
        assert records is not None
        for kind, ident, a, b in records:
            target = targets.get(ident)
            if target is None:
                _drop(kind, a, b)
            else:
                target(kind, a, b)
        self.records = None

    def dispatch_each(self, call: Callable[[Target, int, int, int], None]) -> None:
        """`dispatch` through `call`, which is told what it calls: for the debug mode."""
        assert self.records is not None
        for kind, ident, a, b in self.records:
            target = self.targets.get(ident)
            if target is None:
                _drop(kind, a, b)
            else:
                call(target, kind, a, b)
        self.records = None

    def wakeup(self) -> None:
        """End a running or the next `poll`. From any thread, also once the loop is closed."""
        lib.vl_loop_wakeup(self.pointer)

    def close(self) -> None:
        """Close the libuv loop with all that is open in it."""
        if self.records is not None:
            for kind, _, a, b in self.records:
                _drop(kind, a, b)
            self.records = None
        self.targets.clear()
        check(lib.vl_loop_close(self.pointer))


def _drop(kind: int, a: int, b: int) -> None:
    """Release what comes with a record that nobody waits for any more."""
    if kind == VL_ACCEPT:
        if a > 0:
            lib.vl_handle_close(ffi.cast("vl_handle_t *", a))
    elif kind == VL_GETADDRINFO or kind == VL_GETNAMEINFO:
        lib.vl_dns_free(ffi.cast("vl_dns_t *", b))
