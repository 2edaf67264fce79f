#!/usr/bin/env python3
"""List what passes in the first of two results and not in the second (run.py --out).

Results are compared per Python version, as the tests differ between patch releases.
"""

import json
import sys
from pathlib import Path


def load(path):
    """Return the runs of a file by Python version."""
    return {run["python"]: run for run in json.loads(Path(path).read_text())}


def compare(a, b):
    """Print what a has and b has not.  -> how much"""
    passed_a, passed_b = (
        {name for name, result in run["results"].items() if result["status"] == "passed"}
        for run in (a, b)
    )
    for name in sorted(passed_a - passed_b):
        other = b["results"].get(name, {"status": "absent", "error": ""})
        print(f"{name}\n    {other['status']}: {other['error']}")
    print(
        f"A: {a['title']}\nB: {b['title']}\n{len(passed_a - passed_b)} pass in A and not in B; "
        f"{len(passed_b - passed_a)} pass in B and not in A\n"
    )
    return len(passed_a - passed_b)


def main():
    """Compare the two files that the command line names."""
    if len(sys.argv) != 3:
        sys.exit("usage: compare.py A.json B.json")
    a, b = map(load, sys.argv[1:])
    common = sorted(a.keys() & b.keys())
    if not common:
        sys.exit(f"no common Python: {', '.join(a)} against {', '.join(b)}")
    lost = [compare(a[python], b[python]) for python in common]
    return 1 if any(lost) else 0


if __name__ == "__main__":
    sys.exit(main())
