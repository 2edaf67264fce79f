"""Run a program of random_programs.py with one module on one loop, and write down what happens.

The trace is a list of (virtual time, where, operation, outcome). Whatever the module is free to do
otherwise, who runs first in an instant and whether a callback takes one turn or two, shows in it
if a program can tell the difference.
"""

import asyncio
import contextvars
import sys

import virtual

# When what still waits is cancelled: later than anything that a program's delays amount to.
END = 1000.0
_ROUNDS = 100

# The number of the task, in World.tasks, that a body belongs to.
_own = contextvars.ContextVar("own", default=0)

ERRORS = {"ValueError": ValueError, "KeyError": KeyError}


class OrderedTask(asyncio.Task):
    """A task that sets keep in the order in which they got them, if they are few.

    Whom a TaskGroup cancels first is left to a set in asyncio, so to the tasks' addresses. With
    one hash for all, CPython's sets have the order of insertion; the comparison need not be
    blurred for this.
    """

    def __hash__(self):
        return 0


def _ordered_task(loop, coro, **kwargs):
    return OrderedTask(coro, loop=loop, **kwargs)


def run(program, aio, kind):
    """The trace of the program; `aio` is the module, `kind` the loop's."""
    loop = virtual.new_event_loop(kind)
    try:
        loop.set_task_factory(_ordered_task)
        world = World(aio, loop)
        loop.set_exception_handler(world.error)
        loop.run_until_complete(world.main(program))
        return world.trace
    finally:
        loop.close()


def describe(exc):
    """An exception without what is an object of one run: its type; an ExceptionGroup's tree."""
    name = type(exc).__name__
    if isinstance(exc, BaseExceptionGroup):
        return (name, *map(describe, exc.exceptions))
    if isinstance(exc, asyncio.CancelledError):
        return (name, *exc.args)
    return name


async def _delivered(block):
    """The block of a timeout, ending with no cancellation that is still to be raised.

    Before 3.13 Task.uncancel() leaves such a one pending, so that it hits what comes behind
    asyncio's timeout; veloop's timeout takes it back on every Python, for which it needs a turn.
    """
    try:
        return await block
    finally:
        if sys.version_info < (3, 13):
            await asyncio.sleep(0)


