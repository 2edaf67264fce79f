"""The event drain: the only door from C into Python.

`Driver` owns one libuv loop. After each vl_loop_run what happened is in the ring, as records of
four integers (see decl/event.h). `take` makes an iterator of them, and the event loop calls the
target registered under each record's id. If a target raises KeyboardInterrupt or SystemExit,
the iterator stays with the records behind it, and the next turn goes on there: nothing that was
read is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import IS_PYPY, ffi, lib
from .errors import check, error

# A target is called with the record's kind and its two values.
Target = Callable[[int, int, int], None]
Record = tuple[int, int, int, int] | list[int]

VL_ACCEPT = lib.VL_ACCEPT
VL_GETADDRINFO = lib.VL_GETADDRINFO
VL_GETNAMEINFO = lib.VL_GETNAMEINFO

unpack = ffi.unpack
vl_loop_ring = lib.vl_loop_ring

SIGNALS = 0  # the id under which the bytes of the signal wakeup descriptor come


class Records:
    """What zip() makes of the numbers, for PyPy, which compiles it together with its caller."""

    __slots__ = ("_next", "_numbers")

    def __init__(self, numbers: list[int]) -> None:
        self._numbers = numbers
        self._next = 0

    def __iter__(self) -> Records:
        return self

    def __next__(self) -> Record:
        numbers, i = self._numbers, self._next
        if i == len(numbers):
            raise StopIteration
        record = numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]
        self._next = i + 4  # not before: an interrupt that comes earlier loses nothing
        return record


class Driver:
    """One libuv loop: its pointer, its slab, and who is told about what."""

    __slots__ = (
        "_owners",
        "address",
        "closed",
        "fresh",
        "out",
        "pointer",
        "records",
        "slab",
        "start",
        "taken",
        "targets",
        "view",
    )

    def __init__(self) -> None:
        status = ffi.new("int *")
        pointer = lib.vl_loop_new(status)
        if pointer == ffi.NULL:
            raise error(status[0])
        self.pointer = ffi.gc(pointer, lib.vl_loop_free)
        self.address = int(ffi.cast("intptr_t", pointer))  # the same, for the accelerator
        self.targets: dict[int, Target] = {}
        self._owners: list[Target] = []  # in a forked child: what targets were
        self.records: Iterator[Record] | None = None
        self.closed = False
        self.fresh = False  # something is watched that no poll has looked at (loop/turn.py)
        self.taken = 0  # runs whose records we have got
        self.start = lib.vl_loop_slab(pointer)
        self.slab = ffi.buffer(self.start, lib.vl_loop_slab_size(pointer))
        self.view = memoryview(self.slab).cast("B")  # for who copies out of it without bytes
        self.out = ffi.new("vl_handle_t **")  # where the open functions put the handle

    def enter(self) -> None:
        """The calling thread owns the loop until `leave`."""
        check(lib.vl_loop_enter(self.pointer))

    def leave(self) -> None:
        lib.vl_loop_leave(self.pointer)

    def take(self, n: int) -> None:
        """Take over the `n` records of a vl_loop_run, or raise for the status that it gave."""
        if n < 0:
            raise error(n)
        records: Iterator[Record]
        # Asked for each time: it may have grown, also in a run that the accelerator made.
        numbers = unpack(vl_loop_ring(self.pointer), 4 * n)
        if IS_PYPY:
            records = Records(numbers)
        elif n == 1:  # the usual case of a server that keeps up: no need to zip
            records = iter((numbers,))
        else:
            each = iter(numbers)
            # No `strict` keyword: passing it costs as much again as all the rest of this line.
            records = zip(each, each, each, each)  # noqa: B905
        # One statement: an interrupt comes before it, and vl_loop_run gives the records again,
        # or after it.
        self.records, self.taken = records, self.taken + 1

    def wakeup(self) -> None:
        """End a running or the next vl_loop_run. From any thread, also once the loop is closed."""
        lib.vl_loop_wakeup(self.pointer)

    def forked(self, *, closing: bool) -> None:
        """This is a child process now, and the loop the parent's: it refuses everything.

        closing: a thread of the parent was about to close it.
        """
        lib.vl_loop_forked(self.pointer, closing)
        # Nobody is told of what is still to come in this turn, but of the loop's close.
        self._owners = list(self.targets.values())
        self.targets.clear()

    def close(self) -> None:
        """Close the libuv loop with all that is open in it, after telling the owners."""
        for target in (*self._owners, *self.targets.values()):
            on_loop_close = getattr(getattr(target, "__self__", None), "_on_loop_close", None)
            if on_loop_close is not None:
                on_loop_close()
        if self.records is not None:
            for kind, _, a, b in self.records:
                drop(kind, a, b)
            self.records = None
        self.targets.clear()
        self._owners.clear()
        self.closed = True
        check(lib.vl_loop_close(self.pointer))


def process_forked() -> None:
    """In the child, before `Driver.forked` of each loop."""
    lib.vl_process_forked()


def drop(kind: int, a: int, b: int) -> None:
    """Release what comes with a record that nobody waits for any more."""
    if kind == VL_ACCEPT:
        if a > 0:
            lib.vl_handle_close(ffi.cast("vl_handle_t *", a))
    elif kind == VL_GETADDRINFO or kind == VL_GETNAMEINFO:
        lib.vl_dns_free(ffi.cast("vl_dns_t *", b))
