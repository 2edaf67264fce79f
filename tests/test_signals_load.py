"""signals.py under load: floods, many descriptors, calls that are interrupted."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading

import pytest

import veloop
from children import run_script
from helpers import PATIENCE, WINDOWS, Background, run, socket_pair
from tcp_helpers import until
from veloop.loop import signals

pytestmark = pytest.mark.skipif(WINDOWS, reason="sends itself signals that Windows lacks")

if not WINDOWS:
    USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@contextlib.contextmanager
def handling(loop, *numbers):
    """number -> how often its handler was called."""
    calls = dict.fromkeys(numbers, 0)

    def count(number):
        calls[number] += 1

    for number in numbers:
        loop.add_signal_handler(number, count, number)
    try:
        yield calls
    finally:
        for number in numbers:
            # What is still on its way, to a thread that sleeps say, would end the process.
            signal.signal(number, signal.SIG_IGN)
            loop.remove_signal_handler(number)


async def beyond(calls, number, before):
    """Wait until that signal's handler was called more often than that."""
    await until(lambda: calls[number] > before)


@pytest.mark.veloop_only("asyncio loses what its buffer has no room for")
def test_flood_of_kills_from_another_process(loop):
    # The kernel merges what is pending. What matters: the last one is not lost.
    async def main():
        with handling(loop, USR1, USR2) as calls:
            pid = os.getpid()

            def flood():
                for _ in range(10_000):
                    os.kill(pid, USR1)
                os.kill(pid, USR2)

            await loop.run_in_executor(None, flood)
            await until(lambda: calls[USR2])
            assert calls[USR2] == 1
            assert 1 <= calls[USR1] <= 10_000
            # Everything has come by now, and the next one comes as well.
            before = calls[USR1]
            os.kill(pid, USR1)
            await beyond(calls, USR1, before)

    run(loop, main())


def catch_one():
    """As the interpreter does, for a loop that has a handler."""
    loop = veloop.new_event_loop()
    loop.add_signal_handler(USR1, print)
    try:
        signals._caught(USR1, None)
    finally:
        loop.remove_signal_handler(USR1)
        loop.close()


def test_handler_that_a_flood_interrupts_again_and_again_does_not_fill_the_stack(monkeypatch):
    checked = []

    def check(self, number):
        checked.append(number)
        if len(checked) < 5000:
            signals._caught(USR1 if len(checked) % 2 else USR2, None)  # as a signal would

    monkeypatch.setattr(signals.Signals, "_check_room", check)
    catch_one()
    assert len(checked) >= 5000  # other loops that are still there are asked as well


def test_signals_handler_that_another_one_interrupts_at_its_beginning(monkeypatch):
    class Noted(set):
        interrupts = [USR2]

        def __bool__(self):
            answer = len(self) > 0
            while self.interrupts:
                signals._caught(self.interrupts.pop(), None)  # as a signal would, at this moment
            return answer

    checked = []
    monkeypatch.setattr(signals, "_noted", Noted())
    monkeypatch.setattr(signals.Signals, "_check_room", lambda _, number: checked.append(number))
    catch_one()
    assert set(checked) == {USR1, USR2}


@pytest.mark.veloop_only("asyncio loses what its buffer has no room for: 278 have on Linux")
def test_thousands_of_signals_while_the_loop_does_not_read_are_all_counted(loop):
    async def main():
        with handling(loop, USR1) as calls:
            for _ in range(5000):
                signal.raise_signal(USR1)
            await until(lambda: calls[USR1] == 5000)

    run(loop, main())


@pytest.mark.veloop_only("asyncio loses what its buffer has no room for")
def test_signal_after_a_flood_that_filled_the_buffer_is_not_lost(loop_kind):
    script = """
        calls = []
        loop = new_event_loop()
        numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGTERM]
        for number in numbers:
            loop.add_signal_handler(number, calls.append, number)
        for _ in range(2):
            for _ in range(70_000):  # while the loop does not read
                signal.raise_signal(signal.SIGUSR1)
            for number in numbers[1:]:
                signal.raise_signal(number)
            while signal.SIGTERM not in calls:
                loop.call_soon(loop.stop)
                loop.run_forever()
            loop.call_later(0.05, loop.stop)
            loop.run_forever()
            print([calls.count(number) for number in numbers[1:]], signal.SIGUSR1 in calls)
            calls.clear()
        loop.close()
    """
    assert run_script(loop_kind, script).stdout.splitlines() == ["[1, 1, 1] True"] * 2


