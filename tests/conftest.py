"""The fixture `loop`, twice for every test that asks for it, and what a test must leave behind.

Every behaviour test runs on veloop and on stock asyncio. Where veloop can't be imported its half
ERRORs; nothing here skips it (`-k asyncio` selects the other half while there is no veloop yet).

After each test, whether it asked for a loop or not:

- no exception reached a loop's exception handler that the test did not take from `loop_errors`,
- nothing was logged as an error to the logger "asyncio" that it did not take from `asyncio_log`,
- no task is pending, no file descriptor, thread or child process is left, no libuv handle is open,
- wakeup fd, SIGINT handler, async generator hooks, running loop are what they were before.

ResourceWarnings become errors by pytest's own `filterwarnings = error`.

What only garbage tells, as that an exception was never retrieved, is told by the test that left it.
Where collecting is slow (helpers.SLOW_GC) it may be one of the next few.
"""

import asyncio
import gc
import logging
import signal
import socket
import sys
import threading

import pytest

import helpers

# A shell that runs pytest in the background has it ignore Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "stock_since(version, reason): stock asyncio behaves so only since that Python "
        "('3.13', '3.12.1'); veloop does on every one, so only the asyncio half is skipped before.",
    )
    config.addinivalue_line(
        "markers",
        "veloop_only(reason): veloop promises what stock asyncio does not on any Python; "
        "the asyncio half is skipped.",
    )
    config.addinivalue_line(
        "markers",
        "stock_unless(condition, reason): where the condition holds stock asyncio, or what it is "
        "made of, does otherwise; the asyncio half is skipped.",
    )
    config.addinivalue_line(
        "markers",
        "module_since(version, reason): asyncio's own module behaves so only since that Python; "
        "veloop's does on every one, so only its half of the fixture aio runs before.",
    )
    config.addinivalue_line(
        "markers",
        "own_module_only(reason): veloop's module promises what asyncio's does not on any Python.",
    )
    config.addinivalue_line(
        "markers",
        "proactor: pipes, children, Ctrl-C: asyncio's half is a ProactorEventLoop on Windows.",
    )


# Whether the test that ends now looks for garbage in any case, or only where something is left.
_thorough = True
_tests_ended = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item, nextitem):
    global _thorough, _tests_ended
    _tests_ended += 1
    is_last = nextitem is None or nextitem.path != item.path
    # Its garbage may warn of what it has filters for.
    has_filters = item.get_closest_marker("filterwarnings") is not None
    _thorough = not helpers.SLOW_GC or is_last or has_filters or _tests_ended % 10 == 0


def pytest_collection_finish(session):
    gc.collect()
    keep_alive()


def keep_alive():
    """What is alive stays for a while: no gc.collect() need look at it till the module ends."""
    if hasattr(gc, "freeze"):
        gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _garbage_of_the_module():
    """What stayed from test to test is looked at when the module ends."""
    yield
    if hasattr(gc, "unfreeze"):
        gc.unfreeze()
        helpers.collect(passes=2)
        keep_alive()


# ------------------------------------------------------------ which loop


# Also either's methods on the other's queue and timers: what is rare goes from one to the other.
@pytest.fixture(params=["accelerated", "python", "python methods", "python containers"])
def variant(request, monkeypatch):
    """How much of the accelerator loops have that are made from now on (test_speedups*.py)."""
    from speedups_helpers import use  # not before veloop is wanted

    use(request.param, monkeypatch)
    return request.param


@pytest.fixture(params=helpers.LOOPS)
def loop_kind(request):
    """'veloop' or 'asyncio', for tests that make loops elsewhere, in a child process say."""
    if request.param == "asyncio":
        for mark in request.node.iter_markers("stock_since"):
            version, reason = mark.args
            if sys.version_info[:3] < tuple(map(int, version.split("."))):
                pytest.skip(f"stock asyncio only since {version}: {reason}")
        for mark in request.node.iter_markers("stock_unless"):
            condition, reason = mark.args
            if condition:
                pytest.skip(f"not on this Python's asyncio: {reason}")
        for mark in request.node.iter_markers("veloop_only"):
            pytest.skip(f"not on stock asyncio: {mark.args[0]}")
    else:
        helpers.import_veloop()
    return request.param


