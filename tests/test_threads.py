"""Many loops in many threads, and what a thread does with the loop of another one.

A call that would touch libuv is refused, and then nothing has changed. What only schedules is as
with asyncio: refused in debug mode, else done, but nothing wakes the loop for it.
"""

import asyncio
import contextlib
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from children import run_script
from helpers import LINUX, PATIENCE, WINDOWS, Background, drain, in_thread, run, socket_pair
from tcp_helpers import address, in_executor, serving, turns, wired

corrupts = pytest.mark.veloop_only("asyncio lets other threads corrupt the loop")


# ------------------------------------------------------------ a loop for each thread


def test_many_loops_each_in_its_thread(loop_kind, new_loop):
    loops = [new_loop() for _ in range(8)]
    barrier = threading.Barrier(len(loops))

    async def conversation(loop):
        received = []
        async with serving(loop) as (server, protocols):
            reader, writer = await asyncio.open_connection(*address(server))
            for number in range(50):
                writer.write(b"%03d" % number)
                while not protocols:
                    await asyncio.sleep(0)
                await protocols[0].received(3 * number + 3)
                protocols[0].transport.write(b"%03d" % number)
                received.append(int(await reader.readexactly(3)))
                if number % 10 == 0:
                    await asyncio.to_thread(int)
                    await asyncio.sleep(0.001)
            writer.close()
            await protocols[0].lost
        return received

    def main(loop):
        barrier.wait(PATIENCE)
        return run(loop, conversation(loop))

    threads = [Background(main, loop) for loop in loops]
    for thread in threads:
        assert thread.result() == list(range(50))


def test_loops_are_made_run_and_closed_in_different_threads(loop_kind, new_loop):
    made = [in_thread(new_loop) for _ in range(4)]

    def use(loop):
        async def main():
            with socket_pair() as (left, right):
                left.send(b"x")
                return await loop.sock_recv(right, 1)

        return loop.run_until_complete(main())

    for loop in made:
        assert in_thread(use, loop) == b"x"
        assert in_thread(use, loop) == b"x"
        in_thread(loop.close)
        assert loop.is_closed()


def test_threads_make_and_close_loops_all_the_time(loop_kind, new_loop):
    def work():
        for _ in range(30):
            loop = new_loop()
            assert loop.run_until_complete(asyncio.sleep(0, "done")) == "done"
            loop.close()

    threads = [Background(work) for _ in range(4)]
    for thread in threads:
        thread.result()


# ------------------------------------------------------------ work handed over


def test_call_soon_threadsafe_under_load_is_never_late(loop):
    # Each thread waits for its call to run before the next: a lost wakeup would end in a hang.
    count = 200
    order = {number: [] for number in range(8)}

    def caller(number):
        done = threading.Semaphore(0)

        def callback(index):
            order[number].append(index)
            done.release()

        for index in range(count):
            loop.call_soon_threadsafe(callback, index)
            assert done.acquire(timeout=PATIENCE)

    async def main():
        # The loop is busy, then idle, then has timers.
        for pause in (0, 0.0001, 0.001) * 50:
            await asyncio.sleep(pause)
        await asyncio.gather(*(asyncio.wrap_future(each) for each in ended))

    with ThreadPoolExecutor(8) as executor:
        ended = [executor.submit(caller, number) for number in order]
        run(loop, main())
    assert order == {number: list(range(count)) for number in order}


def test_run_coroutine_threadsafe_from_eight_threads(loop):
    async def twice(number):
        await asyncio.sleep(0)
        return 2 * number

    def caller(base):
        futures = [asyncio.run_coroutine_threadsafe(twice(base + n), loop) for n in range(100)]
        return [future.result(PATIENCE) for future in futures]

    async def main():
        return await asyncio.gather(*(asyncio.to_thread(caller, 1000 * n) for n in range(8)))

    results = run(loop, main())
    assert results == [[2 * (1000 * n + i) for i in range(100)] for n in range(8)]


def test_coroutine_that_a_thread_gave_up_is_cancelled(loop):
    ended = []

    async def forever():
        try:
            await loop.create_future()
        finally:
            ended.append(True)

    def caller():
        future = asyncio.run_coroutine_threadsafe(forever(), loop)
        loop.call_soon_threadsafe(int)
        future.cancel()

    async def main():
        await asyncio.to_thread(caller)
        await turns(5)

    run(loop, main())
    assert ended in ([True], [])  # it may not have begun
    assert not asyncio.all_tasks(loop)


def test_to_thread_of_many(loop):
    async def main():
        return await asyncio.gather(*(asyncio.to_thread(divmod, n, 7) for n in range(500)))

    assert run(loop, main()) == [divmod(n, 7) for n in range(500)]


