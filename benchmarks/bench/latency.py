"""How long a client waits that sends a message now and then."""

from __future__ import annotations

import socket
import time

from bench.load import server
from bench.loops import Column
from bench.row import Row, Settings
from bench.sample import Failed, Sample

EVERY = 0.001  # seconds from message to message


def latency_p99(row: Row, column: Column, settings: Settings) -> Sample:
    """The 99th percentile, in us, of the time from a message to the whole of its echo."""
    message = bytes(row.size)
    took = []
    with server(row, column, settings) as (_, _, port):
        with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = time.perf_counter() + row.warmup
            end = start + row.seconds
            due = time.perf_counter()
            while due < end:
                begin = time.perf_counter()
                try:
                    sock.sendall(message)
                    echo = sock.recv(row.size, socket.MSG_WAITALL)
                except OSError as error:
                    raise Failed(f"no echo: {error}") from None
                now = time.perf_counter()
                if echo != message:
                    raise Failed("the echo differs")
                if begin >= start:
                    took.append(now - begin)
                due = max(due + EVERY, now)
                time.sleep(due - now)
    took.sort()
    if not took:
        raise Failed("no message was answered in time")
    return Sample(
        operations=len(took), seconds=row.seconds, figure=took[len(took) * 99 // 100] * 1e6
    )
