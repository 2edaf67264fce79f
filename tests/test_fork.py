"""os.fork() with a loop that exists or runs: the child's use of it is refused, the parent goes on.

Each test is a script of its own: pytest is not to be forked. `fork(function)` of the scripts runs
the function in a child, and gives back what it printed.
"""

import os
import sys
import textwrap

import pytest

from children import run_script

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]

refuses = pytest.mark.veloop_only("asyncio's child goes on with the parent's epoll and sockets")

PRELUDE = """
    import contextlib, gc, io, time, traceback, warnings

    def fork(function):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                out = io.StringIO()
                try:
                    with contextlib.redirect_stdout(out):
                        function()
                    code = 0
                except BaseException:
                    traceback.print_exc(file=out)
                gc.collect()
                os.write(writing, out.getvalue().encode())
            finally:
                os._exit(code)
        os.close(writing)
        with open(reading) as stream:
            text = stream.read()
        status = os.waitpid(pid, 0)[1]
        if status:
            raise RuntimeError(f"child: status {status}\\n{text}")
        return text

    def fds():
        return len(os.listdir("/dev/fd"))

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
        def data_received(self, data):
            self.transport.write(data)

    async def connected(loop):
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname(), 10)
        client, other = socket.socketpair()
        client.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=client)
        await asyncio.sleep(0.01)
        return server, peer, transport, other

    async def works(server, peer, transport, other):
        # Whatever the child did: the parent's connections, timers and listeners live.
        def ask():
            answers = []
            for sock in peer, socket.create_connection(server.sockets[0].getsockname(), 10):
                sock.sendall(b"ping")
                answers.append(sock.recv(4))
            return answers
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, ask) == [b"ping", b"ping"]
        transport.write(b"pong")
        assert other.recv(4) == b"pong"
        await asyncio.sleep(0.01)
        return "works"

    def end(server, peer, transport, other):
        peer.close()
        other.close()
        transport.abort()
        server.close()

    async def finish(things):
        print(await works(*things))
        end(*things)

    def check_refused(calls):
        # Prints those that are not, or in another way.
        for name, call in calls.items():
            try:
                call()
            except RuntimeError as exc:
                if "belongs to the parent process" not in str(exc):
                    print(name, "raised", exc)
            else:
                print(name, "was not refused")
"""


def script(kind, text, *options):
    """What such a script prints, as lines."""
    source = textwrap.dedent(PRELUDE) + textwrap.dedent(text)
    # Python 3.12+ warns of a fork where there are threads, and libuv's pool is some.
    options = ("-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning", *options)
    return run_script(kind, source, *options).stdout.splitlines()


@refuses
def test_everything_is_refused_in_the_child_of_a_running_loop(loop_kind):
    lines = script(
        loop_kind,
        """
        async def main():
            loop = asyncio.get_running_loop()
            things = server, peer, transport, other = await connected(loop)
            loop.add_reader(peer, print)
            loop.add_writer(other, print)
            pending = loop.create_future()
            free = socket.socket()
            free.setblocking(False)

            def coroutine(function, *args):
                # The first step is enough: what is refused is refused there.
                def call():
                    coro = function(*args)
                    try:
                        coro.send(None)
                    finally:
                        coro.close()
                return call

            async def nothing():
                pass

            def task():
                coro = nothing()
                try:
                    loop.create_task(coro)
                finally:
                    coro.close()

            calls = {
                "run_forever": loop.run_forever,
                "run_until_complete": lambda: loop.run_until_complete(pending),
                "call_soon": lambda: loop.call_soon(print),
                "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(print),
                "call_later": lambda: loop.call_later(1, print),
                "call_at": lambda: loop.call_at(1, print),
                "create_task": task,
                "run_in_executor": lambda: loop.run_in_executor(None, print),
                "add_reader": lambda: loop.add_reader(free, print),
                "add_writer": lambda: loop.add_writer(free, print),
                "add_signal_handler": lambda: loop.add_signal_handler(signal.SIGUSR1, print),
                "getaddrinfo": coroutine(loop.getaddrinfo, "localhost", 1),
                "getnameinfo": coroutine(loop.getnameinfo, ("127.0.0.1", 1)),
                "sock_recv": coroutine(loop.sock_recv, free, 1),
                "sock_connect": coroutine(loop.sock_connect, free, ("127.0.0.1", 1)),
                "create_connection": coroutine(loop.create_connection, Echo, "127.0.0.1", 1),
                "create_server": coroutine(loop.create_server, Echo, "127.0.0.1", 0),
                "sendfile": coroutine(loop.sendfile, transport, io.BytesIO(b"x")),
                "write": lambda: transport.write(b"x"),
                "writelines": lambda: transport.writelines([b"x", b"y"]),
                "write_eof": transport.write_eof,
                "pause_reading": transport.pause_reading,
                "close": transport.close,
                "abort": transport.abort,
                "server.close": server.close,
            }

            def child():
                check_refused(calls)
                print(loop.is_running(), loop.is_closed(), server.is_serving())

            print(fork(child), end="")
            loop.remove_reader(peer)
            loop.remove_writer(other)
            free.close()
            await finish(things)

        run(main())
        """,
    )
    assert lines == ["False True True", "works"]


