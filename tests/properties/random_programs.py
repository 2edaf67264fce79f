"""Random programs: what the tasks of a program do, as data.

A program is a list of bodies, one for each task; a body is a list of steps; a step is a tuple: the
name of an operation (a method of interpreter.World) and its arguments, which may be bodies. A name
with "!" before it lets the operation's exception out of the body, else it is noted and the body
goes on. `interpreter.py` runs programs; this file only makes them, so that Hypothesis can
shrink them and a failing one can be pasted into a test.

Steps take no time but what they wait for; times are multiples of 0.5 s, which floats add without an
error, and few, so that much falls into the same instant.
"""

import functools
import sys

from hypothesis import strategies as st

# What is left out where the running Python's asyncio has not got it, or has it with another
# meaning than the newest, which veloop has everywhere. operation -> (since, why).
NEWER = {
    "wait_for": ((3, 12), "wait_for() runs a coroutine in the task that waits since 3.12"),
    "group": ((3, 13), "a TaskGroup uncancels, and keeps a cancellation from outside, since 3.13"),
    "wait_cond": ((3, 13), "who is notified and cancelled hands it on since 3.13"),
    "wait_cond_for": ((3, 13), "as wait_cond"),
    "sem1": ((3, 13), "a semaphore wakes as many as it has room for since 3.13"),
    "sem2": ((3, 13), "as sem1"),
    "bounded": ((3, 13), "as sem1"),
    "shutdown": ((3, 13), "Queue.shutdown() is new in 3.13"),
    "as_completed_async": ((3, 13), "as_completed() is an asynchronous iterator since 3.13"),
}

DELAYS = st.sampled_from([0, 0, 0.5, 1, 1, 1, 2, 3])
# As in calls: shorter than the delays, equal, longer; and those that are over at once.
TIMEOUTS = st.sampled_from([0, 0.5, 1, 1, 2, 2.5, 4, -1, None])

# There are no barriers: in asyncio a task that is cancelled while it waits for one wakes another
# for nothing, who then goes on in another turn than with veloop (docs/locks.md). Programs can tell.

# theme -> how deep bodies nest, how many steps one has, how many tasks there are at first.
THEMES = {
    "locks": (1, 8, 8),
    "conditions": (1, 8, 8),
    "queues": (1, 8, 8),
    "tasks": (2, 8, 4),
    "everything": (2, 8, 6),
}

QUEUES = ["queue", "queue1", "priority", "lifo"]


def _ops(names, *arguments):
    return [st.tuples(st.just(name), *arguments) for name in names if not _is_newer(name)]


def _is_newer(op):
    entry = NEWER.get(op.lstrip("!"))
    return entry is not None and sys.version_info[:2] < entry[0]


LOCKS = [name for name in ("lock", "sem1", "sem2", "bounded") if not _is_newer(name)]


def simple(theme, locks, queues):
    """Strategies of steps without a body, by theme."""
    which = st.integers(0, 7)  # of the tasks that exist by then
    cancels = _ops(["cancel"], which, st.sampled_from([None, None, "why"]))
    sleeps = _ops(["sleep"], DELAYS) * 8
    themes = {
        "locks": [
            *_ops(["acquire", "release"], st.sampled_from(locks)) * 8,
            *_ops(["peek"]),
        ],
        "conditions": [
            *_ops(["acquire", "release"], st.just("cond")),
            *_ops(["wait_cond", "notify_all"]),
            *_ops(["notify"], st.integers(0, 2)),
            *_ops(["wait_event", "wait_event", "set", "clear"], st.just("event")) * 2,
            *_ops(["peek"]),
        ],
        "queues": [
            *_ops(["put", "put", "put_nowait"], st.sampled_from(queues), st.integers(0, 9)) * 3,
            *_ops(["get"], st.sampled_from(queues)) * 8,
            *_ops(["get", "get_nowait", "task_done", "join_queue"], st.sampled_from(queues)),
            *_ops(["shutdown"], st.sampled_from(queues), st.booleans()),
            *_ops(["peek"]),
        ],
        "tasks": [
            *_ops(["cancel_self", "cancelling", "uncancel"]),
            *_ops(["raise"], st.sampled_from(["ValueError", "KeyError"])),
            *_ops(["wait_future", "resolve", "fail", "cancel_future"], st.sampled_from("ab")),
            *_ops(["wait_task"], which) * 2,
            *_ops(["call_later"], DELAYS),
            *_ops(["call_soon", "reschedule_none"]),
            *_ops(["reschedule"], DELAYS),
        ],
    }
    if theme == "everything":
        return sleeps * 2 + cancels * 2 + [each for some in themes.values() for each in some]
    return sleeps + cancels + themes[theme]


def compound(theme, locks, body):
    """Strategies of steps with bodies, by theme."""
    bodies = st.lists(body, min_size=1, max_size=3)
    common = [
        *_ops(["timeout", "!timeout", "wait_for", "!wait_for"], TIMEOUTS, body),
        *_ops(["spawn"], body),
        *_ops(["shelter"], body, st.booleans()),
        *_ops(["finally"], body, body),
    ]
    themes = {
        "locks": [*_ops(["with"], st.sampled_from(locks), body) * 4],
        "conditions": [
            *_ops(["monitor"], monitor_body()) * 8,
            *_ops(["with"], st.just("cond"), body),
        ],
        "queues": [],
        "tasks": [
            *_ops(["gather", "!gather"], st.booleans(), bodies),
            *_ops(["shield", "!shield"], body),
            *_ops(
                ["wait"],
                bodies,
                TIMEOUTS,
                st.sampled_from(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]),
            ),
            *_ops(["as_completed", "as_completed_async"], bodies, TIMEOUTS),
            *_ops(["group", "!group"], bodies, body) * 2,
        ],
    }
    if theme == "everything":
        return common + [each for some in themes.values() for each in some]
    return common + themes[theme]


def monitor_body():
    """What is done with the condition's lock held."""
    return st.lists(
        st.one_of(
            *_ops(["wait_cond", "wait_cond", "notify_all", "bump"]),
            *_ops(["wait_cond_for"], st.integers(1, 3)),
            *_ops(["notify"], st.integers(0, 2)),
            *_ops(["sleep"], DELAYS),
        ),
        min_size=1,
        max_size=3,
    )


@functools.cache
def bodies(theme, locks, queues, depth, size):
    steps = st.one_of(*simple(theme, locks, queues))
    if depth:
        inner = bodies(theme, locks, queues, depth - 1, size // 2)
        others = st.one_of(*compound(theme, locks, inner))
        # Half of the steps have bodies, however many operations of either sort there are.
        plain, steps = steps, st.booleans().flatmap(lambda nested: others if nested else plain)
    return st.lists(steps, min_size=size // 2, max_size=size)


def programs(theme):
    """Most programs have one lock and one queue, so that their tasks meet there."""
    some_locks = st.sampled_from([*((each,) for each in LOCKS), tuple(LOCKS)])
    some_queues = st.sampled_from([*((each,) for each in QUEUES), tuple(QUEUES)])
    depth, size, tasks = THEMES[theme]
    return st.tuples(some_locks, some_queues).flatmap(
        lambda some: st.lists(
            bodies(theme, *some, depth, size), min_size=tasks // 2, max_size=tasks
        )
    )
