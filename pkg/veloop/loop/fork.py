"""os.fork(): the loops of the parent become closed ones in the child.

One hook for all loops there are; what a loop has to do is Core._forked().
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from .._uv.events import process_forked

if TYPE_CHECKING:
    from .core import Core

# Those that exist. A closed one may still be in the middle of its close, in another thread.
loops: weakref.WeakSet[Core] = weakref.WeakSet()


def _in_child() -> None:
    process_forked()
    for loop in list(loops):
        if not loop._closed:
            loop._forked()
        elif not loop._driver.closed:
            loop._driver.forked(closing=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
