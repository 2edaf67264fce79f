#!/usr/bin/env python3
"""Run CPython's own asyncio tests, as installed with an interpreter, on an event loop.

Exit status: 0 where everything is as the table says, 1 where something is not, 2 where a run could
not be made.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import report
from harness import Interpreter, Options, Run


def parse_arguments(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add(
        "--python",
        action="append",
        metavar="PY",
        help="interpreter to run (repeatable); default: this one",
    )
    add(
        "--loop",
        default="veloop:new_event_loop",
        metavar="MODULE:FACTORY",
        help="the loop to put in; default: %(default)s",
    )
    add(
        "--modules",
        default="",
        metavar="PACKAGE",
        help="also put this package's locks, queues, tasks ... in place of asyncio's",
    )
    add("--only", nargs="+", metavar="FILE", default=(), help="just these (test_events ...)")
    add(
        "--jobs",
        type=int,
        default=Options.jobs,
        help="children to run at a time; most tests sleep; default: %(default)s",
    )
    add(
        "--timeout",
        type=float,
        default=Options.timeout,
        help="seconds per test; default: %(default)s",
    )
    add(
        "--budget",
        type=float,
        default=Options.budget,
        help="seconds per interpreter; default: %(default)s",
    )
    add(
        "--no-retry",
        dest="retry",
        action="store_false",
        help="do not run failed tests a second time",
    )
    add(
        "--strict",
        action="store_true",
        help="complain about entries of the table that match on none of the interpreters",
    )
    add("--failures", action="store_true", help="print the failures as entries for not_yet.toml")
    add("--logs", type=Path, metavar="FOLDER", help="keep the output of the tests")
    add("--out", type=Path, metavar="JSON", help="write the results, for compare.py")
    return parser.parse_args(argv)


def run_one(python, args):
    """Run on one interpreter.  -> Outcome"""
    interpreter = Interpreter.probe(os.path.abspath(shutil.which(python) or python), args.loop)
    if not interpreter.files:
        raise RuntimeError(
            "has no test.test_asyncio (a package of its own on some systems, such "
            "as libpython3-testsuite)"
        )
    if unknown := set(args.only) - set(interpreter.files):
        raise RuntimeError(f"has no {' '.join(sorted(unknown))}")
    logs = args.logs and args.logs / f"{interpreter.implementation}-{interpreter.version_text}"
    if logs:
        logs.mkdir(parents=True, exist_ok=True)
    options = Options(
        args.loop, args.modules, args.timeout, args.budget, args.jobs, args.retry, logs
    )
    run = Run(interpreter, options, args.only)
    if not run.outcome.files:
        raise RuntimeError("nothing to run: the table leaves out all these files")
    return run.run()


def show(lines):
    """Print the lines.  -> how many"""
    number = 0
    for line in lines:
        print(line, flush=True)
        number += 1
    return number


def main():
    """Run, print, and return the exit status."""
    args = parse_arguments()
    outcomes, bad = [], 0
    for python in args.python or [sys.executable]:
        try:
            outcome = run_one(python, args)
        except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as exc:
            print(f"{python}: {exc}", file=sys.stderr)
            return 2
        outcomes.append(outcome)
        show(report.table(outcome))
        bad += show(report.problems(outcome))
        show(report.flaky(outcome))
        if args.failures:
            show(report.failures(outcome))
    if args.strict:
        bad += show(report.dead(outcomes))
    if len(outcomes) > 1:
        show(report.summary(outcomes))
    if args.out:
        args.out.write_text(json.dumps([report.as_json(o) for o in outcomes], indent=1))
    print(f"\n{bad} problems" if bad else "\nall as expected")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
