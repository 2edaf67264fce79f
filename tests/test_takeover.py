"""_main/takeover.py: a program that knows only asyncio gets veloop's loops, its children too."""

import subprocess
import sys
import textwrap

import pytest

from children import script_env
from helpers import PATIENCE, WINDOWS

# Every test starts interpreters.
pytestmark = pytest.mark.slow

VELOOP = ("-m", "veloop")

# What all programs here begin with.
PRELUDE = """\
import asyncio, multiprocessing, os, selectors, threading, unittest

def show(loop):
    print(type(loop).__module__.partition(".")[0], flush=True)
    return loop

async def main():
    show(asyncio.get_running_loop())
"""

# Ways of a program to a loop.
WAYS = {
    "run": "asyncio.run(main())",
    "Runner": "with asyncio.Runner() as runner: runner.run(main())",
    "new_event_loop": "show(asyncio.new_event_loop()).close()",
    "SelectorEventLoop": "show(asyncio.SelectorEventLoop()).close()",
    "SelectorEventLoop(None)": "show(asyncio.SelectorEventLoop(None)).close()",
    "loop_factory": """
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())
        """,
    "thread": """
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()
        """,
    "unittest": """
        class Test(unittest.IsolatedAsyncioTestCase):
            async def test(self):
                await main()
        with open(os.devnull, "w") as null:
            unittest.TextTestRunner(null).run(Test("test"))
        """,
}
if sys.version_info >= (3, 13):
    WAYS["EventLoop"] = "show(asyncio.EventLoop()).close()"
if sys.version_info < (3, 14):
    WAYS["get_event_loop"] = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12
        show(asyncio.get_event_loop()).close()
        """
    WAYS["policy"] = """
        asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())
        asyncio.run(main())
        """
if WINDOWS:
    WAYS["ProactorEventLoop"] = "show(asyncio.ProactorEventLoop()).close()"


@pytest.fixture
def run_program(tmp_path):
    """A function that runs a program with some options of python, and gives back its output.

    Whatever the program prints to stderr fails the test.
    """

    def run_program(source, *options):
        path = tmp_path / "prog.py"
        path.write_text(PRELUDE + textwrap.dedent(source), "utf-8")
        done = subprocess.run(
            [sys.executable, *options, str(path)],
            env=script_env("veloop"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run_program


@pytest.mark.parametrize("way", WAYS)
def test_program_gets_our_loop(run_program, way):
    assert run_program(WAYS[way], *VELOOP) == "veloop\n"
    assert run_program(WAYS[way]) == "asyncio\n"


def test_nothing_warns(run_program):
    """Least of all about policies, deprecated since 3.14."""
    assert run_program(WAYS["run"], "-W", "error", *VELOOP) == "veloop\n"


@pytest.mark.parametrize(
    "make",
    [
        "asyncio.SelectorEventLoop(selectors.SelectSelector())",
        "asyncio.SelectorEventLoop(selector=selectors.SelectSelector())",
        "type('Own', (asyncio.SelectorEventLoop,), {})()",
    ],
    ids=["selector", "selector by keyword", "subclass"],
)
def test_loop_that_must_be_a_stock_one_is(run_program, make):
    source = f"""
        loop = {make}
        print(isinstance(loop, asyncio.SelectorEventLoop))
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        """
    assert run_program(source, *VELOOP) == "True\n"


@pytest.mark.parametrize("method", ["spawn"] if WINDOWS else ["spawn", "forkserver", "fork"])
def test_children_and_their_children_get_our_loop(run_program, method):
    source = f"""
        def start(depth):
            asyncio.run(main())
            if depth:
                context = multiprocessing.get_context({method!r})
                child = context.Process(target=start, args=(depth - 1,))
                child.start()
                child.join()

        if __name__ == "__main__":
            start(2)
        """
    assert run_program(source, *VELOOP) == "veloop\n" * 3
    assert run_program(source) == "asyncio\n" * 3


@pytest.mark.parametrize("method", ["spawn"] if WINDOWS else ["spawn", "forkserver"])
def test_workers_of_an_executor_get_our_loop(run_program, method):
    source = f"""
        from concurrent.futures import ProcessPoolExecutor

        def start():
            asyncio.run(main())

        if __name__ == "__main__":
            with ProcessPoolExecutor(1, multiprocessing.get_context({method!r})) as pool:
                pool.submit(start).result()
        """
    assert run_program(source, *VELOOP) == "veloop\n"
