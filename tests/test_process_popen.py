"""process.py and children.py: what a child finds when it begins to run is what subprocess.Popen
would have given it, and what cannot be started fails as it does there.

The child says what it finds, once started by the loop and once by Popen itself, and the two are
compared. So whatever this machine's defaults are, they cannot differ.
"""

import asyncio
import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from children import run_script
from helpers import LINUX, PYPY, WINDOWS, import_veloop, open_fds
from process_helpers import DEVNULL, PIPE, STDOUT, disposition, inheritable, output_of, python, run

pytestmark = pytest.mark.skipif(WINDOWS, reason="what it compares is POSIX")

linux = pytest.mark.skipif(not LINUX, reason="needs /proc")
root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root")

# Two children tell what they find. One has no runtime that would change it; the other lists its
# descriptors, by hand, for a listing would have one more.
TELL = "cat", *(f"/proc/self/{name}" for name in "status stat fdinfo/0 fdinfo/1 fdinfo/2".split())
LIST = python(
    """
import os
def is_open(fd):
    try: return os.readlink(f"/proc/self/fd/{fd}")
    except OSError: return ""
print([fd for fd in range(200) if is_open(fd)], [is_open(fd) for fd in range(3)])
print(os.getcwd(), sorted(os.environb.items()), os.umask(0), flush=True)
"""
)


def findings(told, listed):
    """What they said, without what is another in each child; and the list of descriptors."""
    status, _, rest = told.partition("NoNewPrivs")
    stat, _, flags = rest.partition("\npos:")
    pid, group, session = [
        stat.split(")")[-2].split("\n")[-1].split()[0],
        *stat.split(")")[-1].split()[2:4],
    ]
    kept = [line for line in status.splitlines() if re.match("Uid|Gid|Groups|Umask|Sig", line)]
    kept = [line for line in kept if not line.startswith("SigQ")]
    relation = ["ITSELF" if number == pid else number for number in (group, session)]
    flags = [line.split()[1] for line in flags.splitlines() if line.startswith("flags")]
    listed = re.sub(r"(pipe|socket):\[[0-9]+\]", r"\1", listed)
    return kept, relation, flags, listed


def compare(loop, **options):
    """Have both ways run the two; what they agree on: (status lines, descriptors)."""
    options = {"stdin": DEVNULL, "stdout": PIPE, **options}
    theirs, ours = [], []
    for command in (TELL, LIST):
        popen = subprocess.Popen(command, **options)
        theirs.append(popen.communicate()[0].decode())
        code, output = run(loop, output_of(*command, **options))
        assert code == popen.returncode == 0
        ours.append(output.decode())
    found = findings(*ours)
    assert found == findings(*theirs)
    fds = {int(number) for number in found[3].partition("]")[0][1:].split(",")}
    return dict(line.split(":\t", 1) for line in found[0]), fds


@pytest.fixture(autouse=True)
def _no_posix_spawn(monkeypatch):
    """Popen itself may use it for some keywords, and glibc's leaves a trace in the signals."""
    monkeypatch.setattr(subprocess, "_USE_POSIX_SPAWN", False)


@pytest.fixture(autouse=True)
def _no_other_threads(monkeypatch):
    """Those that there are, are the test runner's, and leave the environment alone."""
    import_veloop()
    from veloop.loop import children

    monkeypatch.setattr(children, "_may_change_meanwhile", lambda env: False)


@pytest.fixture
def used_libuv(loop_kind, monkeypatch):
    """A function that tells whether libuv started children since it was called last."""
    if loop_kind != "veloop":
        return lambda: None
    import_veloop()
    from veloop.loop import children

    started = []
    spawn = children.Popen._spawn
    monkeypatch.setattr(
        children.Popen,
        "_spawn",
        lambda *args, **kwargs: started.append(1) or spawn(*args, **kwargs),
    )

    def used():
        taken, started[:] = bool(started), []
        return taken if children.can_spawn() else None

    return used


# ------------------------------------------------------------ the same as with Popen


def ballast():
    pass


SAME = {
    "nothing": {},
    "cwd": {"cwd": "/"},
    "cwd in bytes": {"cwd": b"/tmp"},
    "env": {"env": {"PATH": os.environ["PATH"], "ONE": "1", "NOTHING": ""}},
    "env in bytes": {"env": {**getattr(os, "environb", {}), b"\xff": b"\xfe"}},
    "start_new_session": {"start_new_session": True},
    "process_group": {"process_group": 0},
    "session and group": {"start_new_session": True, "process_group": None},
    "umask": {"umask": 0o027},
    "umask 0": {"umask": 0},
    "restore_signals": {"restore_signals": False},
    "close_fds": {"close_fds": False},
    "pipesize": {"pipesize": 8192},
    "stdin": {"stdin": None},
    "stderr": {"stderr": STDOUT},
    "stderr to nowhere": {"stderr": DEVNULL},
    "startupinfo": {"startupinfo": None, "creationflags": 0},
    "preexec_fn": {"preexec_fn": ballast},
    "preexec_fn that does something": {"preexec_fn": lambda: os.umask(0o011)},
}


