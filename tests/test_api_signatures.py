"""Signatures of veloop's own functions and methods: the newest asyncio's, on every Python.

Where one is longer than asyncio's, what is more can only be given by name.
"""

import asyncio
import importlib
import inspect
import re

import pytest

from helpers import import_veloop

# asyncio's of Python 3.15. By area, in the order of its modules.
NEWEST = r"""
    get_event_loop()
    get_running_loop()
    set_event_loop(loop)
    future_add_to_awaited_by(fut, waiter, /)
    future_discard_from_awaited_by(fut, waiter, /)
    isfuture(obj)
    wrap_future(future, *, loop=None)
    capture_call_graph(future=None, /, *, depth=1, limit=None)
    format_call_graph(future=None, /, *, depth=1, limit=None)
    print_call_graph(future=None, /, *, file=None, depth=1, limit=None)
    all_tasks(loop=None)
    as_completed(fs, *, timeout=None)
    create_eager_task_factory(custom_task_constructor)
    create_task(coro, **kwargs)
    current_task(loop=None)
    eager_task_factory(loop, coro, *, eager_start=True, **kwargs)
    ensure_future(coro_or_future, *, loop=None)
    gather(*coros_or_futures, return_exceptions=False)
    run_coroutine_threadsafe(coro, loop)
    shield(arg)
    sleep(delay, result=None)
    wait(fs, *, timeout=None, return_when='ALL_COMPLETED')
    wait_for(fut, timeout)
    Barrier(parties)
    Barrier.abort(self)
    Barrier.reset(self)
    Barrier.wait(self)
    BoundedSemaphore(value=1)
    BoundedSemaphore.acquire(self)
    BoundedSemaphore.locked(self)
    BoundedSemaphore.release(self)
    Condition(lock=None)
    Condition.notify(self, n=1)
    Condition.notify_all(self)
    Condition.wait(self)
    Condition.wait_for(self, predicate)
    Event()
    Event.clear(self)
    Event.is_set(self)
    Event.set(self)
    Event.wait(self)
    Lock()
    Lock.acquire(self)
    Lock.locked(self)
    Lock.release(self)
    Semaphore(value=1)
    Semaphore.acquire(self)
    Semaphore.locked(self)
    Semaphore.release(self)
    LifoQueue(maxsize=0)
    LifoQueue.empty(self)
    LifoQueue.full(self)
    LifoQueue.get(self)
    LifoQueue.get_nowait(self)
    LifoQueue.join(self)
    LifoQueue.put(self, item)
    LifoQueue.put_nowait(self, item)
    LifoQueue.qsize(self)
    LifoQueue.shutdown(self, immediate=False)
    LifoQueue.task_done(self)
    PriorityQueue(maxsize=0)
    PriorityQueue.empty(self)
    PriorityQueue.full(self)
    PriorityQueue.get(self)
    PriorityQueue.get_nowait(self)
    PriorityQueue.join(self)
    PriorityQueue.put(self, item)
    PriorityQueue.put_nowait(self, item)
    PriorityQueue.qsize(self)
    PriorityQueue.shutdown(self, immediate=False)
    PriorityQueue.task_done(self)
    Queue(maxsize=0)
    Queue.empty(self)
    Queue.full(self)
    Queue.get(self)
    Queue.get_nowait(self)
    Queue.join(self)
    Queue.put(self, item)
    Queue.put_nowait(self, item)
    Queue.qsize(self)
    Queue.shutdown(self, immediate=False)
    Queue.task_done(self)
    Timeout(when)
    Timeout.expired(self)
    Timeout.reschedule(self, when)
    Timeout.when(self)
    timeout(delay)
    timeout_at(when)
    TaskGroup()
    TaskGroup.cancel(self)
    TaskGroup.create_task(self, coro, **kwargs)
    to_thread(func, /, *args, **kwargs)
    StreamReader(limit=65536, loop=None)
    StreamReader.at_eof(self)
    StreamReader.exception(self)
    StreamReader.feed_data(self, data)
    StreamReader.feed_eof(self)
    StreamReader.read(self, n=-1)
    StreamReader.readexactly(self, n)
    StreamReader.readline(self)
    StreamReader.readuntil(self, separator=b'\n')
    StreamReader.set_exception(self, exc)
    StreamReader.set_transport(self, transport)
    StreamReaderProtocol(stream_reader, client_connected_cb=None, loop=None)
    StreamReaderProtocol.connection_lost(self, exc)
    StreamReaderProtocol.connection_made(self, transport)
    StreamReaderProtocol.data_received(self, data)
    StreamReaderProtocol.eof_received(self)
    StreamReaderProtocol.pause_writing(self)
    StreamReaderProtocol.resume_writing(self)
    StreamWriter(transport, protocol, reader, loop)
    StreamWriter.can_write_eof(self)
    StreamWriter.close(self)
    StreamWriter.drain(self)
    StreamWriter.get_extra_info(self, name, default=None)
    StreamWriter.is_closing(self)
    StreamWriter.start_tls(self, sslcontext, *, server_hostname=None,
        ssl_handshake_timeout=None, ssl_shutdown_timeout=None)
    StreamWriter.wait_closed(self)
    StreamWriter.write(self, data)
    StreamWriter.write_eof(self)
    StreamWriter.writelines(self, data)
    open_connection(host=None, port=None, *, limit=65536, **kwds)
    open_unix_connection(path=None, *, limit=65536, **kwds)
    start_server(client_connected_cb, host=None, port=None, *, limit=65536, **kwds)
    start_unix_server(client_connected_cb, path=None, *, limit=65536, **kwds)
    Process(transport, protocol, loop)
    Process.communicate(self, input=None)
    Process.kill(self)
    Process.send_signal(self, signal)
    Process.terminate(self)
    Process.wait(self)
    SubprocessStreamProtocol(limit, loop)
    SubprocessStreamProtocol.connection_lost(self, exc)
    SubprocessStreamProtocol.connection_made(self, transport)
    SubprocessStreamProtocol.pause_writing(self)
    SubprocessStreamProtocol.pipe_connection_lost(self, fd, exc)
    SubprocessStreamProtocol.pipe_data_received(self, fd, data)
    SubprocessStreamProtocol.process_exited(self)
    SubprocessStreamProtocol.resume_writing(self)
    create_subprocess_exec(program, *args, stdin=None, stdout=None, stderr=None,
        limit=65536, **kwds)
    create_subprocess_shell(cmd, stdin=None, stdout=None, stderr=None, limit=65536, **kwds)
    Runner(*, debug=None, loop_factory=None)
    Runner.close(self)
    Runner.get_loop(self)
    Runner.run(self, coro, *, context=None)
    run(main, *, debug=None, loop_factory=None)
"""

