"""Random bytes in random pieces, and random calls that read them: as asyncio's StreamReader.

One task makes the calls, one after the other; between its waits the data, the end or an error
comes. Compared are what each call returns or raises, and when, and when the transport is paused.
"""

import asyncio
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

import helpers
from examples import SCALE, SEED, SETTINGS, difference

# A failing program is made smaller, which takes its time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# Few different bytes, so that separators occur, whole and cut in two.
DATA = st.text("ab\n", max_size=12).map(str.encode)

SEPARATORS = [b"\n", b"a", b"ab", b"aba", b"bb\n", b""]
if sys.version_info >= (3, 13):  # several are allowed since then
    SEPARATORS += [(b"ab", b"b"), (b"aba", b"a\n"), (b"\n",), (), (b"",)]

CALLS = st.one_of(
    st.tuples(st.just("read"), st.sampled_from([-1, 0, 1, 2, 5, 100])),
    st.tuples(st.just("readexactly"), st.sampled_from([-1, 0, 1, 2, 5, 15])),
    st.tuples(st.just("readuntil"), st.sampled_from(SEPARATORS)),
    st.tuples(st.just("readline")),
    st.tuples(st.just("__anext__")),
)

EVENTS = st.one_of(
    st.tuples(st.just("feed_data"), DATA),
    st.tuples(st.just("feed_data"), DATA),
    st.tuples(st.just("feed_data"), DATA),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("read_as_well")),
    st.tuples(st.just("set_exception")),
)


class Transport:
    """What a StreamReader needs of one."""

    def __init__(self, trace):
        self.trace = trace
        self.caller = None

    def pause_reading(self):
        self._note("pause_reading")

    def resume_reading(self):
        self._note("resume_reading")

    def _note(self, what):
        # What asyncio has taken out of the buffer veloop still has in it, so it pauses and goes on.
        if not self.caller.reads_to_the_end:
            self.trace.append(what)


def describe(exc):
    name = type(exc).__name__
    if isinstance(exc, asyncio.IncompleteReadError):
        return name, bytes(exc.partial), exc.expected
    if isinstance(exc, asyncio.LimitOverrunError):
        return name, exc.consumed, str(exc)
    return name, *exc.args


async def outcome(awaitable):
    try:
        return await awaitable
    except (Exception, asyncio.CancelledError) as exc:
        return describe(exc)


class Caller:
    """Makes the calls one after the other; `call` is the one that waits."""

    def __init__(self, reader, calls, trace):
        self.call = None
        self.begins_anew = False
        self.task = asyncio.create_task(self._run(reader, calls, trace))

    async def _run(self, reader, calls, trace):
        for self.call in calls:
            trace.append(("calls", *self.call))
            name, *args = self.call
            result = await outcome(getattr(reader, name)(*args))
            while self.begins_anew:
                self.begins_anew = False
                result = await outcome(getattr(reader, name)(*args))
            trace.append(result)

    def begin_anew(self):
        """Make the call that waits once more, as if it had not looked at anything yet."""
        self.begins_anew = True
        self.task.cancel()

    @property
    def reads_to_the_end(self):
        """asyncio collects elsewhere then, and loses it if that fails; veloop in the buffer."""
        return self.call == ("read", -1)

    @property
    def searches(self):
        """asyncio's searches only behind as many bytes as it saw, also if they were taken since."""
        return self.call[0] in ("readline", "readuntil", "__anext__")


async def trace_of(aio, limit, calls, events):
    trace = []
    reader = aio.StreamReader(limit)
    transport = Transport(trace)
    reader.set_transport(transport)
    caller = transport.caller = Caller(reader, calls, trace)
    await _settle()
    for name, *args in [*events, ("feed_eof",)]:
        trace.append((name, *args))
        if name in ("cancel", "set_exception") and caller.reads_to_the_end:
            continue
        if name == "cancel":
            caller.task.cancel()  # ends the call, not the task
        elif name == "read_as_well":
            # Two may not wait at a time: an error at once, or else there is something to read.
            second = asyncio.create_task(outcome(reader.read(1)))
            await _settle()
            second.cancel()
            trace.append(await second)
            if aio is asyncio and caller.searches and not caller.task.done():
                caller.begin_anew()
        elif name == "set_exception":
            reader.set_exception(OSError("gone"))
        else:
            getattr(reader, name)(*args)
        await _settle()
        trace.append((reader.at_eof(), repr(reader.exception())))
    await caller.task
    return trace


async def _settle():
    for _ in range(5):
        await asyncio.sleep(0)


def check(kind, limit, calls, events):
    loop = helpers.new_event_loop(kind)
    try:
        expected, trace = (
            loop.run_until_complete(trace_of(aio, limit, calls, events))
            for aio in (asyncio, helpers.import_veloop())
        )
    finally:
        loop.close()
    if trace != expected:
        raise AssertionError(f"limit {limit}: {difference(expected, trace)}")


ARGUMENTS = {
    "limit": st.integers(1, 8) | st.just(1 << 16),
    "calls": st.lists(CALLS, min_size=1, max_size=8),
    "events": st.lists(EVENTS, max_size=10),
}


@pytest.mark.parametrize("kind", helpers.LOOPS)
def test_reads_are_the_same(kind):
    @hypothesis.settings(SETTINGS, max_examples=200 * SCALE, derandomize=True)
    @hypothesis.given(**ARGUMENTS)
    # A read to the end has the stream for itself, also when it has got something.
    @hypothesis.example(
        limit=8, calls=[("read", -1)], events=[("feed_data", b"a"), ("read_as_well",)]
    )
    # A line may begin behind what another read took.
    @hypothesis.example(
        limit=8,
        calls=[("readline",)],
        events=[("feed_data", b"a"), ("read_as_well",), ("feed_data", b"\na")],
    )
    @hypothesis.example(
        limit=8,
        calls=[("readuntil", b"ab")],
        events=[("feed_data", b"bb"), *[("read_as_well",)] * 2, ("feed_data", b"ab\n")],
    )
    def run(limit, calls, events):
        check(kind, limit, calls, events)

    run()


@pytest.mark.parametrize("kind", helpers.LOOPS)
def test_reads_nobody_has_seen_are_the_same(kind):
    @hypothesis.seed(SEED)
    @hypothesis.settings(SETTINGS, max_examples=100 * SCALE)
    @hypothesis.given(**ARGUMENTS)
    def run(limit, calls, events):
        check(kind, limit, calls, events)

    run()
