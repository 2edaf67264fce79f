"""Asynchronous generators: the loop knows those that are open and closes what is left of them."""

from __future__ import annotations

import asyncio
import sys
import warnings
import weakref
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core import Core


class AsyncGenerators:
    """The open asynchronous generators of one loop."""

    __slots__ = ("_loop", "_open", "_shutdown")

    def __init__(self, loop: Core) -> None:
        self._loop = weakref.ref(loop)  # a closed loop is to go with its last user
        self._open: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._shutdown = False

    def set_hooks(self) -> None:
        """Be told of every generator that is begun or dropped in this thread."""
        sys.set_asyncgen_hooks(firstiter=self._begun, finalizer=self._dropped)

    def _begun(self, agen: AsyncGenerator[Any, Any]) -> None:
        if self._shutdown:
            warnings.warn(
                f"asynchronous generator {agen!r} was scheduled after "
                "loop.shutdown_asyncgens() call",
                ResourceWarning,
                stacklevel=2,
                source=self._loop(),
            )
        self._open.add(agen)

    def _dropped(self, agen: AsyncGenerator[Any, Any]) -> None:
        self._open.discard(agen)
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            # Dropped by the garbage collector, and that may be in any thread.
            loop.call_soon_threadsafe(loop.create_task, agen.aclose())

    async def shutdown(self, loop: Core) -> None:
        self._shutdown = True
        agens = list(self._open)
        self._open.clear()
        closing = (agen.aclose() for agen in agens)
        results = await asyncio.gather(*closing, return_exceptions=True)
        for agen, result in zip(agens, results, strict=True):
            if isinstance(result, Exception):
                loop.call_exception_handler(
                    {
                        "message": "an error occurred during closing of "
                        f"asynchronous generator {agen!r}",
                        "exception": result,
                        "asyncgen": agen,
                    }
                )
