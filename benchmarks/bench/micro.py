"""Rows without a client: a process that does a number of operations and tells what they took."""

from __future__ import annotations

import json
import subprocess

from bench.loops import HERE, Column
from bench.machine import pinned
from bench.row import Row, Settings
from bench.sample import Failed, Sample, Unsupported

GRACE = 30  # seconds that a process may need beyond what it was asked for


def micro(row: Row, column: Column, settings: Settings) -> Sample:
    """A fresh process per sample, alone on the server's core."""
    command = [column.python, str(HERE / "micro.py"), column.loop, row.kind]
    command += ["--seconds", str(row.seconds), "--warmup", str(row.warmup)]
    with pinned(settings.cores.server if settings.cores else None):
        try:
            done = subprocess.run(
                command,
                env=column.environment(),
                capture_output=True,
                text=True,
                timeout=row.warmup + row.seconds + GRACE,
            )
        except subprocess.TimeoutExpired:
            raise Failed("the process did not end") from None
    if done.returncode != 0:
        raise Failed((done.stderr.strip().splitlines() or ["the process failed"])[-1])
    result = json.loads(done.stdout)
    if "unsupported" in result:
        raise Unsupported(result["unsupported"])
    if done.stderr.strip():  # an exception that the loop only reported
        raise Failed(done.stderr.strip().splitlines()[-1])
    return Sample(**result)
