"""What the tests of `python -m veloop` share: running a program with it, and as python does."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from children import script_env
from helpers import PATIENCE

VELOOP = ("-m", "veloop")

PRINT_ARGV = "import sys; print(sys.argv, __name__, sys.path[0])"


def write(path, source):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), "utf-8")


def python(*args, env=None, stdin=""):
    """Run the interpreter in the working directory; CompletedProcess with text output."""
    return subprocess.run(
        [sys.executable, *args],
        env=script_env("veloop", **(env or {})),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def veloop(*args, **kwargs):
    return python(*VELOOP, *args, **kwargs)


def check_same(*program, options=(), env=None, stdin="", clean=lambda text: text):
    """Run a program under both; the outcome, which must be the same."""
    plain = python(*options, *program, env=env, stdin=stdin)
    ours = python(*options, *VELOOP, *program, env=env, stdin=stdin)
    assert clean(ours.stdout) == clean(plain.stdout)
    assert clean(without_addresses(ours.stderr)) == clean(without_addresses(plain.stderr))
    assert ours.returncode == plain.returncode
    return ours


def without_addresses(text):
    return re.sub(r"\bat 0x[0-9a-fA-F]+", "at 0x...", text)


def without_carets(text):
    return re.sub(r"(?m)^ *[~^]+\n", "", text)


def without_loop_frames(text):
    """A traceback without what is in asyncio's and in veloop's files."""
    pattern = r'  File "[^"]*[/\\](asyncio|veloop)[/\\][^\n]*\n(    [^\n]*\n)*'
    return re.sub(pattern, "", text)
