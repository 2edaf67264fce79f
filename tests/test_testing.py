"""veloop.testing: the clock that jumps, the clock that is advanced, and when neither moves."""

import asyncio
import signal
import socket
import sys
import threading
import time

import pytest

import helpers
from helpers import PATIENCE, Background


@pytest.fixture
def testing():
    helpers.import_veloop()
    import veloop.testing

    return veloop.testing


@pytest.fixture
def make(testing):
    """new_event_loop() whose loops are closed at the end of the test."""
    loops = []

    def new_event_loop(*args, **kwargs):
        loops.append(testing.new_event_loop(*args, **kwargs))
        return loops[-1]

    # What a process opens once must not be taken for a leak.
    new_event_loop().close()
    yield new_event_loop
    for loop in loops:
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


@pytest.fixture
def loop(make):
    return make()


@pytest.fixture
def manual(make):
    return make(manual=True)


# ------------------------------------------------------------ the clock


def test_clock_starts_at_zero_or_where_it_is_told(make):
    assert make().time() == 0.0
    assert make(12.5).time() == 12.5
    assert make(start=-3).time() == -3.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": float("inf")}, "start must be finite, got inf"),
        ({"start": float("nan")}, "start must be finite, got nan"),
        ({"grace": float("inf")}, "grace must be finite, got inf"),
        ({"grace": -1}, "grace must not be negative, got -1"),
    ],
)
def test_bad_arguments_are_refused(testing, arguments, message):
    with pytest.raises(ValueError, match=message):
        testing.new_event_loop(**arguments)
    with pytest.raises(ValueError, match=message):
        testing.VirtualClockLoop(**arguments)


def test_factory_makes_event_loops_of_veloop(make, testing):
    loop = make()
    assert type(loop) is testing.VirtualClockLoop
    assert isinstance(loop, helpers.import_veloop().EventLoop)


@pytest.mark.parametrize("runner", ["asyncio", "veloop"])
def test_factory_is_for_run(testing, runner):
    async def main():
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    aio = asyncio if runner == "asyncio" else helpers.import_veloop()
    with aio.Runner(loop_factory=testing.new_event_loop) as each:
        assert each.run(main()) == 3600.0


def test_sleep_of_a_year_takes_no_time(aio, loop):
    async def main():
        result = await aio.sleep(365 * 24 * 3600, "slept")
        return result, loop.time()

    assert loop.run_until_complete(main()) == ("slept", 365 * 24 * 3600.0)


def test_clock_goes_on_where_the_last_run_ended(loop):
    loop.run_until_complete(asyncio.sleep(1))
    loop.run_until_complete(asyncio.sleep(2))
    assert loop.time() == 3.0


def test_clock_stands_still_during_callbacks(loop):
    async def main():
        before = loop.time()
        time.sleep(0.01)
        for _ in range(100):
            await asyncio.sleep(0)
        return before, loop.time()

    assert loop.run_until_complete(main()) == (0.0, 0.0)


def test_timers_fire_in_the_order_of_their_times_at_exactly_them(loop):
    fired = []
    for delay in (0.3, 0.1, 0.2, 0.1, 0.0):
        loop.call_later(delay, lambda delay=delay: fired.append((delay, loop.time())))
    loop.call_later(1, loop.stop)
    loop.run_forever()
    assert fired == [(0.0, 0.0), (0.1, 0.1), (0.1, 0.1), (0.2, 0.2), (0.3, 0.3)]
    assert loop.time() == 1.0


def test_time_does_not_pass_while_callbacks_are_ready(loop):
    times = []

    async def main():
        loop.call_later(0.001, times.append, "timer")
        for turn in range(50):
            times.append(turn)
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert times == list(range(50))


def test_cancelled_timer_does_not_move_the_clock(loop):
    loop.call_later(10, pytest.fail, "cancelled").cancel()
    loop.run_until_complete(asyncio.sleep(1))
    assert loop.time() == 1.0
    loop.run_until_complete(asyncio.sleep(20))
    assert loop.time() == 21.0