def test_child_of_a_running_loop_may_run_a_loop_of_its_own(loop_kind):
    lines = script(
        loop_kind,
        """
        async def child_main():
            loop = asyncio.get_running_loop()
            things = await connected(loop)
            print(await works(*things), (await loop.getaddrinfo("127.0.0.1", 80))[0][4])
            hit = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, hit.set)
            os.kill(os.getpid(), signal.SIGUSR1)
            await hit.wait()
            end(*things)

        def child():
            try:
                asyncio.get_running_loop()
            except RuntimeError as exc:
                print(exc)
            run(child_main())

        async def main():
            loop = asyncio.get_running_loop()
            things = await connected(loop)
            await loop.getaddrinfo("localhost", 80)  # libuv's pool has threads now
            print(fork(child), end="")
            await finish(things)

        run(main())
        """,
    )
    assert lines == ["no running event loop", "works ('127.0.0.1', 80)", "works"]


@refuses
def test_child_may_close_and_collect_what_it_inherited(loop_kind):
    lines = script(
        loop_kind,
        """
        async def main():
            loop = asyncio.get_running_loop()
            things = await connected(loop)
            later = asyncio.create_task(asyncio.sleep(0.05))
            request = asyncio.create_task(loop.getaddrinfo("localhost", 80))
            await asyncio.sleep(0)
            idle, other_end = socket.socketpair()
            idle.setblocking(False)
            waiting = asyncio.create_task(loop.sock_recv(idle, 1))
            await asyncio.sleep(0)

            def close():
                before = fds()
                loop.close()
                loop.close()
                print(fds() < before)
                try:
                    loop.call_soon(print)
                except RuntimeError as exc:
                    print("parent process" in str(exc))
                run(asyncio.sleep(0.01))

            def collect():
                nonlocal things, later, request, waiting
                things = later = request = waiting = None
                gc.collect()
                run(asyncio.sleep(0.01))

            print(fork(close), end="")
            print(fork(collect), end="")
            await later
            await request
            waiting.cancel()
            await asyncio.sleep(0)
            await finish(things)

        run(main())
        """,
    )
    assert lines == ["True", "True", "works"]


@refuses
def test_close_in_the_child_gives_back_every_descriptor_of_the_loop(loop_kind):
    lines = script(
        loop_kind,
        """
        run(asyncio.sleep(0))  # what libuv opens once a process
        before = fds()
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))

        def child():
            loop.close()
            print(fds() - before - 2)  # two are the pipe's

        print(fork(child), end="")
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        print(fds() - before)
        """,
    )
    assert lines == ["0", "0"]


@pytest.mark.stock_since("3.12", "a signal to the child reached the parent's handlers")
def test_signal_for_the_child_does_not_reach_the_parent(loop_kind):
    lines = script(
        loop_kind,
        """
        async def main():
            loop = asyncio.get_running_loop()
            got = []
            loop.add_signal_handler(signal.SIGUSR1, got.append, 1)

            def child():
                os.kill(os.getpid(), signal.SIGUSR1)
                print(signal.set_wakeup_fd(-1))

            print(fork(child), end="")
            await asyncio.sleep(0.05)
            print(got)
            os.kill(os.getpid(), signal.SIGUSR1)
            while not got:
                await asyncio.sleep(0.01)
            print(got)

        run(main())
        """,
    )
    assert lines == ["-1", "[]", "[1]"]


