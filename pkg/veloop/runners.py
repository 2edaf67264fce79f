"""run() and Runner: asyncio's, with veloop's loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .loop import new_event_loop

__all__ = ("Runner", "run")

T = TypeVar("T")


class Runner(asyncio.Runner):  # type: ignore[misc]  # typeshed calls it final; its code does not
    """asyncio.Runner, whose loop_factory is veloop.new_event_loop unless another is given."""

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        super().__init__(
            debug=debug, loop_factory=new_event_loop if loop_factory is None else loop_factory
        )


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    context: contextvars.Context | None = None,
) -> T:
    """Run a coroutine on a new loop, close the loop, return the result: asyncio.run().

    RuntimeError when called from a running event loop. What is no coroutine is refused as
    asyncio.run() of this Python does: ValueError, and since 3.14 TypeError for no awaitable.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("veloop.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main, context=context)