def test_timer_in_the_past_fires_now(loop):
    async def main():
        await asyncio.sleep(5)
        fired = loop.create_future()
        loop.call_at(1, fired.set_result, None)
        await fired
        return loop.time()

    assert loop.run_until_complete(main()) == 5.0


def test_timeouts_expire_at_their_time(aio, loop):
    async def main():
        with pytest.raises(TimeoutError):
            async with aio.timeout(3600):
                await aio.Event().wait()
        with pytest.raises(TimeoutError):
            await aio.wait_for(loop.create_future(), 60)
        with pytest.raises(TimeoutError):
            await aio.wait_for(aio.Queue().get(), 0.5)
        done, pending = await aio.wait([aio.create_task(aio.sleep(9))], timeout=4)
        assert not done
        await pending.pop()
        return loop.time()

    assert loop.run_until_complete(main()) == 3600 + 60 + 0.5 + 9


def test_debug_mode_takes_the_same_time(loop):
    loop.set_debug(True)
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == 3600.0


def test_thousands_of_jumps(loop):
    async def main():
        for _ in range(2000):
            await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert loop.time() == 2000.0


# ------------------------------------------------------------ advance


def test_manual_clock_moves_by_what_it_is_told(manual):
    async def main():
        await manual.advance(2)
        await manual.advance(0.5)
        return manual.time()

    assert manual.run_until_complete(main()) == 2.5


def test_advance_runs_what_is_due_by_then_and_no_more(manual):
    ticks = []

    async def ticker():
        while True:
            ticks.append(manual.time())
            await asyncio.sleep(1)

    async def main():
        task = asyncio.create_task(ticker())
        await manual.advance(0)
        assert ticks == [0]
        await manual.advance(2.5)
        assert ticks == [0, 1, 2]
        assert manual.time() == 2.5
        await manual.advance(0.5)
        assert ticks == [0, 1, 2, 3]
        task.cancel()

    manual.run_until_complete(main())


def test_advance_waits_for_all_that_follows_from_a_timer(manual):
    done = []

    async def chain(event):
        await event.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        done.append(manual.time())

    async def main():
        event = asyncio.Event()
        task = asyncio.create_task(chain(event))
        manual.call_later(1, event.set)
        await manual.advance(1)
        assert done == [1]
        await task

    manual.run_until_complete(main())


def test_advance_outside_of_a_run(manual):
    fired = []
    manual.call_later(1, fired.append, "one")
    manual.call_later(2, fired.append, "two")
    manual.run_until_complete(manual.advance(1.5))
    assert (fired, manual.time()) == (["one"], 1.5)


def test_advances_of_several_tasks_end_each_at_its_time(manual):
    async def advance(seconds):
        await manual.advance(seconds)
        return manual.time()

    async def main():
        return await asyncio.gather(advance(3), advance(1), advance(2), advance(1))

    assert manual.run_until_complete(main()) == [3.0, 1.0, 2.0, 1.0]


def test_cancelled_advance_moves_nothing(manual):
    async def main():
        task = asyncio.create_task(manual.advance(10))
        sleeper = asyncio.create_task(asyncio.sleep(5))
        await asyncio.sleep(0)
        task.cancel()
        await manual.advance(1)
        assert task.cancelled()
        assert not sleeper.done()
        sleeper.cancel()
        return manual.time()

    assert manual.run_until_complete(main()) == 1.0


def test_advance_works_with_a_clock_that_jumps_as_well(loop):
    async def main():
        task = asyncio.create_task(asyncio.sleep(1))
        await loop.advance(1)
        assert task.done()
        return loop.time()

    assert loop.run_until_complete(main()) == 1.0


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_advance_by_what_is_no_time_is_refused(manual, seconds):
    with pytest.raises(ValueError, match="seconds must be finite and not negative, got"):
        manual.run_until_complete(manual.advance(seconds))


# ------------------------------------------------------------ deadlocks