@refuses
def test_child_that_returns_into_the_parents_loop_gets_an_error_there(loop_kind):
    # The rest of the turn is not run: it would be the parent's work done twice.
    lines = script(
        loop_kind,
        """
        loop = new_event_loop()
        left, right = socket.socketpair()
        ran = []

        def forking():
            global pid
            pid = os.fork()

        loop.add_reader(left, ran.append, "reader")
        loop.call_later(0, ran.append, "timer")
        right.send(b"x")
        loop.call_soon(forking)
        loop.call_soon(ran.append, "callback")
        loop.call_soon(loop.call_soon, loop.stop)
        try:
            loop.run_forever()
        except RuntimeError as exc:
            assert pid == 0 and "belongs to the parent process" in str(exc), exc
            os._exit(40 + len(ran))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "callback" in ran)
        loop.close()
        """,
    )
    assert lines == ["40 True"]


def test_child_may_stop_the_loop_and_go_its_own_way(loop_kind):
    lines = script(
        loop_kind,
        """
        loop = new_event_loop()

        def forking():
            global pid
            pid = os.fork()
            loop.stop()

        loop.call_soon(forking)
        loop.run_forever()
        if pid == 0:
            run(asyncio.sleep(0.01))
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        """,
    )
    assert lines == ["3"]


@refuses
def test_idle_loop_is_refused_too(loop_kind):
    lines = script(
        loop_kind,
        """
        loop = new_event_loop()
        closed = new_event_loop()
        closed.close()

        def child():
            for each in loop, closed:
                try:
                    each.run_forever()
                except RuntimeError as exc:
                    print("parent process" in str(exc), "closed" in str(exc))
            fork_of_fork = fork(lambda: run(asyncio.sleep(0)))
            new = new_event_loop()
            new.run_until_complete(asyncio.sleep(0))
            print(fork(lambda: print(new.is_closed(), loop.is_closed())), end="")
            new.run_until_complete(asyncio.sleep(0))
            new.close()

        print(fork(child), end="")
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        """,
    )
    assert lines == ["True False", "False True", "True True"]


# Since 3.14 a task that forked is, in the child, no task that asyncio could leave.
PLACES = ["callback", *(["coroutine"] if sys.version_info < (3, 14) else [])]


@pytest.mark.veloop_only("asyncio's child takes what it closes out of the parent's epoll")
@pytest.mark.parametrize("place", PLACES)
def test_child_may_end_as_any_interpreter_does(loop_kind, place):
    # With finalizers and everything, while loops of the parent exist in it.
    lines = script(
        loop_kind,
        f"""
        def forking():
            global pid
            pid = os.fork()
            if pid == 0:
                # Leaves through the frames of the parent's run.
                raise SystemExit(7)

        async def main():
            loop = asyncio.get_running_loop()
            things = await connected(loop)
            if {place!r} == "callback":
                loop.call_soon(forking)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            else:
                forking()
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            await finish(things)

        other = new_event_loop()
        other.run_until_complete(asyncio.sleep(0))
        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        other.close()
        """,
    )
    assert lines == ["7", "works"]


def test_fork_in_another_thread_than_the_loops(loop_kind):
    lines = script(
        loop_kind,
        """
        def child():
            run(asyncio.sleep(0.01))
            print("new loop in", threading.main_thread() is threading.current_thread())

        async def main():
            loop = asyncio.get_running_loop()
            things = await connected(loop)
            for _ in range(3):
                print(await loop.run_in_executor(None, fork, child), end="")
            await finish(things)

        run(main())
        """,
    )
    assert lines == ["new loop in True"] * 3 + ["works"]