@linux
@pytest.mark.parametrize("options", SAME.values(), ids=SAME)
def test_child_finds_what_popens_finds(loop, used_libuv, options):
    with inheritable(2):
        compare(loop, **options)
    assert used_libuv() in (None, "preexec_fn" not in options)


@linux
@root
@pytest.mark.parametrize(
    "options",
    [
        {"user": 12345},
        {"user": "nobody"},
        {"group": 12345},
        {"extra_groups": [12345, 4711]},
        {"extra_groups": []},
        {"user": 12345, "group": 54321, "extra_groups": [4711]},
    ],
    ids=repr,
)
def test_user_and_groups(loop, options):
    command = "grep", "-E", "^(Uid|Gid|Groups):", "/proc/self/status"
    stock = subprocess.run(command, stdout=PIPE, check=True, **options).stdout
    assert run(loop, output_of(*command, **options)) == (0, stock)
    if options.get("user") == 12345:
        assert b"Uid:\t12345\t12345\t12345\t12345\n" in stock


@linux
def test_ignored_signals_stay_ignored(loop, used_libuv):
    # As nohup needs it. libuv would reset them all.
    with disposition(signal.SIGHUP, signal.SIG_IGN), disposition(signal.SIGUSR1, signal.SIG_IGN):
        status, _ = compare(loop)
    mask = int(status["SigIgn"], 16)
    assert mask & 1 << signal.SIGHUP - 1
    assert mask & 1 << signal.SIGUSR1 - 1
    assert not mask & 1 << signal.SIGPIPE - 1
    assert used_libuv() in (None, True)


@linux
def test_handled_signals_are_reset(loop):
    with disposition(signal.SIGUSR1, lambda *args: None):
        status, _ = compare(loop)
    assert not int(status["SigCgt"], 16) & 1 << signal.SIGUSR1 - 1


@linux
def test_blocked_signals_stay_blocked(loop):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        status, _ = compare(loop)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    assert int(status["SigBlk"], 16) == 1 << signal.SIGUSR2 - 1


@linux
def test_inheritable_descriptors_are_closed(loop):
    with inheritable(3):
        before = set(open_fds())
        _, fds = compare(loop)
    assert fds == {0, 1, 2}
    assert len(before) > 3


@linux
def test_pass_fds(loop):
    with inheritable(2) as (passed, closed):
        _, fds = compare(loop, pass_fds=(passed,))
        # One that is not inheritable becomes so, in the child only.
        os.set_inheritable(passed, False)
        assert compare(loop, pass_fds=[passed, passed])[1] == fds
        assert not os.get_inheritable(passed)
    assert fds == {0, 1, 2, passed}


@linux
def test_pass_fds_wins_over_close_fds(loop):
    with inheritable(2) as (passed, _):
        with pytest.warns(RuntimeWarning, match="pass_fds overriding close_fds"):
            compare(loop, pass_fds=(passed,), close_fds=False)


def test_swapped_streams(loop_kind):
    """Standard output to 2 and standard error to 1 of this process: over each other."""
    script = """
    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "echo out; echo err >&2", stdin=2, stdout=2, stderr=1)
        await process.wait()
    run(main())
    """
    done = run_script(loop_kind, script)
    assert (done.stdout, done.stderr) == ("err\n", "out\n")


