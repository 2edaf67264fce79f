"""What an idle connection costs a server, in memory that the process has (the kernel's is not in
it)."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from bench.load import server
from bench.loops import Column
from bench.row import Row, Settings
from bench.sample import Failed, Sample, Unsupported

SPARE = 200  # descriptors that a process needs besides those of the connections
BEFORE = 50  # connections that are there before the first look: what the first ones cost stays out


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def raise_limit(wanted: int) -> None:
    """Lets this process, and the server that it starts, have so many descriptors."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Unsupported(f"{wanted} descriptors are needed, the limit is {hard}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connection_memory(row: Row, column: Column, settings: Settings) -> Sample:
    """KiB per connection that has had one echo."""
    if sys.platform != "linux":
        raise Unsupported("needs /proc")
    raise_limit(row.connections + SPARE)
    message = bytes(row.size)
    with ExitStack() as stack, server(row, column, settings) as (pid, _, port):

        def connect() -> None:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", int(port)), 10))
            sock.sendall(message)
            if sock.recv(row.size, socket.MSG_WAITALL) != message:
                raise Failed("the echo differs")

        try:
            for _ in range(BEFORE):
                connect()
            before, begin = resident(pid), time.perf_counter()
            for _ in range(row.connections):
                connect()
        except OSError as error:
            raise Failed(f"no echo: {error}") from None
        seconds = time.perf_counter() - begin
        grown = resident(pid) - before
    return Sample(
        operations=row.connections, seconds=seconds, figure=grown / row.connections / 1024
    )
