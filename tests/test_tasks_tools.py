"""`python -m asyncio ps` and `pstree`, which read another process's tasks out of its memory."""

import re
import subprocess
import sys

import pytest

from helpers import PATIENCE, import_veloop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info < (3, 14), reason="new in 3.14"),
]

PROGRAM = """
import asyncio, sys, veloop
aio, kind = {"asyncio": asyncio, "veloop": veloop}[sys.argv[1]], sys.argv[2]
factory = veloop.new_event_loop if kind == "veloop" else asyncio.new_event_loop

async def leaf():
    print("up", flush=True)
    await aio.sleep(60)

async def branch():
    await aio.gather(leaf())

async def main():
    async with aio.TaskGroup() as group:
        group.create_task(branch(), name="branch")

aio.run(main(), loop_factory=factory)
"""


@pytest.fixture
def program(aio, loop_kind):
    import_veloop()
    command = [sys.executable, "-c", PROGRAM, aio.__name__, loop_kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"up\n"
            yield process
        finally:
            process.kill()


def ask(tool, pid):
    """What the tool prints; skips the test where this user, or this system, may not look."""
    command = [sys.executable, "-m", "asyncio", tool, str(pid)]
    for _ in range(10):  # it reads while the other runs, and may find things half changed
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode == 0 and "leaf" in done.stdout:
            return done.stdout
    message = done.stdout + done.stderr
    if re.search("(?i)permission|not permitted|not supported|PyRuntime", message):
        pytest.skip(message.strip().splitlines()[-1])
    raise AssertionError(message)


def test_ps_names_the_tasks_and_who_awaits_them(program):
    lines = [re.split(" {2,}", line) for line in ask("ps", program.pid).splitlines()]
    names = {line[2]: line for line in lines if len(line) > 3}
    assert {"Task-1", "branch"} <= names.keys()
    assert names["branch"][3].endswith("branch")
    assert "Task-1" in names["branch"]
    (leaf,) = (line for line in lines if len(line) > 3 and line[3].endswith("leaf"))
    assert "branch" in leaf[4:]


def test_pstree_draws_who_awaits_whom(program):
    drawn = re.findall(
        r"\(T\) (\S+)|──  (?:\S+ -> )*(main|branch|leaf) ", ask("pstree", program.pid)
    )
    tasks = [task for task, _ in drawn if task]
    functions = [function for _, function in drawn if function]
    assert tasks[:2] == ["Task-1", "branch"] and len(tasks) == 3
    assert functions == ["main", "branch", "leaf"]
