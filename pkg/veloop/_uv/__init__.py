"""The C boundary: the only package that owns ``ffi`` and ``lib``.

The memory laws, which every caller keeps:

1. The shim allocates everything that libuv sees and frees it in libuv's own callback. Python
   holds opaque pointers and small integer ids, never a struct.
2. A ``vl_handle_t *`` is dead once ``vl_handle_close`` was called: set the attribute to None
   in the same breath. The loop's close kills all that are left; `Driver.close` says so to
   each of their owners first.
3. No Python code runs below a C frame. C only writes records into the ring; `Driver` reads
   them when the call has returned. So no exception ever unwinds through C.
4. The slab holds what was read until the next ``vl_loop_run``: copy it out while dispatching.
5. While a loop runs, calls from other threads are refused with a status (`VL_EFOREIGN`),
   which becomes a RuntimeError. ``vl_loop_wakeup`` is the one call for any thread.
6. Ids are never used twice, so a record that comes late for a closed handle finds no target.
"""

import sys

from ._cffi import ffi, lib

__all__ = ["IS_PYPY", "ffi", "lib"]

# PyPy counts no references, and compiles Python: a few things are right or fast in one way here
# and in another there.
IS_PYPY = sys.implementation.name == "pypy"
