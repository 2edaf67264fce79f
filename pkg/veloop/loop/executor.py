"""run_in_executor and the default thread pool."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core import Core


class DefaultExecutor:
    """The loop's default executor: made at its first use, shut down once."""

    __slots__ = ("_shutdown", "executor")

    def __init__(self) -> None:
        self._shutdown = False
        self.executor: concurrent.futures.Executor | None = None

    def get(self) -> concurrent.futures.Executor:
        if self._shutdown:
            raise RuntimeError("Executor shutdown has been called")
        if self.executor is None:
            self.executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="asyncio")
        return self.executor

    def set(self, executor: concurrent.futures.Executor) -> None:
        if not isinstance(executor, concurrent.futures.ThreadPoolExecutor):
            raise TypeError(f"executor must be ThreadPoolExecutor instance, not {executor!r}")
        self.executor = executor

    async def shutdown(self, loop: Core, timeout: float | None) -> None:
        self._shutdown = True
        executor = self.executor
        if executor is None:
            return
        future = loop.create_future()
        thread = threading.Thread(target=_join, args=(executor, future))
        thread.start()
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            warnings.warn(
                f"The executor did not finish joining its threads within {timeout} seconds.",
                RuntimeWarning,
                stacklevel=3,
            )
            executor.shutdown(wait=False)
        else:
            thread.join()

    def close(self) -> None:
        """Let the threads go without waiting for them."""
        self._shutdown = True
        executor, self.executor = self.executor, None
        if executor is not None:
            executor.shutdown(wait=False)


def _join(executor: concurrent.futures.Executor, future: asyncio.Future[None]) -> None:
    loop = future.get_loop()
    try:
        executor.shutdown(wait=True)
    except Exception as exc:
        if not loop.is_closed():
            loop.call_soon_threadsafe(_fail, future, exc)
    else:
        if not loop.is_closed():
            loop.call_soon_threadsafe(_succeed, future)


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], exc: Exception) -> None:
    if not future.done():
        future.set_exception(exc)


def run_in_executor(
    loop: Core,
    executor: concurrent.futures.Executor | None,
    func: Callable[..., Any],
    args: tuple[Any, ...],
) -> asyncio.Future[Any]:
    if executor is None:
        executor = loop._executor.get()
    return asyncio.wrap_future(executor.submit(func, *args), loop=loop)
