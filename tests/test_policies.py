"""policies.py: EventLoopPolicy and install(), on Pythons that have policies."""

import asyncio
import subprocess
import sys
import threading
import warnings

import pytest

from children import script_env
from helpers import PATIENCE, WINDOWS, import_veloop, in_thread, new_event_loop

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 16), reason="no policies any more")

DEPRECATED = sys.version_info >= (3, 14)


@pytest.fixture(autouse=True)
def _policy_guard(_process_guard):
    """The process's policy is None, that is to be made when asked for, before and after."""
    events = asyncio.events
    old, events._event_loop_policy = events._event_loop_policy, None
    with warnings.catch_warnings():
        if DEPRECATED:
            warnings.filterwarnings("ignore", "'?asyncio.*is deprecated", DeprecationWarning)
        yield
    events._event_loop_policy = old


@pytest.fixture(scope="module", autouse=True)
def _warm_up():
    """What a process opens once, with its first loop, must not be taken for a leak."""
    new_event_loop("veloop").close()


@pytest.fixture
def veloop():
    return import_veloop()


@pytest.fixture
def policy(veloop):
    """One of ours, in use."""
    policy = veloop.EventLoopPolicy()
    asyncio.set_event_loop_policy(policy)
    return policy


async def current_loop():
    return asyncio.get_running_loop()


def child(source, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", source],
        env=script_env("veloop"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


# ------------------------------------------------------------ the policy


def test_policy_is_asyncios(veloop):
    policy = veloop.EventLoopPolicy()
    assert isinstance(policy, asyncio.AbstractEventLoopPolicy)
    assert isinstance(policy, asyncio.DefaultEventLoopPolicy)


def test_new_event_loop(veloop, policy):
    for make in (policy.new_event_loop, asyncio.new_event_loop):
        loop = make()
        assert type(loop) is veloop.EventLoop
        loop.close()


def test_run_uses_our_loop(veloop, policy):
    assert type(asyncio.run(current_loop())) is veloop.EventLoop


def test_runner_uses_our_loop(veloop, policy):
    with asyncio.Runner() as runner:
        assert type(runner.get_loop()) is veloop.EventLoop
        assert asyncio.get_event_loop() is runner.get_loop()


def test_loop_factory_of_the_program_wins(policy):
    with asyncio.Runner(loop_factory=lambda: new_event_loop("asyncio")) as runner:
        assert isinstance(runner.get_loop(), asyncio.SelectorEventLoop) or WINDOWS


def test_run_in_another_thread_uses_our_loop(veloop, policy):
    loop = in_thread(lambda: asyncio.run(current_loop()))
    assert type(loop) is veloop.EventLoop


def test_set_event_loop(policy):
    loop = policy.new_event_loop()
    asyncio.set_event_loop(loop)
    assert asyncio.get_event_loop() is loop
    asyncio.set_event_loop(None)
    with pytest.raises(RuntimeError, match="no current event loop in thread 'MainThread'"):
        asyncio.get_event_loop()
    loop.close()


def test_set_event_loop_refuses_what_is_no_loop(policy):
    with pytest.raises((TypeError, AssertionError)):
        policy.set_event_loop(42)


def test_get_event_loop_in_another_thread_raises(policy):
    def get():
        with pytest.raises(RuntimeError, match=r"no current event loop in thread 'test-.*get"):
            asyncio.get_event_loop()
        with pytest.raises(RuntimeError, match="no current event loop"):
            policy.get_event_loop()

    in_thread(get)


def test_each_thread_has_its_own_event_loop(policy):
    def set_and_get():
        loop = policy.new_event_loop()
        asyncio.set_event_loop(loop)
        assert asyncio.get_event_loop() is loop
        loop.close()
        return loop

    loop = policy.new_event_loop()
    asyncio.set_event_loop(loop)
    assert in_thread(set_and_get) is not loop
    assert asyncio.get_event_loop() is loop
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="get_event_loop() makes no loop any more")
def test_get_event_loop_makes_one_in_the_main_thread(veloop, policy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12, when it makes one
        loop = asyncio.get_event_loop()
        assert asyncio.get_event_loop() is loop
    assert type(loop) is veloop.EventLoop
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="get_event_loop() makes a loop")
def test_get_event_loop_makes_none(policy):
    with pytest.raises(RuntimeError, match="no current event loop in thread 'MainThread'"):
        asyncio.get_event_loop()


def test_subclass_may_use_either_name(veloop):
    class ByMethod(veloop.EventLoopPolicy):
        def new_event_loop(self):
            loop = super().new_event_loop()
            loop.slow_callback_duration = 5
            return loop

    class ByFactory(veloop.EventLoopPolicy):
        def new_event_loop(self):
            return self._loop_factory()

    for cls in (ByMethod, ByFactory):
        loop = cls().new_event_loop()
        assert type(loop) is veloop.EventLoop
        loop.close()


# ------------------------------------------------------------ child watchers, up to 3.13


@pytest.mark.skipif(WINDOWS or sys.version_info >= (3, 14), reason="no child watchers")
class TestChildWatchers:
    """They serve subprocesses of asyncio's own loops, also while our policy is in use."""

    @pytest.fixture(autouse=True)
    def _quiet(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12
            yield

    def watch(self, watcher, loop):
        """The exit status of a child that ends with status 7."""
        status = loop.create_future()

        async def main():
            process = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"])
            watcher.add_child_handler(
                process.pid, lambda pid, code: loop.call_soon_threadsafe(status.set_result, code)
            )
            result = await status
            process.returncode = result
            return result

        return loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))

    def test_default_watcher(self, policy):
        watcher = asyncio.get_child_watcher()
        assert watcher.is_active()
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        assert self.watch(watcher, loop) == 7
        asyncio.set_event_loop(None)
        loop.close()

    def test_watcher_that_uses_the_loops_signal_handler(self, policy):
        watcher = asyncio.SafeChildWatcher()
        policy.set_child_watcher(watcher)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)  # attaches the watcher
        assert self.watch(watcher, loop) == 7
        watcher.close()
        asyncio.set_event_loop(None)
        loop.close()

    def test_subprocess_on_a_stock_loop(self, policy):
        async def main():
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-c", "raise SystemExit(7)"
            )
            return await process.wait()

        loop = new_event_loop("asyncio")
        asyncio.set_event_loop(loop)
        assert loop.run_until_complete(asyncio.wait_for(main(), PATIENCE)) == 7
        asyncio.set_event_loop(None)
        loop.close()
        for thread in threading.enumerate():
            if thread.name.startswith("asyncio-waitpid"):
                thread.join(PATIENCE)


