"""stream_reader.py: random programs of chunks and reads give what asyncio's reader gives.

Two readers get the same: one of ours, by its protocol and so with tasks that go on at once, and
asyncio's as the model. After every step both must have returned or raised the same, and hold the
same unread bytes.
"""

import asyncio
import random

import pytest

from helpers import import_veloop, run
from stream_helpers import Line
from tcp_helpers import turns

PROGRAMS = 150


def chunk(rng):
    return bytes(rng.choices(b"ab-\n", weights=(6, 2, 2, 1), k=rng.randrange(1, 12)))


def reading(rng):
    """(name, arguments) of a read."""
    name = rng.choice(["read", "readexactly", "readline", "readuntil", "read_all"])
    if name == "read_all":
        return "read", ()
    if name in ("read", "readexactly"):
        return name, (rng.randrange(0, 20),)
    if name == "readuntil":
        return name, (rng.choice([b"-", b"--", b"ab", b"-\na"]),)
    return name, ()


def told(task):
    """What a task came to, as something that can be compared."""
    if not task.done():
        return "waits"
    if task.cancelled():
        return "cancelled"
    exc = task.exception()
    if exc is None:
        return task.result()
    return type(exc), str(exc), getattr(exc, "partial", None), getattr(exc, "consumed", None)


async def play(loop, modules, seed, by_hand):
    rng = random.Random(seed)
    limit = rng.choice([3, 8, 1000])
    lines = [Line(module, loop, limit=limit) for module in modules]
    tasks = None
    trace = []
    for _ in range(40):
        step = rng.choice(["feed", "feed", "read", "read", "read", "cancel", "eof"])
        if step == "feed":
            data = chunk(rng)
            for line in lines:
                if not line.reader._eof:
                    if by_hand:
                        line.reader.feed_data(data)
                    else:
                        await line.deliver(data)
        elif step == "read" and tasks is None:
            name, args = reading(rng)
            trace.append((name, args))
            tasks = [loop.create_task(getattr(line.reader, name)(*args)) for line in lines]
        elif step == "cancel" and tasks is not None and trace[-1] != ("read", ()):
            for task in tasks:  # of a read to the end asyncio's would lose what it has
                task.cancel()
        elif step == "eof" and rng.random() < 0.2:
            for line in lines:
                if not line.reader._eof:
                    await line.end()
        await turns(4)
        if tasks is not None:
            ours, model = map(told, tasks)
            assert ours == model, (seed, trace)
            if ours != "waits":
                tasks = None
        if tasks is None:
            ours, model = (bytes(line.reader._buffer) for line in lines)
            assert ours == model, (seed, trace)
            assert lines[0].reader.at_eof() == lines[1].reader.at_eof()
            ours, model = (line.reader._paused for line in lines)
            # What the task took at once was never too much.
            assert ours <= model, (seed, trace)
    for line in lines:
        if not line.reader._eof:
            await line.end()
    if tasks is not None:
        await asyncio.wait(tasks)
        ours, model = map(told, tasks)
        assert ours == model, (seed, trace)


@pytest.mark.parametrize("by_hand", [False, True], ids=["delivered", "fed"])
def test_random_programs_give_what_asyncios_reader_gives(loop, by_hand):
    async def main():
        for seed in range(PROGRAMS):
            await play(loop, (import_veloop(), asyncio), seed, by_hand)

    run(loop, main())


def test_chunks_of_every_size_are_read_as_one_stream(loop):
    """Whatever was fed comes out, once and in order, in whatever pieces it is asked for."""
    veloop = import_veloop()

    async def main():
        for seed in range(30):
            rng = random.Random(seed)
            data = rng.randbytes(20_000)
            reader = veloop.StreamReader(limit=1 << 20)
            got = b""
            position = 0
            while position < len(data) or not reader.at_eof():
                if position < len(data) and rng.random() < 0.6:
                    size = rng.choice([1, 10, 100, 2000])
                    reader.feed_data(data[position : position + size])
                    position += size
                    if position >= len(data):
                        reader.feed_eof()
                elif len(reader._buffer if rng.random() < 0.1 else reader._head):
                    got += await reader.read(rng.choice([1, 7, 500, 5000]))
            assert got == data, seed

    run(loop, main())