@pytest.fixture(params=helpers.MODULES)
def aio(request):
    """The module whose tasks, locks, streams ... are tested: veloop, and asyncio as the control.

    Together with the fixture `loop` each test runs with either module on either loop: which of
    the four fail says in which half the bug is.
    """
    if request.param == "asyncio":
        for mark in request.node.iter_markers("module_since"):
            version, reason = mark.args
            if sys.version_info[:3] < tuple(map(int, version.split("."))):
                pytest.skip(f"asyncio's module only since {version}: {reason}")
        for mark in request.node.iter_markers("own_module_only"):
            pytest.skip(f"not in asyncio's module: {mark.args[0]}")
        return asyncio
    return helpers.import_veloop()


# kind -> how many libuv handles a loop of it keeps for itself once it ran.
_own_handles = {}


def warm_up(kind):
    """Make, run and drop one loop, so that what is opened once per process is not called a leak."""
    if kind not in _own_handles:
        loop = helpers.new_event_loop(kind)
        helpers.run_turns(loop)
        _own_handles[kind] = live_handles()
        loop.close()


def live_handles():
    """How many libuv handles the shim has allocated and not freed; 0 when veloop was not used."""
    if "veloop" not in sys.modules:
        return 0
    from veloop._uv import lib

    return lib.vl_live_handles()


# ------------------------------------------------------------ expectations


class Expected:
    """A list that must be empty at the end of the test: the test takes what it expects."""

    def __init__(self, what):
        self.what = what
        self.items = []
        self._is_over = False

    def add(self, item):
        """One more; whoever causes it when the test is over gets an exception."""
        assert not self._is_over, f"{self.what} after the end of its test: {item}"
        self.items.append(item)

    def take(self):
        """Everything up to now, which is thereby expected."""
        taken, self.items = self.items, []
        return taken

    def take_one(self):
        """The only one there is."""
        taken = self.take()
        assert len(taken) == 1, f"expected one {self.what}, got {taken}"
        return taken[0]

    def check(self):
        self._is_over = True
        assert not self.items, f"{self.what} nobody expected: {self.items}"


@pytest.fixture
def loop_errors(_expected_errors):
    """Contexts that reached the exception handler of one of the test's loops."""
    return _expected_errors


@pytest.fixture
def _expected_errors():
    return Expected("call of the loop's exception handler")


class _ErrorLog(logging.Handler):
    def __init__(self, expected):
        super().__init__(logging.ERROR)
        self._expected = expected

    def emit(self, record):
        self._expected.add(record)


@pytest.fixture
def asyncio_log(_process_guard):
    """Records of level ERROR and above that were logged to the logger "asyncio"."""
    return _process_guard


# ------------------------------------------------------------ guards


@pytest.fixture(autouse=True)
def _process_guard(request):
    """What belongs to the process is after the test as it was before."""
    if "loop_kind" in request.fixturenames:
        warm_up(request.getfixturevalue("loop_kind"))
    # Garbage of the test before was collected by its own guard.
    fds = helpers.open_fds()
    threads = set(threading.enumerate())
    children = helpers.child_pids()
    state = _process_state()
    log = Expected("error in the log")
    handler = _ErrorLog(log)
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)

    yield log

    is_collected = "new_loop" in request.fixturenames
    if _thorough and not is_collected or not helpers.SLOW_GC or _leaves(fds, threads):
        helpers.collect(passes=2)
    logger.removeHandler(handler)
    log.check()
    left = helpers.leaked_threads(threads)
    assert not left, f"threads left behind: {left}"
    left = helpers.leaked_children(children)
    assert not left, f"child processes left behind: {left}"
    leaked = helpers.leaked_fds(fds)
    assert not leaked, f"file descriptors left open: {leaked}"
    assert live_handles() == 0, f"{live_handles()} libuv handles were never freed"
    after = _process_state()
    assert after == state, f"process state changed: {state} -> {after}"
    if _thorough:
        keep_alive()