def test_deadlock_names_the_tasks(loop, monkeypatch, testing):
    monkeypatch.setattr(testing, "_PATIENCE", 0.01)

    async def main():
        await asyncio.sleep(2)
        await asyncio.Event().wait()

    task = loop.create_task(main(), name="waits for Godot")
    with pytest.raises(RuntimeError, match=r"Deadlock at 2\.0: nothing.*'waits for Godot'"):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_deadlock_of_a_future_without_tasks(loop, monkeypatch, testing):
    monkeypatch.setattr(testing, "_PATIENCE", 0.01)
    with pytest.raises(RuntimeError, match="nothing is left that could wake the loop.*no task"):
        loop.run_until_complete(loop.create_future())


def test_timer_that_is_never_due_is_no_way_out(loop, monkeypatch, testing):
    monkeypatch.setattr(testing, "_PATIENCE", 0.01)
    task = loop.create_task(asyncio.sleep(float("inf")))
    with pytest.raises(RuntimeError, match="Deadlock at 0.0"):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_manual_clock_that_nobody_advances(manual, monkeypatch, testing):
    monkeypatch.setattr(testing, "_PATIENCE", 0.01)
    task = manual.create_task(asyncio.sleep(7))
    with pytest.raises(RuntimeError, match=r"nobody calls advance\(\).* due at 7\.0 only"):
        manual.run_until_complete(task)
    manual.run_until_complete(manual.advance(7))
    assert task.done()


def test_runner_cleans_up_after_a_deadlock(testing, monkeypatch):
    monkeypatch.setattr(testing, "_PATIENCE", 0.01)
    cleaned = []

    async def main():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(60)
            cleaned.append(asyncio.get_running_loop().time())

    with pytest.raises(RuntimeError, match="Deadlock"):
        with asyncio.Runner(loop_factory=testing.new_event_loop) as runner:
            runner.run(main())
    assert cleaned == [60.0]


def test_run_forever_waits_for_other_threads(loop):
    with Background(loop.run_forever):
        try:
            assert asyncio.run_coroutine_threadsafe(asyncio.sleep(9, "x"), loop).result() == "x"
        finally:
            loop.call_soon_threadsafe(loop.stop)
    assert loop.time() == 9.0


def test_thread_that_the_loop_does_not_know_may_wake_it(loop):
    future = loop.create_future()

    def work():
        time.sleep(0.02)
        loop.call_soon_threadsafe(future.set_result, "woken")

    with Background(work):
        assert loop.run_until_complete(future) == "woken"


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no signals on Windows")
def test_signal_handler_may_wake_the_loop(loop):
    async def main():
        got = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, got.set_result, "signal")
        threading.Timer(0.02, signal.raise_signal, [signal.SIGUSR1]).start()
        try:
            return await got
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    assert loop.run_until_complete(main()) == "signal"


# ------------------------------------------------------------ what goes on outside


def test_clock_stands_still_while_a_thread_works(aio, loop):
    async def main():
        with pytest.raises(ValueError, match="of the thread"):
            await aio.wait_for(loop.run_in_executor(None, fail), 3600)
        return await aio.wait_for(aio.to_thread(work), 3600)

    def work():
        time.sleep(0.02)
        return "worked", loop.time()

    def fail():
        time.sleep(0.02)
        raise ValueError("of the thread")

    assert loop.run_until_complete(main()) == ("worked", 0.0)
    assert loop.time() == 0.0


def test_thread_that_works_longer_than_its_timeout(aio, loop):
    release = threading.Event()

    async def main():
        with pytest.raises(TimeoutError):
            await aio.wait_for(aio.to_thread(release.wait, PATIENCE), 0.05)
        release.set()
        return loop.time()

    assert loop.run_until_complete(main()) == 0.05


def test_hold_keeps_the_clock(loop):
    async def main():
        answer = loop.create_future()

        def work():
            time.sleep(0.02)
            loop.call_soon_threadsafe(answer.set_result, "answer")

        with loop.hold(), Background(work):
            got = await asyncio.wait_for(answer, 3600)
        before = loop.time()
        await asyncio.sleep(1)
        return got, before, loop.time()

    assert loop.run_until_complete(main()) == ("answer", 0.0, 1.0)