def test_timers_that_other_threads_cancel_do_not_take_others_along(loop):
    # Cancelling many makes the loop tidy its heap; not in the midst of the loop's own use of it.
    fired = []

    async def main():
        for number in range(2000):
            loop.call_later(0.05, fired.append, number)
        doomed = [[loop.call_later(3600, print) for _ in range(2000)] for _ in range(4)]

        def cancel(timers):
            for timer in timers:
                timer.cancel()

        work = asyncio.gather(*(asyncio.to_thread(cancel, timers) for timers in doomed))
        while not work.done():
            await asyncio.sleep(0)
            loop.call_later(0.05, fired.append, -1)
        await work
        await asyncio.sleep(0.2)

    run(loop, main())
    assert [number for number in fired if number >= 0] == list(range(2000))


# ------------------------------------------------------------ the wrong thread


def refused(function, *args):
    """Call it in another thread; both threads are named in the error."""

    def work():
        with pytest.raises(RuntimeError, match="use loop.call_soon_threadsafe") as caught:
            function(*args)
        return str(caught.value), threading.current_thread().name

    async def main():
        message, name = await in_executor(work)
        assert repr(name) in message
        assert repr(threading.current_thread().name) in message

    return main()


def stepped(coroutine):
    """Have a coroutine begin, outside of any loop; what is refused is refused there."""
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


LOOP_CALLS = {
    "add_reader": lambda loop, sock: loop.add_reader(sock, print),
    "add_writer": lambda loop, sock: loop.add_writer(sock, print),
    "getaddrinfo": lambda loop, sock: stepped(loop.getaddrinfo("localhost", 1)),
    "getnameinfo": lambda loop, sock: stepped(loop.getnameinfo(("127.0.0.1", 1))),
    "sock_recv": lambda loop, sock: stepped(loop.sock_recv(sock, 1)),
    "sock_recv_into": lambda loop, sock: stepped(loop.sock_recv_into(sock, bytearray(1))),
    "sock_recvfrom": lambda loop, sock: stepped(loop.sock_recvfrom(sock, 1)),
    "sock_recvfrom_into": lambda loop, sock: stepped(loop.sock_recvfrom_into(sock, bytearray(1))),
    "sock_sendall": lambda loop, sock: stepped(loop.sock_sendall(sock, bytes(4 << 20))),
    "create_connection": lambda loop, sock: stepped(
        loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)
    ),
    "create_connection with sock": lambda loop, sock: stepped(
        loop.create_connection(asyncio.Protocol, sock=sock.dup())
    ),
    "connect_accepted_socket": lambda loop, sock: stepped(
        loop.connect_accepted_socket(asyncio.Protocol, sock.dup())
    ),
    "create_server": lambda loop, sock: asyncio.run(
        loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    ),
}


@corrupts
@pytest.mark.parametrize("name", LOOP_CALLS)
def test_loop_refuses_other_threads(loop, name):
    async def main():
        with socket_pair() as (left, right):
            await refused(LOOP_CALLS[name], loop, left)
            # Nothing was left behind; the descriptors are conftest's to count.
            assert loop.remove_reader(left) is False
            assert loop.remove_writer(left) is False
            right.send(b"x")
            assert await loop.sock_recv(left, 1) == b"x"

    run(loop, main())


@corrupts
@pytest.mark.parametrize("what", ["reader", "writer"])
def test_watch_that_another_thread_wants_to_remove_or_replace_stays(loop, what):
    async def main():
        with socket_pair() as (left, right):
            called = loop.create_future()
            getattr(loop, f"add_{what}")(left, lambda: called.done() or called.set_result(None))
            await refused(getattr(loop, f"remove_{what}"), left)
            await refused(getattr(loop, f"add_{what}"), left, print)
            right.send(b"x")
            await called
            assert getattr(loop, f"remove_{what}")(left) is True

    run(loop, main())


@corrupts
@pytest.mark.parametrize("name", ["close", "close_clients", "abort_clients", "start_serving"])
def test_server_refuses_other_threads(loop, name):
    async def main():
        async with serving(loop, start_serving=name != "start_serving") as (server, protocols):

            def call():
                result = getattr(server, name)()
                if asyncio.iscoroutine(result):
                    stepped(result)

            if name != "start_serving":
                with socket.create_connection(address(server), PATIENCE) as peer:
                    peer.send(b"x")
                    while not protocols:
                        await asyncio.sleep(0)
                    await refused(call)
                    assert not protocols[0].transport.is_closing()
                    protocols[0].transport.write(b"y")
                    assert peer.recv(1) == b"y"
                await protocols[0].lost
            else:
                await refused(call)
                assert not server.is_serving()
            await server.start_serving()
            with socket.create_connection(address(server), PATIENCE):
                await turns(50)
            await turns(50)

    run(loop, main())


