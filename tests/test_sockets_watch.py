"""sockets.py: what is left of a wait. A watch outlives it, and must not be noticed by anybody.

The application closes its socket when it likes, the number goes to another file at once, the file
itself may live on in a copy. What was awaited before must not reach who has the number now.
"""

import asyncio
import contextlib
import os
import random
import socket
import threading
import time

import pytest

from children import run_script
from helpers import PYPY, WINDOWS, fill, socket_pair, tcp_pair
from sockets_helpers import left_behind, receive_late, write
from tcp_helpers import reset, run, turns, until

posix = pytest.mark.skipif(WINDOWS, reason="descriptors are numbers on POSIX only")


@pytest.fixture
def pair():
    with socket_pair() as ends:
        yield ends


class Idle:
    """Takes CPU time: a loop that sleeps has none."""

    async def __aenter__(self):
        await asyncio.sleep(0.01)
        self._cpu = time.process_time()

    async def __aexit__(self, *_):
        await asyncio.sleep(0.2)
        assert time.process_time() - self._cpu < 0.1


# ------------------------------------------------------------ events for nobody


@pytest.mark.parametrize("state", ["open", "closed", "copied"])
def test_peer_sends_on_and_nobody_reads(loop, state):
    async def main():
        with contextlib.ExitStack() as stack:
            if state == "open":
                sock, peer = stack.enter_context(socket_pair())
                await receive_late(loop, sock, peer)
            else:
                _, peer = await left_behind(loop, stack, state == "copied")
            async with Idle():
                write(peer)

    run(loop, main())


@pytest.mark.veloop_only("counts the loop's own polls")
@pytest.mark.parametrize("copied", [False, True])
def test_nobody_is_told_not_even_once(loop, copied):
    async def main():
        with contextlib.ExitStack() as stack:
            if copied:
                _, peer = await left_behind(loop, stack, copied=True)
            else:
                sock, peer = stack.enter_context(socket_pair())
                await receive_late(loop, sock, peer)
            taken = loop._driver.taken
            for _ in range(10):
                write(peer)
                await asyncio.sleep(0.001)
            assert loop._driver.taken == taken

    run(loop, main())