def test_clock_that_is_held_goes_no_slower_than_time(loop):
    async def main():
        with loop.hold():
            start = time.monotonic()
            await asyncio.sleep(0.03)
            await asyncio.sleep(0.03)
            return time.monotonic() - start

    assert loop.run_until_complete(main()) >= 0.06
    assert loop.time() == 0.06


def test_clock_stands_still_during_look_ups(aio, loop):
    async def main():
        addresses = await aio.wait_for(
            loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM), 3600
        )
        name = await aio.wait_for(loop.getnameinfo(("127.0.0.1", 80)), 3600)
        return addresses, name

    addresses, name = loop.run_until_complete(main())
    assert addresses == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert name == socket.getnameinfo(("127.0.0.1", 80), 0)
    assert loop.time() == 0.0


@pytest.mark.parametrize("how", ["exec", "shell"])
def test_clock_stands_still_while_a_child_runs(loop, how):
    script = "import time; time.sleep(0.05); print('done')"

    async def main():
        if how == "exec":
            starting = asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=-1)
        else:
            starting = asyncio.create_subprocess_shell(
                f'"{sys.executable}" -c "{script}"', stdout=-1
            )
        child = await asyncio.wait_for(starting, 3600)
        out, _ = await asyncio.wait_for(child.communicate(), 3600)
        assert loop.time() == 0.0
        await asyncio.sleep(5)
        return out.split()

    assert loop.run_until_complete(main()) == [b"done"]
    assert loop.time() == 5.0


def test_connections_within_the_loop_do_not_time_out(aio, loop):
    async def answer(reader, writer):
        writer.write(await reader.readline())
        await aio.sleep(10)
        writer.write(b"later\n")
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await aio.start_server(answer, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(20):
            reader, writer = await aio.wait_for(aio.open_connection(*address), 1)
            writer.write(b"hello\n")
            assert await aio.wait_for(reader.readline(), 1) == b"hello\n"
            assert await aio.wait_for(reader.readline(), 11) == b"later\n"
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return loop.time()

    assert loop.run_until_complete(main()) == 200.0


def test_grace_gives_others_time_to_answer(make):
    loop = make(grace=PATIENCE)

    def answer(sock):
        time.sleep(0.02)
        sock.send(b"x")

    async def main(ours):
        return await asyncio.wait_for(loop.sock_recv(ours, 1), 3600)

    with helpers.socket_pair() as (ours, theirs), Background(answer, theirs):
        assert loop.run_until_complete(main(ours)) == b"x"
    assert loop.time() == 0.0


def test_no_grace_and_an_idle_socket(make):
    loop = make(grace=0)
    with helpers.socket_pair() as (ours, _):
        loop.add_reader(ours, pytest.fail, "nothing to read")
        loop.run_until_complete(asyncio.sleep(3600))
        loop.remove_reader(ours)
    assert loop.time() == 3600.0


def test_event_after_so_many_at_once_that_their_ring_grew(loop):
    received = []

    class Counting(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            received.append(data)

    async def open_endpoint():
        endpoint = await loop.create_datagram_endpoint(Counting, local_addr=("127.0.0.1", 0))
        return endpoint[0]

    async def main():
        transports = [await open_endpoint() for _ in range(40)]
        addresses = [each.get_extra_info("sockname") for each in transports]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for address in addresses * 25:
                sock.sendto(b"x", address)
            while len(received) < 1000:  # busy: with the accelerator it is C that takes them
                await asyncio.sleep(0)
            sock.sendto(b"last", addresses[0])
            await asyncio.sleep(1)  # here it is Python that looks
        assert received.count(b"last") == 1
        for transport in transports:
            transport.abort()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_interrupt_ends_a_wait_without_end(loop):
    with helpers.socket_pair() as (ours, _):
        loop.add_reader(ours, pytest.fail, "nothing to read")
        running = threading.Event()

        def interrupt():
            assert running.wait(helpers.PATIENCE)
            signal.raise_signal(signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        loop.call_soon(running.set)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(loop.create_future())
        thread.join()
        loop.remove_reader(ours)


def test_closed_loop_is_closed(make):
    loop = make()
    loop.run_until_complete(asyncio.sleep(1))
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_later(1, print)
    assert loop.time() == 1.0
