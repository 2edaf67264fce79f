"""Rows with a server process and the client in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from bench.loops import HERE, LIBUV, Column
from bench.machine import pinned
from bench.row import Row, Settings
from bench.sample import Failed, Sample, Unsupported

GRACE = 20  # seconds that a process may need beyond what it was asked for


def tail(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return f"the server said: {lines[-1]}" if lines else "the server said nothing"


@contextmanager
def server(row: Row, column: Column, settings: Settings) -> Iterator[tuple[int, str, str]]:
    """A fresh server process, as (pid, "port" or "path", its value).

    Fresh, so that no sample inherits what another one left behind.
    """
    lifetime = str(int(row.warmup + row.seconds) + 2 * GRACE)
    if column.loop == LIBUV:
        command, environment = [str(settings.libuv_echo), lifetime], dict(os.environ)
    else:
        command = [column.python, str(HERE / "servers.py"), column.loop, row.kind]
        command += ["--lifetime", lifetime]
        environment = column.environment()
    core = settings.cores.server if settings.cores else None
    # What the server says goes to a file: nobody reads a pipe while it is measured.
    with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryDirectory() as folder:
        environment["TMPDIR"] = (
            folder  # for a Unix socket: a server that is killed leaves it behind
        )
        with pinned(core):
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert process.stdout is not None
        try:
            word, _, value = process.stdout.readline().strip().partition(" ")
            if word == "unsupported":
                raise Unsupported(value)
            if word not in ("port", "path"):
                process.kill()
                process.wait()
                raise Failed("the server did not start")
            yield process.pid, word, value
            if process.poll() is not None:
                raise Failed(f"the server ended ({process.returncode})")
        except Failed as error:
            raise Failed(f"{error}; {tail(log)}") from None
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def load(row: Row, column: Column, settings: Settings) -> Sample:
    with server(row, column, settings) as (pid, word, value):
        arguments = {
            "--mode": row.mode,
            f"--{word}": value,
            "--pid": pid,
            "--size": row.size,
            "--connections": row.connections,
            "--warmup": row.warmup,
            "--seconds": row.seconds,
        }
        client = settings.tls_client if row.tls else settings.client
        command = [*client, *(str(word) for pair in arguments.items() for word in pair)]
        with pinned(settings.cores.client if settings.cores else None):
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=row.warmup + row.seconds + GRACE,
                )
            except subprocess.TimeoutExpired:
                raise Failed("the client did not end") from None
        if done.returncode != 0:
            raise Failed((done.stderr.strip().splitlines() or ["the client failed"])[-1])
        return sample(json.loads(done.stdout))


def sample(result: dict[str, float]) -> Sample:
    if result["errors"]:
        raise Failed(f"{result['errors']} connections broke or got a wrong echo")
    if result["stuck"]:
        raise Failed(f"{result['stuck']} connections never got the whole of their last echo")
    ticks = result.get("user_ticks", 0) + result.get("system_ticks", 0)
    waited = max(result.get("waited_ns", 0), result.get("client_waited_ns", 0))
    return Sample(
        operations=int(result["messages"]),
        seconds=result["seconds"],
        cpu_ns=int(result["cpu_ns"]) if "cpu_ns" in result else None,
        # The kernel samples user against system by ticks but adds up the total exactly: so the
        # ticks only divide the total.
        user_share=result["user_ticks"] / ticks if ticks else None,
        disturbed=waited / result["seconds"] / 1e9,
        p50_us=result.get("p50_us"),
        p99_us=result.get("p99_us"),
    )