# ------------------------------------------------------------ install


def test_install(veloop):
    if DEPRECATED:
        with pytest.warns(DeprecationWarning, match=r"veloop\.install\(\).*use veloop\.run"):
            veloop.install()
    else:
        veloop.install()
    assert type(asyncio.get_event_loop_policy()) is veloop.EventLoopPolicy
    assert type(asyncio.run(current_loop())) is veloop.EventLoop


def test_install_does_not_change_run_of_veloop(veloop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        veloop.install()
    assert type(veloop.run(current_loop())) is veloop.EventLoop


# ------------------------------------------------------------ warnings


@pytest.mark.skipif(not DEPRECATED, reason="policies are not deprecated")
@pytest.mark.slow
def test_install_warns_once_and_names_the_caller():
    source = "import asyncio, veloop\nveloop.install()\n"
    done = child(source, "-W", "always")
    assert done.stdout == ""
    assert done.stderr.count("DeprecationWarning") == 1
    assert done.stderr.startswith("<string>:2: DeprecationWarning: veloop.install()")


@pytest.mark.slow
def test_looking_and_running_warns_of_nothing():
    source = """
import asyncio, veloop
policy = veloop.EventLoopPolicy, veloop.install, veloop.policies
async def main(): print(type(asyncio.get_running_loop()).__name__)
veloop.run(main())
"""
    done = child(source, "-W", "error")
    assert (done.stdout, done.stderr) == ("EventLoop\n", "")


@pytest.mark.slow
def test_set_event_loop_policy_warns_as_asyncio_does():
    source = """
import asyncio, veloop
asyncio.set_event_loop_policy(veloop.EventLoopPolicy())
async def main(): print(type(asyncio.get_running_loop()).__module__.partition(".")[0])
asyncio.run(main())
"""
    done = child(source, "-W", "always")
    assert done.stdout == "veloop\n"
    if DEPRECATED:
        assert "'asyncio.set_event_loop_policy' is deprecated" in done.stderr
    assert done.stderr.count("DeprecationWarning") == DEPRECATED
