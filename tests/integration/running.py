"""Async tests as pytest can run them: on the fixture `loop`, or by `anyio.run` on such a loop."""

import asyncio
import functools
import inspect

from helpers import import_veloop, new_event_loop, run

# Seconds for one test, far more than any needs.
LIMIT = 30


def on_loop(test):
    """An async test of (loop, ...) as a test that pytest runs on the fixture `loop`."""

    @functools.wraps(test)
    def runs(loop, *args, **kwargs):
        run(loop, asyncio.wait_for(test(loop, *args, **kwargs), LIMIT))

    return runs


class AnyioRunner:
    """`anyio.run` with the loop under test: runner(main, *arguments)."""

    def __init__(self, kind):
        self.kind = kind
        if kind == "veloop":
            self.options = {"loop_factory": import_veloop().new_event_loop}
        else:
            self.options = {"loop_factory": functools.partial(new_event_loop, kind)}

    def __call__(self, main, *args, debug=False):
        import anyio

        async def bounded():
            assert type(asyncio.get_running_loop()).__module__.startswith(self.kind)
            with anyio.fail_after(LIMIT):
                return await main(*args)

        options = {**self.options, "debug": debug}
        return anyio.run(bounded, backend="asyncio", backend_options=options)


def on_anyio(test):
    """An async test as one that pytest runs, with anyio, on both kinds of loop."""

    @functools.wraps(test)
    def runs(runner, **kwargs):
        runner(functools.partial(test, **kwargs))

    # What pytest shall give it: `runner`, and what the test itself asks for.
    signature = inspect.signature(test)
    first = inspect.Parameter("runner", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    runs.__signature__ = signature.replace(parameters=[first, *signature.parameters.values()])
    return runs
