"""Loops, forks and children in a process whose descriptors are closed, or run out: once a loop is
closed, nothing of it is left among them. Each test is a script of its own.
"""

import os

import pytest

from children import run_script

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]


def test_daemon_closes_all_descriptors(loop_kind):
    """The usual way to become one, after a loop was used; then again a loop, and a child."""
    script = """
    async def main():
        process = await asyncio.create_subprocess_exec("true")
        print(await process.wait(), flush=True)
    run(main())
    pid = os.fork()
    if pid:
        sys.exit(os.waitpid(pid, 0)[1])
    os.setsid()
    os.closerange(3, 1024)
    run(main())
    """
    assert run_script(loop_kind, script).stdout == "0\n0\n"


def test_fork_leaves_files_alone_that_took_over_numbers(loop_kind, tmp_path):
    script = f"""
    new_event_loop().close()
    os.closerange(3, 1024)
    files = [open({str(tmp_path)!r} + f"/{{n}}", "w") for n in range(4)]
    pid = os.fork()
    if pid == 0:
        for file in files:
            file.write("hello")
            file.close()
        os._exit(0)
    print(os.waitpid(pid, 0)[1])
    """
    assert run_script(loop_kind, script).stdout == "0\n"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["hello"] * 4


def test_fork_without_standard_input(loop_kind):
    """Nothing takes its number in the child; nor in the child's child."""
    script = """
    def is_open(fd):
        try: return bool(os.fstat(fd))
        except OSError: return False

    def fork(function):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = function()
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    new_event_loop().close()
    os.close(0)
    print(fork(lambda: 10 + is_open(0)), fork(lambda: fork(lambda: 20 + is_open(0))))
    """
    assert run_script(loop_kind, script).stdout == "10 20\n"


def test_fork_without_free_descriptors(loop_kind):
    script = """
    import resource
    new_event_loop().close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert run_script(loop_kind, script).stdout == "7\n"


@pytest.mark.parametrize("room", range(3))
def test_first_loop_without_free_descriptors(loop_kind, room):
    script = f"""
    import errno, resource
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + {room}, limits[1]))
    try:
        new_event_loop()
    except OSError as exc:
        print(type(exc).__name__, exc.errno == errno.EMFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    new_event_loop().close()
    print("works")
    """
    assert run_script(loop_kind, script).stdout == "OSError True\nworks\n"