def _leaves(fds, threads):
    """Whether there is something that could go together with garbage."""
    return (
        live_handles()
        or helpers.open_fds().items() - fds.items()
        or set(threading.enumerate()) - threads
    )


def _process_state():
    wakeup_fd = signal.set_wakeup_fd(-1)
    if wakeup_fd != -1:
        signal.set_wakeup_fd(wakeup_fd)
    return {
        "wakeup fd": wakeup_fd,
        "SIGINT handler": signal.getsignal(signal.SIGINT),
        "async generator hooks": tuple(sys.get_asyncgen_hooks()),
        "coroutine origin tracking": sys.get_coroutine_origin_tracking_depth(),
        "running loop": asyncio._get_running_loop(),
    }


@pytest.fixture
def new_loop(request, loop_kind, _process_guard, _expected_errors):
    """A function that makes one more loop; it is checked and closed at the end of the test."""
    loops = []
    proactor = request.node.get_closest_marker("proactor") is not None

    def make():
        loop = helpers.new_event_loop(loop_kind, proactor)
        loop.set_exception_handler(lambda _, context: _expected_errors.add(context))
        loops.append(loop)
        return loop

    yield make

    # Unreferenced transports and tasks say so now, while the loop can still do something about it.
    if not helpers.SLOW_GC or _are_busy(loops, loop_kind):
        helpers.collect(passes=2)
    problems = [f"{loop!r} still runs" for loop in loops if loop.is_running()]
    loops = [loop for loop in loops if not loop.is_closed() and not loop.is_running()]
    for loop in loops:
        problems += _settle(loop)
    if live_handles() > len(loops) * _own_handles[loop_kind]:
        problems.append(f"{live_handles()} libuv handles still open, of {len(loops)} idle loops")
    while loops:
        loops.pop().close()
    # What only shows when a future or task is collected reaches the handlers here.
    if _thorough:
        helpers.collect(passes=2)
    _expected_errors.check()
    assert not problems, "; ".join(problems)


@pytest.fixture
def loop(new_loop):
    """One loop, not running, not closed."""
    return new_loop()


@pytest.fixture
def connections(loop):
    """connections(n, factory) -> that many (protocol, peer), connected, all looked after."""
    made = []

    def connect(count, factory):
        async def main():
            for _ in range(count):
                mine, peer = socket.socketpair()
                peer.settimeout(helpers.PATIENCE)
                _, protocol = await loop.connect_accepted_socket(factory, mine)
                made.append((protocol, peer))
            return made[-count:]

        return helpers.run(loop, main())

    yield connect

    async def finish():
        for protocol, peer in made:
            peer.close()
            if not protocol.lost.done():
                protocol.transport.abort()
                await protocol.lost

    helpers.run(loop, finish())


def _are_busy(loops, kind):
    """Whether one of these has tasks, transports, or anything else to wait for."""
    loops = [loop for loop in loops if not loop.is_closed()]
    selectors = [loop._selector for loop in loops if hasattr(loop, "_selector")]
    return (
        live_handles() > len(loops) * _own_handles[kind]
        or any(len(selector.get_map()) > 1 for selector in selectors)
        or any(not task.done() for loop in loops for task in asyncio.all_tasks(loop))
    )


def _settle(loop):
    """Bring a loop to rest as an orderly program does before close; what was wrong with it."""
    problems = []
    pending = [task for task in asyncio.all_tasks(loop) if not task.done()]
    if pending:
        problems.append(f"tasks still pending: {pending}")
        for task in pending:
            task.cancel()
        helpers.run(loop, asyncio.wait(pending))
    loop.set_task_factory(None)
    helpers.run(loop, loop.shutdown_asyncgens())
    helpers.run(loop, loop.shutdown_default_executor())
    # Handles are freed in the turn after they were closed.
    helpers.run_turns(loop, 3)
    return problems