def test_different_signals_that_are_pending_together_all_arrive(loop):
    # Five at once are too many for the stack that faulthandler makes for handlers: CPython 3.14 and
    # 3.15 crash, without any loop.
    numbers = (USR1, USR2, signal.SIGHUP, signal.SIGTERM)

    async def main():
        with handling(loop, *numbers) as calls:
            for _ in range(50):
                signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
                for number in numbers:
                    os.kill(os.getpid(), number)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
                await asyncio.sleep(0)
            await until(lambda: min(calls.values()) == 50)
            assert set(calls.values()) == {50}

    run(loop, main())


def test_signals_among_many_descriptors(loop):
    count = 200

    async def main():
        with handling(loop, USR1) as calls, contextlib.ExitStack() as stack:
            pairs = [stack.enter_context(socket_pair()) for _ in range(count)]
            read = []
            for left, _ in pairs:
                loop.add_reader(left, lambda sock=left: read.append(sock.recv(1)))
            for number in range(20):
                for _, right in pairs:
                    right.send(b"x")
                os.kill(os.getpid(), USR1)
                await until(lambda want=(number + 1) * count: len(read) == want)
                await beyond(calls, USR1, number)
            assert calls[USR1] == 20
            for left, _ in pairs:
                loop.remove_reader(left)

    run(loop, main())


def test_calls_in_threads_are_restarted_when_a_signal_interrupts_them(loop):
    async def main():
        with handling(loop, USR1) as calls, socket_pair(blocking=True) as (left, right):
            reading, writing = os.pipe()
            idents = []

            def receive(call):
                idents.append(threading.get_ident())
                return call()

            work = [
                loop.run_in_executor(None, receive, lambda: os.read(reading, 1)),
                loop.run_in_executor(None, receive, lambda: left.recv(1)),
            ]
            await until(lambda: len(idents) == 2)
            for number in range(20):
                for ident in idents:
                    signal.pthread_kill(ident, USR1)
                await beyond(calls, USR1, number)
            assert not any(task.done() for task in work)
            os.write(writing, b"x")
            right.send(b"y")
            assert await asyncio.gather(*work) == [b"x", b"y"]
            os.close(reading)
            os.close(writing)

    run(loop, main())


def test_connections_go_on_in_a_storm_of_signals(loop):
    done = threading.Event()

    def storm():
        while not done.is_set():
            os.kill(os.getpid(), USR1)
            done.wait(0.0001)

    async def main():
        with handling(loop, USR1) as calls:
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            with Background(storm):
                try:
                    for _ in range(100):
                        writer.write(b"x" * 10_000)
                        assert await reader.readexactly(10_000) == b"x" * 10_000
                        await loop.getaddrinfo("127.0.0.1", 80)
                        await asyncio.sleep(0.0001)
                finally:
                    done.set()
            assert calls[USR1]
            writer.close()
            server.close()
            await asyncio.sleep(0.01)

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    run(loop, main())


def test_children_that_end_are_told_by_sigchld(loop):
    async def main():
        with handling(loop, signal.SIGCHLD) as calls:
            children = [subprocess.Popen(["/bin/sh", "-c", "exit 0"]) for _ in range(10)]
            reaped = set()
            while len(reaped) < len(children):
                before = calls[signal.SIGCHLD]
                reaped.update(child for child in children if child.poll() is not None)
                if len(reaped) < len(children):
                    await beyond(calls, signal.SIGCHLD, before)

    run(loop, main())


def test_interrupted_accept_and_receive_of_the_loop(loop):
    # EINTR in the loop's own system calls is nobody's business.
    async def main():
        with handling(loop, USR1) as calls, socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            for number in range(20):
                accepting = loop.create_task(loop.sock_accept(listener))
                await asyncio.sleep(0)
                os.kill(os.getpid(), USR1)
                with socket.create_connection(listener.getsockname(), PATIENCE):
                    conn, _ = await accepting
                    conn.close()
                await beyond(calls, USR1, number)

    run(loop, main())
