"""timers.py: call_later and call_at.

Where order or due time is tested the clock is a VirtualClock: `loop.time` replaced on the instance,
which the loop must honour. Only "never early" needs real time, and it asserts no upper bound.
"""

import asyncio
import math
import random
import sys
import threading
import time
import weakref
from fractions import Fraction

import pytest

from helpers import PATIENCE, Background, VirtualClock, collect, run, run_turns, run_until


@pytest.fixture
def clock(loop):
    """The loop's clock, standing still."""
    loop.time = VirtualClock()
    return loop.time


@pytest.fixture
def slack(loop_kind):
    """How early a timer may be: asyncio adds the clock's resolution, veloop nothing."""
    return 0.0 if loop_kind == "veloop" else time.get_clock_info("monotonic").resolution


# ------------------------------------------------------------ real time


def test_timer_fires_once_with_its_arguments(loop):
    seen = []
    loop.call_later(0.001, seen.append, 1)
    loop.call_later(0.003, loop.stop)
    loop.run_forever()
    run_turns(loop, 2)
    assert seen == [1]


def test_timers_are_never_early(loop, slack):
    rng = random.Random(1)
    early = []
    left = 300

    def check(when):
        nonlocal left
        left -= 1
        if loop.time() < when - slack:
            early.append(when - loop.time())
        if not left:
            loop.stop()

    for _ in range(left):
        when = loop.time() + rng.random() * 0.05
        loop.call_at(when, check, when)
    loop.run_forever()
    assert early == []