@posix
@pytest.mark.veloop_only("asyncio is told of the copy's file again and again")
def test_closed_by_another_task_while_a_copy_lives(loop, pair):
    # The kernel watches the file, and the number is not there any more to end that.
    async def main():
        sock, peer = pair
        task = loop.create_task(loop.sock_recv(sock, 100))
        await turns()
        with sock.dup():
            sock.close()
            async with Idle():
                peer.send(b"x")
            with pytest.raises(OSError, match="[Bb]ad file descriptor|WinError 10038"):
                await task

    run(loop, main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_child_that_was_given_the_connection(loop_kind):
    # The parent receives, forks, closes its own end; the child has the file and goes on.
    script = """
        import time

        async def child(sock):
            loop = asyncio.get_running_loop()
            for _ in range(3):
                data = await loop.sock_recv(sock, 100)
                await loop.sock_sendall(sock, data)

        async def main():
            loop = asyncio.get_running_loop()
            sock, peer = socket.socketpair()
            sock.setblocking(False)
            peer.settimeout(10)
            task = loop.create_task(loop.sock_recv(sock, 100))
            await asyncio.sleep(0)
            peer.send(b"first")
            assert await task == b"first"
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)
                again = new_event_loop()
                again.run_until_complete(child(sock))
                again.close()
                os._exit(0)
            sock.close()
            await asyncio.sleep(0.01)
            cpu = time.process_time()
            for _ in range(3):
                peer.send(b"x")
                await loop.run_in_executor(None, peer.recv, 10)
                await asyncio.sleep(0.05)
            spent = time.process_time() - cpu
            os.waitpid(pid, 0)
            peer.close()
            return spent

        loop = new_event_loop()
        spent = loop.run_until_complete(asyncio.wait_for(main(), 20))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        print("idle" if spent < 0.1 else spent)
    """
    out = run_script(loop_kind, script, "-W", "ignore::DeprecationWarning").stdout
    assert out.strip() == "idle"


# ------------------------------------------------------------ what it does not keep


@pytest.mark.parametrize("how", ["received", "cancelled"])
def test_socket_that_is_dropped_goes_at_once(loop_kind, how):
    # In a process of its own: PyPy's collections take long where much is in memory. And its
    # compiled code may hold on to what it had in its hands last, so there are several sockets.
    script = """
        import gc, warnings, weakref

        warnings.simplefilter("ignore", ResourceWarning)  # of the sockets
        how = os.environ["HOW"]

        async def wait(sock, peer):
            loop = asyncio.get_running_loop()
            task = loop.create_task(loop.sock_recv(sock, 100))
            await asyncio.sleep(0.001)
            if how == "received":
                peer.send(b"x")
                assert await task == b"x"
            else:
                task.cancel()
                await asyncio.wait([task])

        async def drop():
            sock, peer = socket.socketpair()
            with peer:
                sock.setblocking(False)
                await wait(sock, peer)
                return weakref.ref(sock)

        async def main():
            dropped = [await drop() for _ in range(5)]
            for _ in range(8):  # on PyPy: behind a task, its exception, frames
                gc.collect()
            return sum(sock() is not None for sock in dropped)

        loop = new_event_loop()
        print(loop.run_until_complete(main()))
        loop.close()
    """
    left = int(run_script(loop_kind, script, env={"HOW": how}).stdout)
    assert left <= PYPY


@pytest.mark.veloop_only("looks at the loop's own tables")
@pytest.mark.parametrize("how", ["received", "cancelled", "closed", "both directions"])
def test_watch_is_gone_after_two_polls(loop, pair, how):
    from veloop._uv import lib

    async def main():
        sock, peer = pair
        await asyncio.sleep(0.001)
        before = lib.vl_live_handles()
        if how == "cancelled":
            task = loop.create_task(loop.sock_recv(sock, 1))
            await turns()
            task.cancel()
            await asyncio.wait([task])
        elif how == "both directions":
            await both_ways(loop, sock, peer)
        else:
            await receive_late(loop, sock, peer)
            assert lib.vl_live_handles() <= before + 1
        assert loop._watches == {}
        assert not any(loop._driver.targets)
        if how == "closed":
            sock.close()
        for _ in range(3):
            await asyncio.sleep(0.001)
        assert lib.vl_live_handles() == before

    run(loop, main())


@pytest.mark.parametrize("waiting", [False, True])
def test_loop_may_be_closed(new_loop, pair, waiting):
    sock, peer = pair
    for _ in range(3):
        loop = new_loop()

        async def main(loop=loop):
            await receive_late(loop, sock, peer)
            return loop.create_task(loop.sock_recv(sock, 100)) if waiting else None

        task = run(loop, main())
        if waiting:
            loop.run_until_complete(asyncio.sleep(0))
            task._log_destroy_pending = False
        loop.close()
        if waiting:
            task.get_coro().close()
        assert sock.fileno() != -1


@pytest.mark.veloop_only("only veloop has this loop")
def test_virtual_clock_knows_that_nobody_waits(pair):
    from veloop.testing import new_event_loop

    loop = new_event_loop()

    async def main():
        await receive_late(loop, *pair)
        await loop.create_future()

    try:
        with pytest.raises(RuntimeError, match="Deadlock"):
            loop.run_until_complete(main())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()


# ------------------------------------------------------------ together with callbacks


def test_what_removing_tells(loop, pair):
    async def main():
        sock, peer = pair
        await receive_late(loop, sock, peer)
        assert loop.remove_reader(sock) is False
        task = loop.create_task(loop.sock_recv(sock, 1))
        await turns()
        assert loop.remove_writer(sock) is False
        assert loop.remove_reader(sock) is True
        assert loop.remove_reader(sock) is False
        peer.send(b"x")
        await turns(5)
        assert not task.done()  # as with asyncio: nobody tells it any more
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await loop.sock_recv(sock, 1) == b"x"

    run(loop, main())


def test_callback_takes_the_place_of_who_waits(loop, pair):
    async def main():
        sock, peer = pair
        await receive_late(loop, sock, peer)
        task = loop.create_task(loop.sock_recv(sock, 1))
        await turns()
        called = []
        loop.add_reader(sock, called.append, 1)
        peer.send(b"x")
        await until(lambda: len(called) > 2)  # again and again, until it was read
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        called.clear()
        await until(lambda: called)
        assert loop.remove_reader(sock) is True
        assert sock.recv(1) == b"x"
        await receive_late(loop, sock, peer)

    run(loop, main())


def test_who_waits_takes_the_place_of_a_callback(loop, pair):
    async def main():
        sock, peer = pair
        called = []
        for _ in range(3):
            loop.add_reader(sock, called.append, 1)
            await receive_late(loop, sock, peer)
            assert loop.remove_reader(sock) is False
        assert called == []

    run(loop, main())


def test_callback_for_writing_stays_while_receives_come_and_go(loop, pair):
    async def main():
        sock, peer = pair
        called = []
        loop.add_writer(sock, called.append, 1)
        for _ in range(5):
            called.clear()
            await receive_late(loop, sock, peer)
            await until(lambda: len(called) > 2)
        assert loop.remove_writer(sock) is True
        await receive_late(loop, sock, peer)

    run(loop, main())


async def both_ways(loop, sock, peer):
    """A receive and a send that both have to wait; each is served."""
    filled = fill(sock)
    receiving = loop.create_task(loop.sock_recv(sock, 100))
    sending = loop.create_task(loop.sock_sendall(sock, b"end"))
    await turns()
    assert not receiving.done()
    assert not sending.done()
    peer.send(b"for you")
    assert await receiving == b"for you"
    await turns()
    assert not sending.done()
    while filled > 0:
        filled -= len(await loop.sock_recv(peer, 1 << 20))
    await sending
    while filled > -3:
        filled -= len(await loop.sock_recv(peer, 1 << 20))


def test_both_directions_of_one_socket(loop, pair):
    async def main():
        for _ in range(5):
            await both_ways(loop, *pair)
        await receive_late(loop, *pair)

    run(loop, main())


def test_reset_wakes_both_directions(loop):
    async def main():
        with tcp_pair() as (client, server):
            client.setblocking(False)
            await receive_late(loop, client, server)
            fill(client)
            tasks = [
                loop.create_task(loop.sock_recv(client, 10)),
                loop.create_task(loop.sock_sendall(client, b"x")),
            ]
            await turns()
            reset(server)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert any(isinstance(result, ConnectionError) for result in results)
            assert await loop.sock_recv(client, 10) == b""
            async with Idle():
                pass

    run(loop, main())


def test_what_comes_between_two_receives_is_not_missed(loop, pair):
    # Before, at and after the moment when the watch is armed again.
    async def main():
        sock, peer = pair
        for number in range(200):
            data = str(number).encode()
            if number % 3 == 0:
                peer.send(data)
            task = loop.create_task(loop.sock_recv(sock, 100))
            if number % 3 == 1:
                await asyncio.sleep(0)
                peer.send(data)
            await turns(number % 5)
            if number % 3 == 2:
                peer.send(data)
            assert await task == data

    run(loop, main())


def test_cancelled_and_waited_for_again_in_the_turn_of_the_event(loop):
    # The first of two sockets' tasks, both ready, cancels the other one, which begins anew.
    async def main():
        with socket_pair() as (one, one_peer), socket_pair() as (two, two_peer):
            for _ in range(20):
                first, second = (loop.create_task(loop.sock_recv(s, 10)) for s in (one, two))
                await turns()
                one_peer.send(b"x")
                two_peer.send(b"y")
                assert await first == b"x"
                second.cancel()
                await asyncio.wait([second])
                if second.cancelled():
                    assert await loop.sock_recv(two, 10) == b"y"
                else:
                    assert second.result() == b"y"
            async with Idle():
                pass

    run(loop, main())


# ------------------------------------------------------------ threads


@pytest.mark.veloop_only("asyncio does not notice")
def test_other_thread_is_refused(loop, pair):
    async def main():
        sock, peer = pair
        await receive_late(loop, sock, peer)
        caught = []

        def elsewhere():
            try:
                loop.sock_recv(sock, 1).send(None)
            except BaseException as exc:
                caught.append(exc)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await loop.run_in_executor(None, thread.join)
        assert len(caught) == 1
        assert isinstance(caught[0], RuntimeError), caught
        await receive_late(loop, sock, peer)

    run(loop, main())


# ------------------------------------------------------------ at random


@pytest.mark.parametrize("seed", range(4))
def test_sockets_at_random(loop, seed):
    # Each gets what its own peer sent, whatever became of its number before.
    rng = random.Random(seed)

    async def main():
        with contextlib.ExitStack() as stack:
            open_pairs, copies, peers = [], [], []
            for _ in range(300):
                if len(open_pairs) < 8:
                    left, right = (stack.enter_context(end) for end in socket.socketpair())
                    left.setblocking(False)
                    right.setblocking(False)
                    open_pairs.append((left, right))
                sock, peer = rng.choice(open_pairs)
                what = rng.random()
                data = rng.randbytes(rng.randint(1, 20))
                if what < 0.5:
                    await receive_late(loop, sock, peer, data)
                elif what < 0.6:
                    task = loop.create_task(loop.sock_recv(sock, 100))
                    await turns(rng.randrange(3))
                    task.cancel()
                    await asyncio.wait([task])
                elif what < 0.7:
                    called = []
                    loop.add_reader(
                        sock, lambda sock=sock, called=called: called.append(sock.recv(100))
                    )
                    peer.send(data)
                    await until(lambda called=called: called)
                    assert called == [data]
                    assert loop.remove_reader(sock) is True
                elif what < 0.85:
                    if rng.random() < 0.5:
                        copies.append(stack.enter_context(sock.dup()))
                        peers.append(peer)
                    sock.close()
                    open_pairs.remove((sock, peer))
                for each in peers:
                    with contextlib.suppress(OSError):
                        each.send(b"for nobody")
                if rng.random() < 0.2:
                    await asyncio.sleep(0.001)

    run(loop, main())
