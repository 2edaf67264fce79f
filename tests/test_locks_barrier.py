"""Barrier."""

import asyncio

import pytest

from helpers import run
from task_helpers import turns


def waiting(barrier, number):
    return [asyncio.create_task(barrier.wait()) for _ in range(number)]


async def broken(tasks, message):
    for task in tasks:
        with pytest.raises(asyncio.BrokenBarrierError, match=message):
            await task


def test_barrier_of_nobody_is_an_error(aio):
    with pytest.raises(ValueError, match="parties must be"):
        aio.Barrier(0)


def test_barrier_of_one_never_waits(aio, loop):
    async def main():
        barrier = aio.Barrier(1)
        assert barrier.parties == 1
        assert [await barrier.wait() for _ in range(3)] == [0, 0, 0]
        assert repr(barrier).endswith("[filling, waiters:0/1]>")

    run(loop, main())


def test_barrier_opens_when_all_are_there(aio, loop):
    async def main():
        barrier = aio.Barrier(3)
        tasks = waiting(barrier, 2)
        await turns(3)
        assert barrier.n_waiting == 2
        assert repr(barrier).endswith("[filling, waiters:2/3]>")
        assert not any(task.done() for task in tasks)
        assert await barrier.wait() == 2
        assert await asyncio.gather(*tasks) == [0, 1]
        assert barrier.n_waiting == 0

    run(loop, main())


def test_barrier_opens_again_and_again(aio, loop):
    async def main():
        barrier, rounds = aio.Barrier(3), []

        async def worker():
            for number in range(4):
                await barrier.wait()
                rounds.append(number)

        await asyncio.gather(*(worker() for _ in range(3)))
        assert rounds == sorted(rounds)
        assert len(rounds) == 12

    run(loop, main())


def test_more_tasks_than_parties_form_several_rounds(aio, loop):
    async def main():
        barrier = aio.Barrier(2)
        tasks = waiting(barrier, 7)
        await turns(10)
        assert sum(task.done() for task in tasks) == 6
        assert barrier.n_waiting == 1
        await barrier.wait()
        assert sorted(await asyncio.gather(*tasks)) == [0, 0, 0, 0, 1, 1, 1]

    run(loop, main())


def test_who_comes_while_a_round_leaves_waits_for_the_next(aio, loop):
    async def main():
        barrier = aio.Barrier(2)
        (first,) = waiting(barrier, 1)
        await turns()
        assert await barrier.wait() == 1
        assert repr(barrier).endswith("[draining, waiters:0/2]>")
        assert barrier.n_waiting == 0
        late = asyncio.create_task(barrier.wait())
        await turns(3)
        assert first.done() and not late.done()
        assert barrier.n_waiting == 1
        await barrier.wait()
        await late

    run(loop, main())


def test_barrier_works_by_async_with(aio, loop):
    async def main():
        barrier, seen = aio.Barrier(2), []

        async def worker():
            async with barrier as index:
                seen.append(index)

        await asyncio.gather(worker(), worker())
        assert sorted(seen) == [0, 1]
        with pytest.raises(ZeroDivisionError):
            async with aio.Barrier(1):
                raise ZeroDivisionError

    run(loop, main())


def test_aenter_counts_nobody_before_it_is_awaited(aio, loop):
    async def main():
        barrier = aio.Barrier(1)
        coro = barrier.__aenter__()
        assert asyncio.iscoroutine(coro)
        coro.close()
        assert await barrier.wait() == 0

    run(loop, main())


def test_cancelled_task_is_not_counted(aio, loop):
    async def main():
        barrier = aio.Barrier(3)
        tasks = waiting(barrier, 2)
        await turns()
        tasks[0].cancel()
        await turns(3)
        assert tasks[0].cancelled()
        assert barrier.n_waiting == 1
        tasks += waiting(barrier, 1)
        await turns(2)
        assert not any(task.done() for task in tasks[1:])
        await barrier.wait()
        await asyncio.gather(*tasks[1:])

    run(loop, main())


def test_task_that_is_cancelled_while_the_barrier_opens_does_not_stop_the_others(aio, loop):
    async def main():
        barrier = aio.Barrier(3)
        tasks = waiting(barrier, 2)
        await turns()
        await barrier.wait()
        tasks[0].cancel()
        await turns(2)
        assert tasks[0].cancelled()
        assert tasks[1].result() == 1
        assert repr(barrier).endswith("[filling, waiters:0/3]>")

    run(loop, main())


def test_abort_breaks_the_barrier_for_all(aio, loop):
    async def main():
        barrier = aio.Barrier(3)
        tasks = waiting(barrier, 2)
        await turns()
        await barrier.abort()
        assert barrier.broken
        assert barrier.n_waiting == 0
        assert repr(barrier).endswith("[broken]>")
        await broken(tasks, "Abort or reset of barrier")
        await broken(waiting(barrier, 1), "Barrier aborted")

    run(loop, main())


def test_reset_makes_a_broken_barrier_whole(aio, loop):
    async def main():
        barrier = aio.Barrier(2)
        await barrier.abort()
        await barrier.reset()
        assert not barrier.broken
        tasks = waiting(barrier, 2)
        assert await asyncio.gather(*tasks) == [0, 1]

    run(loop, main())


def test_reset_sends_away_who_waits(aio, loop):
    async def main():
        barrier = aio.Barrier(3)
        tasks = waiting(barrier, 2)
        await turns()
        await barrier.reset()
        assert repr(barrier).endswith("[resetting, waiters:0/3]>")
        assert not barrier.broken
        # Who comes now waits until they are gone.
        late = waiting(barrier, 1)
        await broken(tasks, "Abort or reset of barrier")
        await turns(3)
        assert barrier.n_waiting == 1
        await asyncio.gather(*late, *waiting(barrier, 2))

    run(loop, main())


def test_abort_while_a_round_leaves_breaks_it(aio, loop):
    async def main():
        barrier = aio.Barrier(3)
        tasks = waiting(barrier, 2)
        await turns()
        await barrier.wait()
        await barrier.abort()
        await broken(tasks, "Abort or reset of barrier")
        assert barrier.broken
        await barrier.reset()
        assert await asyncio.gather(*waiting(barrier, 3)) == [0, 1, 2]

    run(loop, main())


@pytest.mark.own_module_only("asyncio's moves another one to the end for each that is cancelled")
def test_tasks_leave_in_order_of_arrival_whoever_was_cancelled(aio, loop):
    async def main():
        barrier, order = aio.Barrier(4), []

        async def worker(name):
            await barrier.wait()
            order.append(name)

        tasks = [asyncio.create_task(worker(name)) for name in "abc"]
        await turns()
        tasks[1].cancel()
        await turns(3)
        tasks += [asyncio.create_task(worker(name)) for name in "de"]
        await turns(3)
        assert order == ["e", "a", "c", "d"]

    run(loop, main())


def test_barrier_belongs_to_the_first_loop_it_is_waited_for_on(aio, new_loop):
    first, second = new_loop(), new_loop()
    barrier = aio.Barrier(2)

    async def time_out():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(barrier.wait(), 0.001)

    async def refused():
        with pytest.raises(RuntimeError, match="is bound to a different event loop"):
            await barrier.wait()
        assert barrier.n_waiting == 0

    run(first, time_out())
    run(second, refused())