@pytest.mark.parametrize("delay", [0.0001, 0.0005, 0.0009, 0.0011, 0.0019, 0.01])
def test_short_timers_are_never_early(loop, slack, delay):
    # One after the other, so that each finds the loop idle.
    async def main():
        early = []
        for _ in range(10):
            start = time.monotonic()
            await asyncio.sleep(delay)
            passed = time.monotonic() - start
            if passed < delay - slack:
                early.append(passed)
        return early

    assert run(loop, main()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others count in milliseconds")
@pytest.mark.veloop_only("asyncio's sleep ends with a whole millisecond")
@pytest.mark.parametrize("delay", [0.0002, 0.0013])
def test_idle_loop_need_not_wait_for_a_whole_millisecond(loop, delay):
    """The best of many: how late a loop may be is not for a test, that it must be late is."""

    async def main():
        late = []
        for _ in range(100):
            due = loop.time() + delay
            await asyncio.sleep(delay)
            late.append(loop.time() - due)
        return min(late)

    assert run(loop, main()) < 0.0005


def test_timer_wakes_an_idle_loop(loop):
    loop.call_later(0.002, loop.stop)
    loop.run_forever()


def test_earlier_timer_set_while_idle_shortens_the_wait(loop):
    started = threading.Event()
    loop.call_soon(started.set)
    late = loop.call_later(3600, print)

    def waker():
        assert started.wait(PATIENCE)
        loop.call_soon_threadsafe(loop.call_later, 0.001, loop.stop)

    with Background(waker):
        loop.run_forever()
    late.cancel()


def test_cancelled_timer_does_not_hold_the_next_one_up(loop):
    loop.call_later(0.001, print).cancel()
    loop.call_later(0.002, loop.stop)
    loop.run_forever()


def test_thousands_of_sleeps_all_end(loop):
    rng = random.Random(2)

    async def main():
        delays = [rng.random() * 0.1 for _ in range(5000)]
        return await asyncio.gather(*[asyncio.sleep(delay, delay) for delay in delays]) == delays

    assert run(loop, main())


# ------------------------------------------------------------ order and due time


def test_timer_does_not_fire_before_its_time(loop, clock):
    seen = []
    handle = loop.call_later(5, seen.append, "fired")
    assert handle.when() == 1005.0
    run_turns(loop, 3)
    clock.advance(4.999)
    run_turns(loop, 3)
    assert seen == []
    clock.advance(0.001)
    run_turns(loop, 2)
    assert seen == ["fired"]


def test_timers_fire_in_the_order_of_their_time(loop, clock):
    seen = []
    for delay in (3, 1, 2, 5, 4):
        loop.call_later(delay, seen.append, delay)
    clock.advance(10)
    run_turns(loop, 2)
    assert seen == [1, 2, 3, 4, 5]


def test_thousands_of_timers_fire_in_the_order_of_their_time(loop, clock):
    rng = random.Random(3)
    times = rng.sample(range(1_000_000), 5000)
    seen = []
    for when in times:
        loop.call_at(when, seen.append, when)
    clock.now = 300_000
    run_turns(loop, 2)
    assert seen == sorted(when for when in times if when <= 300_000)
    clock.now = 1_000_000
    run_turns(loop, 2)
    assert seen == sorted(times)


def test_timers_and_cancellations_at_random(loop, clock):
    # Against the simplest model there is: a dict and sorted().
    rng = random.Random(4)
    model = {}
    fired, expected = [], []
    for step in range(300):
        for _ in range(rng.randrange(20)):
            key = clock.now + rng.random() * 50
            model[key] = loop.call_at(key, fired.append, key)
        for key in rng.sample(sorted(model), min(len(model), rng.randrange(15))):
            model.pop(key).cancel()
        clock.advance(rng.random() * 10)
        due = sorted(key for key in model if key <= clock.now)
        for key in due:
            del model[key]
        expected += due
        run_turns(loop, 2)
        assert fired == expected, f"in step {step}"
    for handle in model.values():
        handle.cancel()


@pytest.mark.parametrize(
    "delay",
    [
        lambda rng, number: 30,
        lambda rng, number: 10_000 if number == 0 else rng.choice([1, 5, 30]),
        lambda rng, number: 200 - number % 200,
        lambda rng, number: rng.choice([0, 0, 1, 50, 60, 61]),
    ],
    ids=["all the same", "one is far", "sooner and sooner", "near and far"],
)
def test_timers_fire_in_order_whatever_the_pattern(loop, clock, delay):
    rng = random.Random(5)
    fired, scheduled, live = [], [], {}
    for number in range(4000):
        when = clock.now + delay(rng, number)
        live[number] = loop.call_at(when, lambda key=(when, number): fired.append(key))
        scheduled.append((when, number))
        if rng.random() < 0.3:
            gone = rng.choice(list(live))
            live.pop(gone).cancel()
            scheduled = [key for key in scheduled if key[1] != gone]
        if number % 20 == 0:
            clock.advance(1)
            run_turns(loop, 2)
            due = sorted(key for key in scheduled if key[0] <= clock.now)
            scheduled = [key for key in scheduled if key[0] > clock.now]
            # Of the same time: as they were made. asyncio leaves that open.
            seen = fired if type(loop).__module__.startswith("veloop") else sorted(fired)
            assert [when for when, _ in fired] == [when for when, _ in due]
            assert seen == due
            for _, each in due:
                del live[each]
            fired.clear()
    for handle in live.values():
        handle.cancel()


def test_timer_due_while_the_loop_did_not_run_fires_when_it_runs(loop, clock):
    seen = []
    loop.call_later(1, seen.append, 1)
    clock.advance(100)
    assert seen == []
    run_turns(loop, 2)
    assert seen == [1]


@pytest.mark.parametrize("delay", [0, 0.0, -1, -1e9, -math.inf, False])
def test_delay_that_is_not_positive_fires_at_the_next_chance(loop, clock, delay):
    seen = []
    handle = loop.call_later(delay, seen.append, "fired")
    assert isinstance(handle, asyncio.TimerHandle)
    assert seen == []
    run_turns(loop, 2)
    assert seen == ["fired"]


def test_time_in_the_past_fires_at_the_next_chance_in_order(loop, clock):
    seen = []
    for when in (990, 10, 1000, 500):
        loop.call_at(when, seen.append, when)
    run_turns(loop, 2)
    assert seen == [10, 500, 990, 1000]


def test_what_is_ready_runs_before_timers_that_are_due(loop, clock):
    seen = []
    loop.call_later(0, seen.append, "timer")
    loop.call_soon(seen.append, "ready")
    run_turns(loop, 2)
    assert seen == ["ready", "timer"]


def test_timer_set_by_a_callback_runs_in_a_later_turn(loop, clock):
    seen = []

    def callback():
        loop.call_later(0, seen.append, "timer")
        loop.call_soon(seen.append, "soon")

    loop.call_soon(callback)
    run_turns(loop)
    assert seen == []
    run_turns(loop, 2)
    assert seen == ["soon", "timer"]


def test_endless_zero_delays_do_not_starve_the_rest(loop):
    seen = []

    def again():
        if len(seen) < 5:
            loop.call_later(0, again)

    def step():
        seen.append(1)
        if len(seen) < 5:
            loop.call_soon(step)

    again()
    step()
    run_until(loop, lambda: len(seen) == 5, turns=20)
    run_turns(loop, 3)


def test_due_timers_run_in_the_single_turn_of_a_stopped_run(loop, clock):
    seen = []
    loop.call_at(0, seen.append, 1)
    loop.stop()
    loop.run_forever()
    assert seen == [1]


# ------------------------------------------------------------ another clock


def test_clock_that_jumps_during_a_callback_makes_timers_due(loop, clock):
    seen = []
    loop.call_later(60, seen.append, "an hour later")
    loop.call_soon(clock.advance, 3600)
    run_turns(loop, 3)
    assert seen == ["an hour later"]


def test_clock_that_goes_back_fires_nothing_early(loop, clock):
    seen = []
    loop.call_later(1, seen.append, 1)
    clock.advance(-500)
    run_turns(loop, 3)
    assert seen == []
    clock.advance(501)
    run_turns(loop, 2)
    assert seen == [1]


def test_clock_of_a_subclass_is_honoured(loop):
    class Loop(type(loop)):
        now = 5.0

        def time(self):
            return self.now

    seen = []
    mine = Loop()
    try:
        assert mine.call_later(2, seen.append, 1).when() == 7.0
        run_turns(mine, 2)
        assert seen == []
        mine.now = 7.0
        run_turns(mine, 2)
        assert seen == [1]
    finally:
        mine.close()


def test_asynchronous_timeouts_follow_the_clock(loop, clock):
    async def main():
        async with asyncio.timeout(30) as scope:
            assert scope.when() == 1030.0
            loop.call_soon(clock.advance, 31)
            await loop.create_future()

    with pytest.raises(TimeoutError):
        run(loop, main())


@pytest.mark.stock_since("3.15", "older asyncio spins where a nanosecond is lost in rounding")
@pytest.mark.parametrize("now", [1e8, 1e12, 1e18, 1e300])
def test_timer_that_is_due_now_fires_whatever_the_clock_reads(loop, clock, now):
    clock.now = now
    seen = []
    loop.call_at(now, seen.append, 1)
    run_turns(loop, 2)
    assert seen == [1]


def test_waiting_follows_a_real_clock_with_another_origin(loop, slack):
    origin = time.monotonic()
    loop.time = lambda: time.monotonic() - origin + 1e6
    when = loop.time() + 0.005
    loop.call_at(when, loop.stop)
    loop.run_forever()
    # Beside 1e6 a float's last digit is worth a tenth of a nanosecond.
    assert loop.time() >= when - slack - 1e-9


# ------------------------------------------------------------ cancelling


def test_cancelled_timer_does_not_fire(loop, clock):
    seen = []
    handle = loop.call_later(1, seen.append, "cancelled")
    loop.call_later(1, seen.append, "kept")
    handle.cancel()
    assert handle.cancelled()
    clock.advance(2)
    run_turns(loop, 2)
    assert seen == ["kept"]


def test_timer_may_be_cancelled_after_it_fired_and_twice(loop, clock):
    seen = []
    handle = loop.call_later(0, seen.append, 1)
    run_turns(loop, 2)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    run_turns(loop, 2)
    assert seen == [1]


def test_timer_cancelled_by_one_that_is_due_with_it_does_not_fire(loop, clock):
    seen = []
    handles = []
    loop.call_later(1, lambda: handles[0].cancel())
    handles.append(loop.call_later(2, seen.append, "cancelled"))
    loop.call_later(3, seen.append, "kept")
    clock.advance(10)
    run_turns(loop, 2)
    assert seen == ["kept"]


def test_timer_may_cancel_itself(loop, clock):
    handles = []
    seen = []

    def callback():
        handles[0].cancel()
        seen.append("ran")

    handles.append(loop.call_later(0, callback))
    run_turns(loop, 2)
    assert seen == ["ran"]


def test_due_timer_cancelled_by_a_ready_callback_does_not_fire(loop, clock):
    seen = []
    handle = loop.call_later(0, seen.append, "cancelled")
    loop.call_soon(handle.cancel)
    run_turns(loop, 3)
    assert seen == []


def test_cancelled_timer_releases_its_callback_at_once(loop):
    class Target:
        def __call__(self):
            raise AssertionError

    target = Target()
    ref = weakref.ref(target)
    handle = loop.call_later(3600, target)
    del target
    handle.cancel()
    collect()
    assert ref() is None


@pytest.mark.parametrize("kept", [0, 10])
def test_cancelled_timers_are_freed_although_their_time_is_far(loop, kept):
    # A server that sets and drops a timeout for each request must not grow.
    alive = [loop.call_later(3600 + number, print) for number in range(kept)]
    refs = []
    for number in range(10_000):
        handle = loop.call_later(3600 + number % 97, print)
        refs.append(weakref.ref(handle))
        handle.cancel()
        if number % 1000 == 999:
            run_turns(loop)
    del handle
    run_turns(loop)
    collect()
    assert sum(ref() is not None for ref in refs) < 500
    for handle in alive:
        assert not handle.cancelled()
        handle.cancel()


def test_timer_is_released_after_it_fired(loop, clock):
    class Target:
        def __call__(self):
            pass

    target = Target()
    ref = weakref.ref(target)
    loop.call_later(0, target)
    del target
    run_turns(loop, 3)
    collect()
    assert ref() is None


def test_timer_nobody_holds_fires_all_the_same(loop, clock):
    seen = []
    loop.call_later(1, seen.append, 1)
    collect()
    clock.advance(1)
    run_turns(loop, 2)
    assert seen == [1]


# ------------------------------------------------------------ handles


def test_when_is_the_time_plus_the_delay(loop):
    before = loop.time()
    handle = loop.call_later(100, print)
    after = loop.time()
    assert before + 100 <= handle.when() <= after + 100
    handle.cancel()


def test_when_is_what_call_at_was_given(loop):
    for when in (2e9, 2_000_000_000, Fraction(4_000_000_001, 2)):
        handle = loop.call_at(when, print)
        assert handle.when() == when
        handle.cancel()


@pytest.mark.parametrize("delay", [1, 1.0, True, Fraction(1)], ids=repr)
def test_any_real_number_is_a_delay(loop, clock, delay):
    seen = []
    loop.call_later(delay, seen.append, 1)
    clock.advance(0.5)
    run_turns(loop, 2)
    assert seen == []
    clock.advance(0.5)
    run_turns(loop, 2)
    assert seen == [1]


def test_timer_handle_is_a_stock_timer_handle(loop):
    for handle in (loop.call_later(1, print), loop.call_at(1e12, print), loop.call_later(0, int)):
        assert isinstance(handle, asyncio.TimerHandle)
        handle.cancel()


def test_timer_handles_compare_by_their_time(loop):
    early, late, same = (loop.call_at(when, print) for when in (1e12, 2e12, 1e12))
    assert early < late
    assert early <= late
    assert late > early
    assert late >= early
    assert early <= same
    assert early >= same
    assert not early < same
    assert early == same
    assert early != late
    assert hash(early) == hash(same)
    assert sorted([late, early]) == [early, late]
    with pytest.raises(TypeError):
        assert early < 1.0
    assert early != 1e12
    for handle in (early, late, same):
        handle.cancel()


def test_repr_of_a_timer_tells_its_time(loop):
    handle = loop.call_at(1e12, print)
    assert f"when={1e12}" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)
    assert f"when={1e12}" in repr(handle)


