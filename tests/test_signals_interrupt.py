"""signals.py, second half: Ctrl-C. Each test is a process of its own that gets a real SIGINT.

It must end at once, idle or busy, nothing may be lost, and it must never take a second one.
"""

import signal
import sys

import pytest

from children import Script
from helpers import WINDOWS

pytestmark = pytest.mark.skipif(WINDOWS, reason="sends signals to processes")

INTERRUPTED = -signal.SIGINT


def interrupt(kind, source, signals=1, number=signal.SIGINT, idle=True):
    """Run the child until it says "ready", send the signal, and give back what came of it."""
    with Script(kind, source) as child:
        for _ in range(signals):
            child.expect("ready")
            if idle:
                child.wait_idle()
            child.signal(number)
        return child.finish()


# ------------------------------------------------------------ run()


@pytest.mark.parametrize(
    "waiting",
    [
        "await asyncio.get_running_loop().create_future()",
        "await asyncio.sleep(3600)",
        "await asyncio.Event().wait()",
        "await asyncio.gather(*[asyncio.sleep(3600 + n) for n in range(10)])",
        "while True: await asyncio.sleep(0)",
        "while True: await asyncio.sleep(0.0005)",
    ],
    ids=["future", "sleep", "event", "gather", "busy", "ticking"],
)
def test_run_ends_with_keyboard_interrupt(loop_kind, waiting):
    source = f"""
    async def main():
        asyncio.get_running_loop().call_soon(print, "ready")
        try:
            {waiting}
        except asyncio.CancelledError:
            print("cancelled")
            raise
        finally:
            print("cleaned up")

    run(main())
    """
    code, stdout, stderr = interrupt(loop_kind, source, idle="await asyncio.sleep(0)" not in source)
    assert stdout.splitlines() == ["cancelled", "cleaned up"]
    assert code == INTERRUPTED
    assert stderr.rstrip().endswith("KeyboardInterrupt")


def test_run_with_a_runner(loop_kind):
    source = """
    async def main():
        asyncio.get_running_loop().call_soon(print, "ready")
        await asyncio.sleep(3600)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        # The loop is fit for more.
        print(runner.run(asyncio.sleep(0, "usable")))
    """
    code, stdout, stderr = interrupt(loop_kind, source)
    assert stdout.splitlines() == ["interrupted", "usable"]
    assert (code, stderr) == (0, "")


def test_coroutine_that_swallows_the_cancellation_goes_on(loop_kind):
    source = """
    async def main():
        asyncio.get_running_loop().call_soon(print, "ready")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
            await asyncio.sleep(0)
            return "went on"

    print(run(main()))
    """
    code, stdout, _ = interrupt(loop_kind, source)
    assert (code, stdout) == (0, "went on\n")


def test_second_interrupt_breaks_a_coroutine_that_never_yields(loop_kind):
    source = """
    async def main():
        before = signal.getsignal(signal.SIGINT)
        def counting(*args):
            print("ready")
            before(*args)
        signal.signal(signal.SIGINT, counting)
        print("ready")
        while True:
            pass

    run(main())
    """
    with Script(loop_kind, source) as child:
        child.expect("ready")
        child.signal(signal.SIGINT)
        child.expect("ready")
        child.signal(signal.SIGINT)
        code, _, stderr = child.finish()
    assert code == INTERRUPTED
    assert stderr.rstrip().endswith("KeyboardInterrupt")


def test_run_waits_for_threads_of_the_executor(loop_kind):
    source = """
    release = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, release.wait)
        loop.call_soon(print, "ready")
        try:
            await asyncio.sleep(3600)
        finally:
            release.set()

    try:
        run(main())
    except KeyboardInterrupt:
        print("threads", threading.active_count())
    """
    code, stdout, stderr = interrupt(loop_kind, source)
    assert (code, stdout, stderr) == (0, "threads 1\n", "")


# ------------------------------------------------------------ the bare loop


def test_idle_run_forever_raises(loop_kind):
    source = """
    loop = new_event_loop()
    loop.call_soon(print, "ready")
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        print("interrupted", loop.is_running())
    print(loop.run_until_complete(asyncio.sleep(0, "usable")))
    loop.close()
    """
    code, stdout, stderr = interrupt(loop_kind, source)
    assert stdout.splitlines() == ["interrupted False", "usable"]
    assert (code, stderr) == (0, "")