OPEN = """import os
def is_open(fd):
    try: return bool(os.fstat(fd))
    except OSError: return False
os.write(RESULT, str([fd for fd in range(3) if is_open(fd)]).encode())
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)], ids=repr)
def test_standard_streams_that_are_closed(loop_kind, closed, tmp_path):
    """Pipes then get their numbers: none may end up in the place of another."""
    script = f"""
    with open({str(tmp_path / "result")!r}, "wb", buffering=0) as result:
        for closed in {closed}:
            os.close(closed)
        async def main():
            process = await asyncio.create_subprocess_exec(
                "sh", "-c", "cat; echo err >&2", stdin=-1, stdout=-1, stderr=-1)
            result.write(repr(await process.communicate(b"hello")).encode())
            source = {OPEN!r}.replace("RESULT", str(result.fileno()))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-ISc", source, stdout=-1, pass_fds=[result.fileno()])
            result.write(repr((await process.communicate(), process.returncode)).encode())
        run(main())
    """
    run_script(loop_kind, script)
    is_open = [fd for fd in range(3) if fd == 1 or fd not in closed]
    expected = f"(b'hello', b'err\\n'){is_open}((b'', None), 0)"
    assert (tmp_path / "result").read_text() == expected


def test_inherited_descriptors_stay_non_blocking(loop):
    # libuv makes those of a child blocking: but the open file is ours as well.
    reading, writing = os.pipe()
    try:
        for fd in (reading, writing):
            os.set_blocking(fd, False)
        code, _ = run(loop, output_of("true", stdin=reading, stdout=writing, stderr=writing))
        assert code == 0
        assert not os.get_blocking(reading)
        assert not os.get_blocking(writing)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_standard_stream_that_is_not_inheritable(loop_kind, fd):
    script = f"""
    os.set_inheritable({fd}, False)
    async def main():
        source = {OPEN!r}.replace("RESULT", str(w))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-ISc", source, pass_fds=[w])
        await process.wait()
    r, w = os.pipe()
    run(main())
    print(os.read(r, 100), os.get_inheritable({fd}))
    """
    done = run_script(loop_kind, script)
    assert done.stdout == f"b'{[n for n in range(3) if n != fd]}' False\n"


# ------------------------------------------------------------ what is run


def make_program(path, text="#!/bin/sh\necho $0\n", mode=0o755):
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_program_is_looked_for_in_the_path_of_the_new_environment(loop, tmp_path, monkeypatch):
    make_program(tmp_path / "veloop-test-program")
    env = {"PATH": f"/nonexistent:{tmp_path}/none:{tmp_path}:/bin:/usr/bin"}
    assert run(loop, output_of("veloop-test-program", env=env))[0] == 0
    with pytest.raises(FileNotFoundError):
        run(loop, output_of("veloop-test-program"))
    monkeypatch.setenv("PATH", env["PATH"])
    assert run(loop, output_of("veloop-test-program"))[0] == 0


def test_relative_program(loop, tmp_path):
    make_program(tmp_path / "program")
    # As with Popen, it is relative to the child's folder.
    assert run(loop, output_of("./program", cwd=tmp_path)) == (0, b"./program\n")
    with pytest.raises(FileNotFoundError):
        run(loop, output_of("./program"))


def test_program_that_may_not_be_run_does_not_hide_another(loop, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    make_program(tmp_path / "a/program", mode=0o644)
    env = {"PATH": f"{tmp_path}/a:{tmp_path}/b"}
    with pytest.raises(PermissionError):
        run(loop, output_of("program", env=env))
    make_program(tmp_path / "b/program")
    assert run(loop, output_of("program", env=env))[0] == 0


def test_executable_is_run_under_another_name(loop):
    command = "another name", "-c", "echo $0"
    assert run(loop, output_of(*command, executable="/bin/sh")) == (0, b"another name\n")


def test_variable_set_by_putenv(loop):
    os.putenv("VELOOP_TEST_PUTENV", "yes")  # os.environ does not know
    try:
        assert run(loop, output_of("printenv", "VELOOP_TEST_PUTENV")) == (0, b"yes\n")
    finally:
        os.unsetenv("VELOOP_TEST_PUTENV")


def test_empty_environment(loop):
    assert run(loop, output_of("/usr/bin/env", env={})) == (0, b"")


# ------------------------------------------------------------ what cannot be run


def failure(function):
    with pytest.raises(Exception) as raised:
        function()
    exc = raised.value
    return type(exc), getattr(exc, "errno", None), getattr(exc, "filename", None), str(exc)


UNFIT = {
    "no such program": (("no-such-program",), {}),
    "no such file": (("/no/such/program",), {}),
    "no program at all": (("",), {}),
    "a folder": (("/tmp",), {}),
    "not executable": (("/etc/passwd",), {}),
    "below a file": (("/etc/passwd/x",), {}),
    "no such cwd": (("true",), {"cwd": "/no/such/folder"}),
    "cwd is a file": (("true",), {"cwd": "/etc/passwd"}),
    "neither": (("no-such-program",), {"cwd": "/no/such/folder"}),
    "no such executable": (("true",), {"executable": "/no/such/program"}),
    "too long": (("true", "x" * (1 << 22)), {}),
    "a name too long": (("/" + "x" * 5000,), {}),
    "empty path": (("true",), {"env": {"PATH": ""}}),
    "pass_fds closed": (("true",), {"pass_fds": (999,)}),
    "pass_fds negative": (("true",), {"pass_fds": (-1,)}),
    "stdin closed": (("true",), {"stdin": 999}),
    "stdin negative": (("true",), {"stdin": -77}),
    "process group": (("true",), {"process_group": 1}),
    "user": (("true",), {"user": "no such user"}),
    "group": (("true",), {"group": -77}),
    "pipesize": (("true",), {"pipesize": "big"}),
    "close_fds with a file that is none": (("true",), {"stdin": object()}),
}
if not PYPY:  # whose Popen cuts it to what fits
    UNFIT["umask"] = (("true",), {"umask": 1 << 40})


@pytest.mark.parametrize(("command", "options"), UNFIT.values(), ids=UNFIT)
@pytest.mark.stock_since("3.13", "Popen said less about what failed")
def test_failure_is_popens(loop, command, options):
    stock = failure(lambda: subprocess.Popen(command, **options))
    kind, number, filename, text = failure(
        lambda: run(loop, output_of(*command, **{"stdin": None, "stdout": None, **options}))
    )
    if PYPY and "cwd" in options:  # its Popen forgets which file it was
        assert (kind, number, filename) == (*stock[:2], options["cwd"])
        return
    assert (kind, number, filename) == stock[:3]
    if kind not in (OverflowError, ValueError):
        assert text == stock[3]


@pytest.mark.skipif(PYPY, reason="PyPy counts no references")
@pytest.mark.parametrize("options", [{}, {"cwd": "/no/such/folder"}], ids=["program", "cwd"])
def test_failure_leaves_nothing_to_the_collector(loop, options):
    async def attempt():
        try:
            await loop.subprocess_exec(asyncio.SubprocessProtocol, "/no/such/program", **options)
        except FileNotFoundError:
            return
        raise AssertionError

    async def main():
        await attempt()
        gc.collect()
        gc.disable()
        try:
            await attempt()
            return gc.collect()
        finally:
            gc.enable()

    assert run(loop, main()) == 0


def test_script_without_interpreter_is_no_program(loop, tmp_path):
    # execvp, which libuv uses, would have a shell run it.
    name = make_program(tmp_path / "program", "echo hello\n")
    with pytest.raises(OSError, match="Exec format error") as raised:
        run(loop, output_of(name))
    assert raised.value.filename == name


@pytest.mark.veloop_only("Popen fails too, but takes the child for running")
def test_failure_while_sigchld_is_ignored(loop, used_libuv):
    # Nobody can wait for the failed child then: libuv asserts that it can.
    with disposition(signal.SIGCHLD, signal.SIG_IGN), pytest.raises(FileNotFoundError):
        run(loop, output_of("no-such-program"))
    assert used_libuv() in (None, True)


def test_too_many_descriptors(loop):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    run(loop, output_of("true", stdin=PIPE, stdout=PIPE, stderr=PIPE))  # opens the loop's own
    free = max(open_fds()) + 1
    for room in range(12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + room, limits[1]))
        try:
            with contextlib.suppress(OSError):
                run(loop, output_of("true", stdin=PIPE, stdout=PIPE, stderr=PIPE))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    run(loop, output_of("true", stdin=PIPE, stdout=PIPE, stderr=PIPE))


# ------------------------------------------------------------ what must not happen in this process


def test_fork_hooks_do_not_run(loop_kind):
    script = """
    import asyncio, os
    os.register_at_fork(before=lambda: print("before"), after_in_parent=lambda: print("parent"),
                        after_in_child=lambda: print("child"))
    async def main():
        process = await asyncio.create_subprocess_exec("true")
        print(await process.wait())
    run(main())
    """
    assert run_script(loop_kind, script).stdout == "0\n"


@pytest.mark.parametrize("options", [{}, {"preexec_fn": ballast}], ids=["libuv", "popen"])
def test_audit_event(loop, options):
    seen = []
    here = threading.get_ident()

    def hook(event, args):
        if event == "subprocess.Popen" and threading.get_ident() == here:
            seen.append(args)

    sys.addaudithook(hook)
    code, _ = run(loop, output_of("true", "one", cwd="/", **options))
    assert code == 0
    assert seen == [("true", ["true", "one"], "/", None)]
    here = None


@pytest.mark.skipif(not hasattr(subprocess, "_USE_VFORK"), reason="only until Python 3.13")
def test_switch_against_vfork(loop, used_libuv, monkeypatch):
    """The subprocess module's documentation tells of it."""
    monkeypatch.setattr(subprocess, "_USE_VFORK", False)
    assert run(loop, output_of("echo", "hello")) == (0, b"hello\n")
    assert used_libuv() in (None, False)


def test_python_as_a_child_has_its_usual_signals(loop):
    source = "import signal; print(signal.getsignal(signal.SIGINT).__name__)"
    code, output = run(loop, output_of(*python(source)))
    assert (code, output) == (0, b"default_int_handler\n")