@corrupts
@pytest.mark.skipif(not LINUX, reason="about os.sendfile")
def test_sendfile_in_another_thread_is_refused(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")

    async def main():
        with path.open("rb") as file:
            async with wired(loop) as (transport, _, peer):
                for paused in False, True:
                    if paused:
                        transport.pause_reading()
                    await refused(lambda: stepped(loop.sendfile(transport, file)))
                    assert transport.is_reading() is not paused
                transport.write(b"only this")
                assert drain(peer, 9) == b"only this"

    run(loop, main())


RUNNING = {
    "run_forever": lambda loop: loop.run_forever(),
    "run_until_complete": lambda loop: loop.run_until_complete(loop.create_future()),
    "close": lambda loop: loop.close(),
}


@pytest.mark.stock_since("3.14", "3.13.0 forgets that it is running")
@pytest.mark.parametrize("name", RUNNING)
def test_running_loop_is_not_run_or_closed_by_another_thread(loop, name):
    async def main():
        with pytest.raises(RuntimeError, match="running"):
            await in_executor(RUNNING[name], loop)
        assert not loop.is_closed()

    run(loop, main())


@corrupts
def test_signal_handler_of_a_loop_in_another_thread_is_refused_and_nothing_is_left(new_loop):
    loop = new_loop()
    started = threading.Event()
    before = signal.getsignal(signal.SIGTERM)

    def main():
        loop.call_soon(started.set)
        loop.run_forever()

    with Background(main):
        assert started.wait(PATIENCE)
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            loop.add_signal_handler(signal.SIGTERM, print)
        loop.call_soon_threadsafe(loop.stop)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_only_asks_may_be_called_in_any_thread(loop):
    def ask():
        assert loop.is_running()
        assert not loop.is_closed()
        assert loop.time() > 0
        assert loop.get_debug() is False
        assert loop.get_task_factory() is None
        assert "running=True" in repr(loop)
        loop.create_future()
        loop.get_exception_handler()

    run(loop, in_executor(ask))


@pytest.mark.parametrize(
    "schedule",
    [
        "call_soon",
        # Its timers are compared by Python code, while other threads change their heap.
        pytest.param("call_later", marks=corrupts),
        pytest.param("call_at", marks=corrupts),
    ],
)
def test_scheduling_in_another_thread_is_late_but_harmless(loop, schedule):
    # As with asyncio outside debug mode: it is done when the loop wakes for something else.
    fired = []

    def work():
        for _ in range(500):
            args = {"call_soon": (), "call_later": (0,), "call_at": (loop.time(),)}[schedule]
            getattr(loop, schedule)(*args, fired.append, 1)

    async def main():
        work_done = asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
        while not work_done.done():
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)

    run(loop, main())
    assert len(fired) == 2000


# ------------------------------------------------------------ the end


def test_threads_that_call_while_the_loop_closes(new_loop):
    for _ in range(20):
        loop = new_loop()
        called = []
        ready = threading.Barrier(4)

        def caller(loop=loop, called=called, ready=ready):
            ready.wait(PATIENCE)
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                while True:
                    loop.call_soon_threadsafe(called.append, 1)

        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(Background(caller))
            ready.wait(PATIENCE)
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


# ------------------------------------------------------------ a process without standard streams


@pytest.mark.skipif(WINDOWS, reason="numbers 0, 1 and 2 are ordinary elsewhere only")
def test_threads_make_loops_where_the_standard_streams_are_closed(loop_kind):
    # libuv must not get the number 0 for a descriptor of its own, also not between the moments in
    # which two threads see to that.
    script = """
        new_event_loop().close()
        os.close(0)

        def work():
            for _ in range(4000):
                new_event_loop().close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            os.fstat(0)
        except OSError:
            print("free")
    """
    assert run_script(loop_kind, script).stdout == "free\n"


@pytest.mark.skipif(not LINUX, reason="libuv opens such numbers elsewhere: docs/platforms.md")
def test_loops_are_made_while_a_thread_opens_files_at_the_number_of_a_standard_stream(loop_kind):
    # That thread's file may be there when veloop looks, and be gone when libuv opens its own.
    script = """
        os.close(0)
        done = threading.Event()

        def open_and_close():
            while not done.is_set():
                os.close(os.open(os.devnull, os.O_RDONLY))

        other = threading.Thread(target=open_and_close)
        other.start()
        for _ in range(4000):
            new_event_loop().close()
        done.set()
        other.join()
        print("made")
    """
    assert run_script(loop_kind, script).stdout == "made\n"