def test_run_forever_waiting_for_a_timer_raises_and_keeps_it(loop_kind):
    source = """
    loop = new_event_loop()
    timer = loop.call_later(3600, print)
    reading, writing = socket.socketpair()
    loop.add_reader(reading, loop.stop)
    loop.call_soon(print, "ready")
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        print("interrupted", timer.cancelled())
    writing.send(b"x")
    loop.run_forever()
    print("reader", loop.remove_reader(reading))
    loop.close()
    reading.close()
    writing.close()
    """
    code, stdout, stderr = interrupt(loop_kind, source)
    assert stdout.splitlines() == ["interrupted False", "reader True"]
    assert (code, stderr) == (0, "")


@pytest.mark.stock_unless(
    sys.version_info[:2] == (3, 14),
    "3.14 jumps back to the next turn outside of the protection of `try`; run_forever() that is "
    "interrupted there says that it is still running",
)
@pytest.mark.parametrize("attempt", range(5))
def test_busy_run_forever_raises_and_keeps_what_is_queued(loop_kind, attempt):
    # It hits one of ten chains at most, in the middle of its step or just before it.
    source = """
    loop = new_event_loop()
    steps = [0] * 10

    def step(n):
        steps[n] += 1
        loop.call_soon(step, n)

    for n in range(10):
        loop.call_soon(step, n)
    loop.call_soon(print, "ready")
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        pass
    before = list(steps)
    for _ in range(5):
        loop.call_soon(loop.stop)
        loop.run_forever()
    alive = [n for n in range(10) if steps[n] > before[n]]
    assert len(alive) >= 9, (before, steps)
    print("nothing lost")
    loop.close()
    """
    code, stdout, stderr = interrupt(loop_kind, source, idle=False)
    assert (code, stdout, stderr) == (0, "nothing lost\n", "")


def test_interrupt_again_and_again(loop_kind):
    source = """
    loop = new_event_loop()
    for number in range(30):
        loop.call_soon(print, "ready")
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            continue
        print("not interrupted")
    loop.close()
    print("done")
    """
    code, stdout, stderr = interrupt(loop_kind, source, signals=30)
    assert (code, stdout, stderr) == (0, "done\n", "")


def test_interrupt_of_a_loop_with_a_connection(loop_kind):
    source = """
    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.getsockname())
        peer, _ = listener.accept()
        loop.call_soon(print, "ready")
        try:
            await loop.create_future()
        finally:
            transport.close()
            await asyncio.sleep(0)
            peer.close()
            listener.close()

    try:
        run(main())
    except KeyboardInterrupt:
        print("interrupted")
    """
    code, stdout, stderr = interrupt(loop_kind, source)
    assert (code, stdout, stderr) == (0, "interrupted\n", "")


# ------------------------------------------------------------ other signals


def test_handler_for_sigint_takes_the_place_of_the_interrupt(loop_kind):
    source = """
    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGINT, done.set_result, "handled")
        loop.call_soon(print, "ready")
        print(await done)
        loop.remove_signal_handler(signal.SIGINT)

    run(main())
    """
    code, stdout, stderr = interrupt(loop_kind, source)
    assert (code, stdout, stderr) == (0, "handled\n", "")


def test_handler_for_sigterm_in_an_idle_loop(loop_kind):
    source = """
    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGTERM, done.set_result, "terminating")
        loop.call_soon(print, "ready")
        print(await done)

    run(main())
    """
    code, stdout, stderr = interrupt(loop_kind, source, number=signal.SIGTERM)
    assert (code, stdout, stderr) == (0, "terminating\n", "")


def test_sigterm_without_a_handler_ends_the_process(loop_kind):
    source = """
    loop = new_event_loop()
    loop.call_soon(print, "ready")
    loop.run_forever()
    """
    code, _, _ = interrupt(loop_kind, source, number=signal.SIGTERM)
    assert code == -signal.SIGTERM


def test_sigint_that_was_ignored_stays_ignored(loop_kind):
    source = """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def main():
        asyncio.get_running_loop().call_soon(print, "ready")
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
        await done.wait()
        print("ended by the other signal")

    done = asyncio.Event()
    run(main())
    """
    with Script(loop_kind, source) as child:
        child.expect("ready")
        child.wait_idle()
        child.signal(signal.SIGINT)
        child.signal(signal.SIGTERM)
        code, stdout, stderr = child.finish()
    assert (code, stdout, stderr) == (0, "ended by the other signal\n", "")


def test_programs_alarm_interrupts_an_idle_loop(loop_kind):
    # signal.alarm is how programs bound a wait; libuv alone would sleep through it.
    source = """
    class Alarm(Exception):
        pass

    def handler(number, frame):
        raise Alarm

    signal.signal(signal.SIGALRM, handler)
    loop = new_event_loop()
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        loop.run_forever()
    except Alarm:
        print("alarm")
    loop.close()
    """
    with Script(loop_kind, source) as child:
        code, stdout, stderr = child.finish()
    assert (code, stdout, stderr) == (0, "alarm\n", "")