def test_cancelled_ones_do_not_wait_for_their_time_while_others_come_and_go(loop):
    # Half of them go oldest first, which leaves them in their places; then the newest go.
    timers = [loop.call_later(3600, int) for _ in range(2001)]
    run_turns(loop)
    for timer in timers[:1000] + timers[:1000:-1]:
        timer.cancel()
    for _ in range(200):
        loop.call_later(3600, int).cancel()
    run_turns(loop)
    assert sum(timer._scheduled for timer in timers if timer.cancelled()) <= 200
    timers[1000].cancel()


# ------------------------------------------------------------ bad and extreme times


def test_delay_of_none_is_refused(loop):
    with pytest.raises(TypeError, match="delay must not be None"):
        loop.call_later(None, print)
    with pytest.raises(TypeError, match="when cannot be None"):
        loop.call_at(None, print)


@pytest.mark.parametrize("delay", ["1", b"1", [], {}, object()], ids=lambda x: type(x).__name__)
def test_delay_that_is_no_number_is_refused(loop, delay):
    with pytest.raises(TypeError):
        loop.call_later(delay, print)
    assert run(loop, asyncio.sleep(0, "usable")) == "usable"


@pytest.mark.veloop_only("asyncio takes a string, and then run_forever fails again and again")
@pytest.mark.parametrize("when", ["1", 1j, [], object()], ids=lambda x: type(x).__name__)
def test_time_that_is_no_number_is_refused_at_once(loop, when):
    with pytest.raises(TypeError):
        loop.call_at(when, print)
    assert run(loop, asyncio.sleep(0, "usable")) == "usable"


