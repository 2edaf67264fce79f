"""TaskGroup: tasks that end where the block that started them ends.

The block does not end before its tasks have; the first that fails cancels the others and the block,
and all their exceptions come out together. To interrupt the block the group cancels the task
that runs it. It takes that one cancellation back at the end of the block, and no other: a
cancellation from outside comes out of the block as what it is, or, where tasks failed too, out
of the next await behind it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, Task, current_task
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from .events import get_running_loop
from .exceptions import CancelledError
from .spawning import add_awaited_by, discard_awaited_by, spawn, take_delivery, undelivered

__all__ = ("TaskGroup",)

T = TypeVar("T")


class TaskGroup:
    """Asynchronous context manager: a block, and the tasks that its create_task() starts.

    Leaving the block waits for the tasks. If one raises an exception, the rest and the block are
    cancelled, and a BaseExceptionGroup of what was raised comes out of the `async with`;
    KeyboardInterrupt and SystemExit come out as they are.
    """

    def __init__(self) -> None:
        self._entered = False
        self._open = False  # for create_task()
        self._exiting = False
        self._aborting = False
        self._cancel_on_enter = False
        self._parent_cancelled = False  # by us
        self._loop: AbstractEventLoop | None = None
        self._parent_task: Task[Any] | None = None
        self._tasks: set[Task[Any]] = set()
        self._errors: list[BaseException] = []
        self._base_error: BaseException | None = None  # one that the loop must not swallow
        self._all_done: Future[None] | None = None

    def __repr__(self) -> str:
        info = ""
        if self._tasks:
            info += f" tasks={len(self._tasks)}"
        if self._errors:
            info += f" errors={len(self._errors)}"
        if self._aborting:
            info += " cancelling"
        elif self._entered:
            info += " entered"
        return f"<TaskGroup{info}>"

    async def __aenter__(self) -> TaskGroup:
        if self._entered:
            raise RuntimeError(f"TaskGroup {self!r} has already been entered")
        loop = self._loop = get_running_loop()
        self._parent_task = current_task(loop)
        if self._parent_task is None:
            raise RuntimeError(f"TaskGroup {self!r} cannot determine the parent task")
        self._entered = self._open = True
        if self._cancel_on_enter:
            self.cancel()
        return self

    def create_task(self, coro: Coroutine[Any, Any, T], **kwargs: Any) -> Task[T]:
        """Start a task in the group and return it. Keywords as with veloop.create_task().

        RuntimeError, and the coroutine is closed, if the block was not entered or is over, or the
        group is being cancelled.
        """
        if not self._open:
            coro.close()
            raise RuntimeError(f"TaskGroup {self!r} {self._why_not_open()}")
        loop: Any = self._loop
        task: Task[T] = spawn(loop, coro, kwargs) if kwargs else loop.create_task(coro)
        if add_awaited_by is not None:
            add_awaited_by(task, self._parent_task)
        # One that started at once may be done: its callback comes in the next turn all the same,
        # for the block must not be cancelled from within this call.
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        if self._aborting and not task.done():
            task.cancel()  # it started at once, and cancelled the group it was not in yet
        try:
            return task
        finally:
            del task  # its exception's traceback may hold this frame

    def cancel(self) -> None:
        """Cancel the tasks and the block; no CancelledError comes out of the `async with`.

        Before the block is entered: it is cancelled as soon as it is. Afterwards nothing happens.
        """
        if not self._entered:
            self._cancel_on_enter = True
        elif not self._aborting and (self._tasks or not self._exiting):
            self._abort()
            self._cancel_parent()

    def _why_not_open(self) -> str:
        if not self._entered:
            return "has not been entered"
        return "is finished" if self._exiting and not self._tasks else "is shutting down"

    def _abort(self) -> None:
        self._aborting = True
        self._open = False
        for task in self._tasks:
            if not task.done():
                task.cancel()

    def _cancel_parent(self) -> None:
        if self._parent_task is not None and not self._parent_cancelled:
            self._parent_cancelled = True
            self._parent_task.cancel()

    def _task_done(self, task: Task[Any]) -> None:
        tasks = self._tasks
        tasks.discard(task)
        if discard_awaited_by is not None:
            discard_awaited_by(task, self._parent_task)
        if not tasks and self._exiting:
            self._open = False
            if self._all_done is not None and not self._all_done.done():
                self._all_done.set_result(None)
        if task.cancelled():
            return
        exc = task.exception()
        if exc is not None:
            self._task_failed(task, exc)

    def _task_failed(self, task: Task[Any], exc: BaseException) -> None:
        parent: Any = self._parent_task
        self._errors.append(exc)
        if self._base_error is None and isinstance(exc, (SystemExit, KeyboardInterrupt)):
            self._base_error = exc
        if parent.done():
            loop: Any = self._loop
            loop.call_exception_handler(
                {
                    "message": f"Task {task!r} has errored out but its parent "
                    f"task {parent} is already completed",
                    "exception": exc,
                    "task": task,
                }
            )
        elif not self._aborting and not self._parent_cancelled:
            self._abort()
            self._cancel_parent()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        self._exiting = True
        if not self._tasks:
            self._open = False
        try:
            if exc is not None:
                if self._base_error is None and isinstance(exc, (SystemExit, KeyboardInterrupt)):
                    self._base_error = exc
                if not self._aborting:
                    self._abort()
            cancelled: BaseException | None = exc if isinstance(exc, CancelledError) else None
            if self._tasks or self._parent_cancelled:
                cancelled = await self._wait(cancelled)
            if self._base_error is not None:
                raise self._base_error
            if self._errors or cancelled is not None or exc is not None:
                self._raise(exc, cancelled)
            return True
        finally:
            # No cycles through the tracebacks of what is raised here.
            self._parent_task = self._base_error = None
            self._errors = []
            exc = cancelled = None

    async def _wait(self, cancelled: BaseException | None) -> BaseException | None:
        """Wait for the tasks.  -> the cancellation that has to come out of the block"""
        loop: Any = self._loop
        parent: Any = self._parent_task
        last: BaseException | None = None
        try:
            # Each cancellation of the parent ends one wait, and there may be many of them.
            while self._tasks:
                self._all_done = loop.create_future()
                try:
                    await self._all_done
                except CancelledError as exc:
                    last = exc
                    if not self._aborting:
                        cancelled = exc
                        self._abort()
                self._all_done = None
            if self._parent_cancelled and self._base_error is None:
                parent.uncancel()
                if undelivered(parent):
                    last = await take_delivery(parent) or last
                if not parent.cancelling():
                    return None  # it was ours alone
                return cancelled or last
            return cancelled
        finally:
            cancelled = last = None

    def _raise(self, exc: BaseException | None, cancelled: BaseException | None) -> None:
        """Raise what comes out of the block, if anything does."""
        parent: Any = self._parent_task
        try:
            if cancelled is not None and not self._errors:
                raise cancelled
            if exc is not None and not isinstance(exc, CancelledError):
                self._errors.append(exc)
            if not self._errors:
                return
            if parent.cancelling():
                # Somebody wants the task to end: the next await behind the block will say so.
                parent.uncancel()
                parent.cancel()
            if isinstance(exc, GeneratorExit) and len(self._errors) == 1:
                raise exc  # an asynchronous generator is being closed
            raise BaseExceptionGroup("unhandled errors in a TaskGroup", self._errors) from None
        finally:
            exc = cancelled = parent = None