class World:
    """The objects of a program, and its operations, one method each."""

    def __init__(self, aio, loop):
        self.aio = aio
        self.loop = loop
        self.trace = []
        self.tasks = []
        self.timeouts = {}  # task -> those it is in, the innermost last
        self.count = 0  # what is waited for with the condition
        self.futures = {name: loop.create_future() for name in "ab"}
        self.objects = {
            "lock": aio.Lock(),
            "cond": aio.Condition(),
            "sem1": aio.Semaphore(1),
            "sem2": aio.Semaphore(2),
            "bounded": aio.BoundedSemaphore(1),
            "event": aio.Event(),
            "queue": aio.Queue(),
            "queue1": aio.Queue(1),
            "priority": aio.PriorityQueue(2),
            "lifo": aio.LifoQueue(2),
        }

    def note(self, where, op, outcome):
        self.trace.append((self.loop.time(), where, op, outcome))

    def error(self, loop, context):
        # Whether an exception is retrieved by somebody depends on the garbage collector.
        if "never retrieved" not in context["message"]:
            self.note("handler", context["message"], describe(context.get("exception")))

    async def main(self, program):
        for number, body in enumerate(program):
            self.start(f"t{number}", body)
        end = END
        await self.at(end)
        me = asyncio.current_task()
        for _ in range(_ROUNDS):
            left = sorted(asyncio.all_tasks() - {me}, key=lambda task: task.get_name())
            if not left:
                break
            self.note("main", "cancel", tuple(task.get_name() for task in left))
            for task in left:
                task.cancel()
            # Who is in Condition.wait() takes the lock before it can be cancelled.
            if self.objects["cond"].locked():
                self.objects["cond"].release()
            end += END
            await self.at(end)
        else:
            raise AssertionError(f"tasks do not end: {left}")
        self.note("main", "peek", await self.peek(""))

    def at(self, when):
        future = self.loop.create_future()
        self.loop.call_at(when, future.set_result, None)
        return future

    async def body(self, where, steps, of_a_timeout=False):
        """One body in its own task."""
        asyncio.current_task().set_name(where)
        try:
            if of_a_timeout:
                return await _delivered(self.steps(where, steps))
            return await self.steps(where, steps)
        except BaseException as exc:
            self.note(where, "end", describe(exc))
            raise

    async def steps(self, where, steps):
        for number, (op, *arguments) in enumerate(steps):
            here = f"{where}.{number}"
            self.note(here, op, "begins")
            try:
                value = await getattr(self, op.lstrip("!"))(here, *arguments)
            except asyncio.CancelledError as exc:
                self.note(here, op, describe(exc))
                raise
            except Exception as exc:
                self.note(here, op, describe(exc))
                if op[0] == "!" or op == "raise":
                    raise
            else:
                self.note(here, op, value)
        return where

    # ------------------------------------------------------------ time and tasks

    async def sleep(self, here, delay):
        return await self.aio.sleep(delay, "slept")

    async def call_later(self, here, delay):
        self.loop.call_later(delay, self.note, here, "called", delay)

    async def call_soon(self, here):
        self.loop.call_soon(self.note, here, "called", None)

    async def spawn(self, here, steps):
        self.start(here, steps)

    def start(self, where, steps):
        context = contextvars.copy_context()
        context.run(_own.set, len(self.tasks))
        self.tasks.append(self.aio.create_task(self.body(where, steps), context=context))

    def task(self, which):
        return self.tasks[which % len(self.tasks)]

    async def cancel(self, here, which, message):
        return self.task(which).cancel(message)

    async def cancel_self(self, here):
        return asyncio.current_task().cancel()

    async def cancelling(self, here):
        return asyncio.current_task().cancelling()

    async def uncancel(self, here):
        return asyncio.current_task().uncancel()

    async def wait_task(self, here, which):
        # Of those that are younger only: tasks that wait for each other in a circle cannot be
        # cancelled, asyncio's Task.cancel() recurses for ever.
        younger = self.tasks[_own.get() + 1 :]
        return await younger[which % len(younger)] if younger else "nobody"

    async def shelter(self, here, steps, uncancel):
        try:
            return await self.steps(here, steps)
        except asyncio.CancelledError as exc:
            if uncancel:
                asyncio.current_task().uncancel()
            return describe(exc)

    async def _finally(self, here, steps, more):
        try:
            return await self.steps(here, steps)
        finally:
            await self.steps(f"{here}.finally", more)

    async def _raise(self, here, name):
        raise ERRORS[name](here)

    async def wait_future(self, here, name):
        return await self.futures[name]

    async def resolve(self, here, name):
        self.futures[name].set_result(here)

    async def fail(self, here, name):
        self.futures[name].set_exception(ValueError(here))

    async def cancel_future(self, here, name):
        return self.futures[name].cancel()

    # ------------------------------------------------------------ locks

    async def acquire(self, here, name):
        return await self.objects[name].acquire()

    async def release(self, here, name):
        return self.objects[name].release()

    async def _with(self, here, name, steps):
        async with self.objects[name] as value:
            self.note(here, "entered", value if isinstance(value, int) else None)
            return await self.steps(here, steps)

    async def wait_event(self, here, name):
        return await self.objects[name].wait()

    async def set(self, here, name):
        return self.objects[name].set()

    async def clear(self, here, name):
        return self.objects[name].clear()

    async def monitor(self, here, steps):
        return await self._with(here, "cond", steps)

    async def wait_cond(self, here):
        return await self._wait_cond(self.objects["cond"].wait())

    async def wait_cond_for(self, here, count):
        return await self._wait_cond(self.objects["cond"].wait_for(lambda: self.count >= count))

    async def _wait_cond(self, wait):
        try:
            return await wait
        except asyncio.CancelledError:
            # asyncio wakes another waiter now even if this one was not notified; it need not, and
            # veloop does not. Woken are all, so that this makes no difference.
            if self.objects["cond"].locked():
                self.objects["cond"].notify_all()
            raise

    async def bump(self, here):
        self.count += 1
        self.objects["cond"].notify()

    async def notify(self, here, count):
        return self.objects["cond"].notify(count)

    async def notify_all(self, here):
        return self.objects["cond"].notify_all()

    async def peek(self, here):
        """The state of everything, as far as it has a public one."""
        state = {}
        for name, each in self.objects.items():
            for attribute in ("locked", "is_set", "qsize", "empty", "full"):
                if hasattr(each, attribute):
                    state[f"{name}.{attribute}"] = getattr(each, attribute)()
        return state

    # ------------------------------------------------------------ queues

    async def put(self, here, name, item):
        return await self.objects[name].put(item)

    async def put_nowait(self, here, name, item):
        return self.objects[name].put_nowait(item)

    async def get(self, here, name):
        return await self.objects[name].get()

    async def get_nowait(self, here, name):
        return self.objects[name].get_nowait()

    async def task_done(self, here, name):
        return self.objects[name].task_done()

    async def join_queue(self, here, name):
        return await self.objects[name].join()

    async def shutdown(self, here, name, immediate):
        return self.objects[name].shutdown(immediate)

    # ------------------------------------------------------------ timeouts

    async def timeout(self, here, delay, steps):
        task = asyncio.current_task()
        stack = self.timeouts.setdefault(task, [])
        manager = self.aio.timeout(delay)
        try:
            async with manager as entered:
                stack.append(entered)
                try:
                    return await _delivered(self.steps(here, steps))
                finally:
                    stack.pop()
        finally:
            self.note(here, "expired", (manager.expired(), manager.when()))

    async def reschedule(self, here, delay):
        return self._reschedule(self.loop.time() + delay)

    async def reschedule_none(self, here):
        return self._reschedule(None)

    def _reschedule(self, when):
        stack = self.timeouts.get(asyncio.current_task())
        if not stack:
            return "no timeout"
        stack[-1].reschedule(when)
        return stack[-1].when(), stack[-1].expired()

    async def wait_for(self, here, delay, steps):
        return await self.aio.wait_for(self.body(here, steps, of_a_timeout=True), delay)

    # ------------------------------------------------------------ several at once

    def children(self, here, bodies):
        return [self.body(f"{here}.{number}", steps) for number, steps in enumerate(bodies)]

    def child_tasks(self, here, bodies):
        return [self.aio.create_task(child) for child in self.children(here, bodies)]

    async def gather(self, here, return_exceptions, bodies):
        try:
            results = await self.aio.gather(
                *self.children(here, bodies), return_exceptions=return_exceptions
            )
        except asyncio.CancelledError:
            if not return_exceptions:
                raise
            # asyncio takes the message of the last child, be it cancelled or not; nobody can
            # mean that, so it is not compared.
            raise asyncio.CancelledError from None
        return [describe(each) if isinstance(each, BaseException) else each for each in results]

    async def shield(self, here, steps):
        return await self.aio.shield(self.body(here, steps))

    async def wait(self, here, bodies, timeout, return_when):
        done, pending = await self.aio.wait(
            self.child_tasks(here, bodies),
            timeout=timeout,
            return_when=getattr(self.aio, return_when),
        )
        return [sorted(task.get_name() for task in each) for each in (done, pending)]

    async def as_completed(self, here, bodies, timeout):
        for each in self.aio.as_completed(self.child_tasks(here, bodies), timeout=timeout):
            await self._completed(here, each)

    async def as_completed_async(self, here, bodies, timeout):
        tasks = self.child_tasks(here, bodies)
        async for each in self.aio.as_completed(tasks, timeout=timeout):
            self.note(here, "yielded", tasks.index(each))
            await self._completed(here, each)

    async def _completed(self, here, awaitable):
        try:
            self.note(here, "completed", await awaitable)
        except (ValueError, KeyError) as exc:
            self.note(here, "completed", describe(exc))

    async def group(self, here, bodies, steps):
        async with self.aio.TaskGroup() as group:
            for child in self.children(here, bodies):
                group.create_task(child)
            return await self.steps(f"{here}.body", steps)


# Names of operations that are keywords of Python.
for _name in ("with", "finally", "raise"):
    setattr(World, _name, getattr(World, f"_{_name}"))