@pytest.mark.veloop_only("asyncio takes NaN: 3.11 fires at once, 3.13 fails in run_forever")
def test_nan_is_refused_at_once(loop):
    with pytest.raises(ValueError, match="nan"):
        loop.call_later(math.nan, print)
    with pytest.raises(ValueError, match="nan"):
        loop.call_at(math.nan, print)
    assert run(loop, asyncio.sleep(0, "usable")) == "usable"


@pytest.mark.parametrize("delay", [1e6, 1e9, 1e18, 1e300, math.inf, 10**30])
def test_huge_delay_is_only_a_long_wait(loop, delay):
    # The idle wait is computed from it: no overflow, no busy loop, and others still fire.
    handle = loop.call_later(delay, print)
    started = threading.Event()
    loop.call_later(0.001, started.set)

    def waker():
        assert started.wait(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)

    with Background(waker):
        loop.run_forever()
    handle.cancel()


def test_huge_integer_that_is_no_float_is_refused(loop):
    with pytest.raises(OverflowError):
        loop.call_later(10**400, print)


def test_missing_callback_is_refused(loop):
    with pytest.raises(TypeError):
        loop.call_later(1)
    with pytest.raises(TypeError):
        loop.call_at(1)


def test_exception_in_a_timer_does_not_stop_the_others(loop, clock, loop_errors):
    seen = []
    loop.call_later(1, seen.append, 1)
    loop.call_later(2, lambda: 1 / 0)
    loop.call_later(3, seen.append, 3)
    clock.advance(5)
    run_turns(loop, 2)
    assert seen == [1, 3]
    assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)
