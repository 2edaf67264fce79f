"""What the tests of tasks, groups, timeouts, locks and queues share: coroutines to wait for."""

import asyncio

import pytest


async def turns(number=1, result=None):
    """Let everybody else run that often; the result."""
    for _ in range(number):
        await asyncio.sleep(0)
    return result


async def value(result, after=0):
    """The result, after so many turns."""
    return await turns(after, result)


async def fail(error=ZeroDivisionError, after=0):
    """Raise the error, after so many turns."""
    await turns(after)
    raise error


async def forever():
    """Never end, unless cancelled."""
    await asyncio.get_running_loop().create_future()


async def cancelled(task):
    """Wait for the end of a task that must have been cancelled."""
    with pytest.raises(asyncio.CancelledError):
        await task
