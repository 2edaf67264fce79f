"""to_thread(): blocking code in another thread, awaited like anything else.

The thread is one of the loop's default executor. It sees the context variables of the caller, in
a copy: what it sets stays there. Cancelling the wait does not stop the thread.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .events import get_running_loop

__all__ = ("to_thread",)

P = ParamSpec("P")
T = TypeVar("T")


async def to_thread(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run func(*args, **kwargs) in a thread; return or raise what it does. asyncio.to_thread().

    RuntimeError where no loop is running.
    """
    call = functools.partial(contextvars.copy_context().run, func, *args, **kwargs)
    return await get_running_loop().run_in_executor(None, call)