AREAS = """
    exceptions events futures graph tasks locks queues timeouts taskgroups threads
    streams subprocess runners
""".split()

# Names of ours that asyncio keeps in its modules and not in its __all__.
BELOW = {
    "Process": "subprocess",
    "SubprocessStreamProtocol": "subprocess",
}


# What is data.
TYPES = {"FrameCallGraphEntry", "FutureCallGraph"}


def expected():
    for line in NEWEST.replace("\n        ", " ").strip().splitlines():
        name, signature = re.fullmatch(r"\s*([\w.]+)(\(.*\))", line).groups()
        yield pytest.param(name, signature, id=name)


def resolve(module, name):
    """The object of that name; None where this asyncio does not have it."""
    first, _, method = name.partition(".")
    if first in BELOW:
        module = importlib.import_module(f"{module.__name__}.{BELOW[first]}")
    found = getattr(module, first, None)
    return getattr(found, method, None) if method else found


def parameters_of(text):
    """The parameters of a signature as it is written in the table."""
    scope = {}
    exec(f"def function{text}: pass", scope)
    return inspect.signature(scope["function"]).parameters


def difference(ours, theirs):
    """What a caller of theirs notices when it calls ours; None if nothing."""
    takes_any = any(p.kind is p.VAR_KEYWORD for p in ours.values())
    for name, parameter in theirs.items():
        if name not in ours:
            if parameter.kind is parameter.KEYWORD_ONLY and takes_any:
                continue
            return f"no {parameter}"
        if ours[name].kind is not parameter.kind:
            return f"{name} is {ours[name].kind.description}, not {parameter.kind.description}"
        if repr(ours[name].default) != repr(parameter.default):
            return f"{name} has another default: {ours[name].default!r}"
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    orders = [
        [name for name, p in parameters.items() if p.kind in positional]
        for parameters in (ours, theirs)
    ]
    return None if orders[0] == orders[1] else f"in another order: {orders}"


def is_asyncios(found):
    """Is it the same object, or a method that is inherited?"""
    return getattr(found, "__module__", "_asyncio").split(".")[0] in ("asyncio", "_asyncio")


@pytest.mark.parametrize(("name", "signature"), list(expected()))
def test_signature_is_the_newest(name, signature):
    found = resolve(import_veloop(), name)
    if is_asyncios(resolve(import_veloop(), name.partition(".")[0])):
        pytest.skip("asyncio's own")
    theirs = parameters_of(signature)
    assert difference(inspect.signature(found).parameters, theirs) is None


@pytest.mark.parametrize(("name", "signature"), list(expected()))
def test_signature_has_what_this_asyncio_has(name, signature):
    found, theirs = resolve(import_veloop(), name), resolve(asyncio, name)
    if theirs is None:
        pytest.skip("not in this asyncio")
    parameters = [inspect.signature(each).parameters for each in (found, theirs)]
    assert difference(*parameters) is None


@pytest.mark.parametrize("area", AREAS)
def test_every_function_and_method_is_in_the_table_and_has_a_docstring(area):
    module = importlib.import_module(f"veloop.{area}")
    known = {param.id for param in expected()}
    for name in module.__all__:
        found = getattr(module, name)
        if is_asyncios(found) or not callable(found):
            continue
        assert inspect.getdoc(found), name
        if isinstance(found, type) and issubclass(found, BaseException):
            continue
        assert name in known or name in TYPES, name
        for method in vars(found) if isinstance(found, type) else ():
            if not method.startswith("_") and f"{name}.{method}" in known:
                assert inspect.getdoc(getattr(found, method)), f"{name}.{method}"


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("(a, b=1)", "(a, b=1)", True),
        ("(a, b=1, *, more=None)", "(a, b=1)", True),
        ("(a, **kwargs)", "(a, *, b=None)", True),
        ("(a)", "(a, *, b=None)", False),
        ("(a, b)", "(b, a)", False),
        ("(a, b=2)", "(a, b=1)", False),
        ("(a, *, b=1)", "(a, b=1)", False),
        ("(a, more=1)", "(a)", False),
    ],
)
def test_differences_are_found(ours, theirs, same):
    assert (difference(parameters_of(ours), parameters_of(theirs)) is None) is same
