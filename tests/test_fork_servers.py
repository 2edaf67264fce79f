"""Programs that fork: multiprocessing in its three ways, process pools, pre-fork servers."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from children import run_script, script_env
from helpers import PATIENCE

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.slow,
]

METHODS = ["fork", "forkserver", "spawn"]

PROGRAM = """
import asyncio, multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor

if KIND == "veloop":
    import veloop
    new_event_loop, run = veloop.new_event_loop, veloop.run
else:
    new_event_loop, run = asyncio.SelectorEventLoop, asyncio.run


async def square(number):
    loop = asyncio.get_running_loop()
    await loop.getaddrinfo("localhost", 80)
    await asyncio.sleep(0.001)
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    writer.close()
    server.close()
    return number * number


def run_square(number):
    return run(square(number))


def child(queue, number):
    queue.put(run_square(number))


async def main(context):
    loop = asyncio.get_running_loop()
    # libuv's pool and the loop's executor have threads, a server has a connection.
    print("before", await square(1), await loop.run_in_executor(None, run_square, 2))
    queue = context.Queue()
    process = context.Process(target=child, args=(queue, 3))
    process.start()
    print("process", await loop.run_in_executor(None, queue.get))
    await loop.run_in_executor(None, process.join)
    print("exit code", process.exitcode)
    with context.Pool(2) as pool:
        print("pool", await loop.run_in_executor(None, pool.map, run_square, range(4)))
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        tasks = [loop.run_in_executor(executor, run_square, n) for n in range(4)]
        print("executor", await asyncio.gather(*tasks))
    print("after", await square(4))


if __name__ == "__main__":
    run(main(multiprocessing.get_context(METHOD)))
"""


@pytest.mark.parametrize("method", METHODS)
def test_multiprocessing_with_a_running_loop(loop_kind, method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"KIND, METHOD = {loop_kind!r}, {method!r}\n{PROGRAM}")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", program],
        env=script_env(loop_kind),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "before 1 4",
        "process 9",
        "exit code 0",
        "pool [0, 1, 4, 9]",
        "executor [0, 1, 4, 9]",
        "after 16",
    ], done.stderr
    assert done.stderr == ""


PRE_FORK = """
import collections, time

class Tell(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(str(os.getpid()).encode())
        transport.close()

async def serve(sock):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Tell, sock=sock)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await loop.run_in_executor(None, int)
    ready.send(b"x")
    await stop.wait()
    server.close()
    await server.wait_closed()

ready, parents_end = socket.socketpair()
listener = socket.create_server(("127.0.0.1", 0))

def worker():
    run(serve(listener))

def start():
    pid = os.fork()
    if pid == 0:
        try:
            worker()
        except BaseException as exc:
            print("worker:", repr(exc), flush=True)
            os._exit(1)
        os._exit(0)
    return pid

async def master():
    # A loop of its own, busy with other things, while it starts its workers.
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, int)
    ticks = asyncio.create_task(asyncio.sleep(3600))
    pids = [start() for _ in range(4)]
    parents_end.setblocking(False)
    for _ in pids:
        assert await loop.sock_recv(parents_end, 1) == b"x"
    seen = collections.Counter()
    for _ in range(200):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        seen[int(await reader.read())] += 1
        writer.close()
    assert set(seen) <= set(pids), (seen, pids)
    # One dies, and another takes its place.
    os.kill(pids[0], signal.SIGKILL)
    await loop.run_in_executor(None, os.waitpid, pids[0], 0)
    pids[0] = start()
    assert await loop.sock_recv(parents_end, 1) == b"x"
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    codes = [await loop.run_in_executor(None, os.waitpid, pid, 0) for pid in pids]
    print([os.waitstatus_to_exitcode(code) for _, code in codes], sum(seen.values()))
    ticks.cancel()

run(master())
"""


def test_master_with_a_running_loop_and_workers_that_share_its_listener(loop_kind):
    ignore = "-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning"
    done = run_script(loop_kind, PRE_FORK, *ignore)
    assert done.stdout.splitlines() == ["[0, 0, 0, 0] 200"], done.stderr


APPLICATION = """
import asyncio, os
import veloop

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = f"{type(asyncio.get_running_loop()).__module__} {os.getpid()}".encode()
    headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

WORKER = """
from uvicorn_worker import UvicornWorker

class Worker(UvicornWorker):
    CONFIG_KWARGS = {"loop": "veloop:new_event_loop", "http": "h11", "lifespan": "on"}
"""


def get(where):
    with socket.create_connection(where, PATIENCE) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer.partition(b"\r\n\r\n")[2].decode().split()


def ask_until_two_answer(process, where):
    """The loops and process ids of two workers."""
    loops, pids = set(), set()
    deadline = time.monotonic() + PATIENCE
    while len(pids) < 2:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, (loops, pids)
        try:
            loop, pid = get(where)
        except (ConnectionError, ValueError):
            time.sleep(0.05)  # not up yet
            continue
        loops.add(loop)
        pids.add(int(pid))
    return loops, pids


def started(folder, *arguments):
    (folder / "application.py").write_text(APPLICATION)
    (folder / "workers.py").write_text(WORKER)
    return subprocess.Popen(
        [sys.executable, *arguments, "application:app"],
        cwd=folder,
        env=script_env("veloop"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check_two_workers(process, where):
    with process:
        try:
            loops, pids = ask_until_two_answer(process, where)
            assert loops == {"veloop.loop.loop"}
            assert process.pid not in pids
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=PATIENCE)
            assert "Traceback" not in output, output
            for pid in pids:
                with pytest.raises(ProcessLookupError):
                    os.kill(pid, 0)
        finally:
            process.kill()


def test_uvicorn_with_two_workers(tmp_path):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed (pip install '.[test]')")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = listener.getsockname()
    process = started(
        tmp_path,
        *("-m", "uvicorn", "--workers", "2", "--loop", "veloop:new_event_loop"),
        *("--port", str(where[1]), "--http", "h11"),
    )
    check_two_workers(process, where)


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each loads", "preloaded"])
def test_gunicorn_with_two_workers(tmp_path, preload):
    pytest.importorskip("gunicorn", reason="gunicorn is not installed (pip install '.[test]')")
    pytest.importorskip("uvicorn_worker", reason="uvicorn-worker is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = listener.getsockname()
    process = started(
        tmp_path,
        *("-m", "gunicorn", "--workers", "2", "--worker-class", "workers.Worker"),
        *("--bind", f"127.0.0.1:{where[1]}", *preload),
    )
    check_two_workers(process, where)