@pytest.mark.veloop_only("in asyncio's child the executor of getaddrinfo() may hang")
def test_fork_while_other_threads_make_and_close_loops(loop_kind):
    # Whatever locks they hold in that moment are nobody's in the child.
    lines = script(
        loop_kind,
        """
        done = threading.Event()

        def use():
            # Not by run(): without the GIL asyncio.all_tasks() has a lock for all threads, that
            # the child may inherit locked (CPython 3.14).
            loop = new_event_loop()
            try:
                loop.run_until_complete(busy())
            finally:
                loop.close()

        async def busy():
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(int)
            await loop.getaddrinfo("localhost", 80)  # in libuv's pool, whose state a fork tears
            await asyncio.sleep(0)

        def work():
            while not done.is_set():
                use()

        use()  # imports what is needed: a fork may tear Python's locks of modules, too
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        # PyPy's children take half a second each: all of its memory is collected there.
        for _ in range(10 if sys.implementation.name == "pypy" else 50):
            fork(use)
        done.set()
        for thread in threads:
            thread.join()
        print("all ended")
        """,
    )
    assert lines == ["all ended"]


@pytest.mark.veloop_only("asyncio's child kills it when the transport is collected")
def test_subprocess_of_the_parent_survives_the_child(loop_kind):
    lines = script(
        loop_kind,
        """
        async def main():
            loop = asyncio.get_running_loop()
            transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "cat")

            def child():
                nonlocal transport
                try:
                    transport.close()
                except RuntimeError as exc:
                    print("parent process" in str(exc))
                loop.close()
                transport = None
                gc.collect()
                run(child_main())

            async def child_main():
                process = await asyncio.create_subprocess_exec("true")
                print(await process.wait())

            print(fork(child), end="")
            await asyncio.sleep(0.05)
            print(transport.get_returncode())
            transport.close()
            while transport.get_returncode() is None:
                await asyncio.sleep(0.01)
            print(transport.get_returncode())
            await asyncio.sleep(0.01)

        run(main())
        """,
    )
    assert lines == ["True", "0", "None", "-9"]


@refuses
def test_transports_of_every_kind_are_refused_in_the_child(loop_kind):
    lines = script(
        loop_kind,
        """
        async def main():
            loop = asyncio.get_running_loop()
            udp, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, ("127.0.0.1", 0), ("127.0.0.1", 9)
            )
            reading, writing = os.pipe()
            reader, _ = await loop.connect_read_pipe(asyncio.Protocol, open(reading, "rb", 0))
            writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(writing, "wb", 0))
            unix = await loop.create_unix_server(Echo, b"%cveloop-fork-%d" % (0, os.getpid()))
            calls = {
                "udp.sendto": lambda: udp.sendto(b"x"),
                "udp.close": udp.close,
                "udp.abort": udp.abort,
                "reader.pause_reading": reader.pause_reading,
                "reader.close": reader.close,
                "writer.write": lambda: writer.write(b"x"),
                "writer.close": writer.close,
                "writer.abort": writer.abort,
                "unix.close": unix.close,
            }

            def child():
                nonlocal udp, reader, writer, unix
                check_refused(calls)
                loop.close()
                udp = reader = writer = unix = None
                calls.clear()
                gc.collect()
                print("closed")

            print(fork(child), end="")
            writer.write(b"x")
            await asyncio.sleep(0.01)
            for each in udp, reader, writer, unix:
                each.close()
            await asyncio.sleep(0.01)

        run(main())
        """,
    )
    assert lines == ["closed"]


def test_default_executor_works_on_both_sides(loop_kind):
    lines = script(
        loop_kind,
        """
        async def main(name):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, int)
            if name == "parent":
                print(fork(lambda: run(main("child"))), end="")
            print(name, await loop.run_in_executor(None, int, 7))

        run(main("parent"))
        """,
    )
    assert lines == ["child 7", "parent 7"]


@pytest.mark.parametrize("again", [False, True], ids=["child does not", "child does too"])
def test_child_of_one_that_resolved_a_name_may_end_normally(loop_kind, again):
    # Its end does not wait for threads of the pool that only the parent has.
    lines = script(
        loop_kind,
        f"""
        async def resolve():
            return len(await asyncio.get_running_loop().getaddrinfo("localhost", 80)) > 0

        def child(depth):
            pid = os.fork()
            if pid == 0:
                if {again} and not run(resolve()):
                    sys.exit(1)
                if depth:
                    child(depth - 1)
                sys.exit(7 + depth)
            status = os.waitpid(pid, 0)[1]
            print(os.waitstatus_to_exitcode(status))

        assert run(resolve())
        child(1)
        assert run(resolve())
        """,
    )
    assert lines == ["7", "8"]
