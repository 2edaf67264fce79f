"""Shows that regression tests can fail: breaks the code that they guard, and looks.

    python tests/guards/run.py [--number N]

guards.toml lists the bugs of other event loops that veloop must not have: the tests that hold them
off, and for each a change that brings the bug back. For every entry the tests run on a copy of
this folder, first as it is, where they must pass, then with the change, where at least
one must fail. The exit status tells. Needs what a build of veloop needs.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
IGNORED = shutil.ignore_patterns(".git", "__pycache__", "*.so", "*.egg-info", ".*_cache", "venv*")


def build(tree):
    """Compile the extension of this tree into it."""
    site = tree.parent / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade"]
    run([*install, "--target", str(site), str(tree)], tree, check=True)
    [extension] = site.glob("veloop/_uv/_cffi.*[od]")  # .so, .pyd
    shutil.copy(extension, tree / "pkg/veloop/_uv")


def run(command, tree, check=False):
    env = {**os.environ, "PYTHONPATH": str(tree / "pkg"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=env, check=check, text=True, capture_output=not check, timeout=600
    )


def tests_pass(tree, tests):
    """(did they pass, the last lines)"""
    result = run([sys.executable, "-m", "pytest", "-q", "-x", "--timeout=20", *tests], tree)
    if result.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {tests}:\n{result.stdout}{result.stderr}")
    return result.returncode == 0, result.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, help="only the entries with this number")
    options = parser.parse_args()
    guards = tomllib.loads(Path(__file__).with_name("guards.toml").read_text("utf-8"))["guard"]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "veloop")
        shutil.copytree(ROOT, tree, ignore=IGNORED)
        build(tree)
        for guard in guards:
            if options.number in (None, guard["number"]):
                wrong += not examine(tree, guard)
    print(f"{wrong} guards do not guard" if wrong else "every guard guards")
    return 1 if wrong else 0


def examine(tree, guard):
    path = tree / guard["file"]
    original = path.read_text("utf-8")
    if original.count(guard["replace"]) != 1:
        print(f"{guard['number']:3} STALE   {guard['file']} has not just one {guard['replace']!r}")
        return False
    passed, output = tests_pass(tree, guard["tests"])
    if not passed:
        print(f"{guard['number']:3} BROKEN  {guard['behaviour']}\n{output}")
        return False
    path.write_text(original.replace(guard["replace"], guard["with"]), "utf-8")
    try:
        if path.suffix in (".c", ".h"):
            build(tree)
        passed, _ = tests_pass(tree, guard["tests"])
    finally:
        path.write_text(original, "utf-8")
        if path.suffix in (".c", ".h"):
            build(tree)
    verdict = "BLIND " if passed else "guards"
    print(f"{guard['number']:3} {verdict}  {guard['behaviour']}", flush=True)
    return not passed


if __name__ == "__main__":
    sys.exit(main())
