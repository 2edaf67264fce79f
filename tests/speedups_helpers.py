"""The accelerator and the Python code that it stands for, to be tested as one another."""

import os
import socket
import subprocess
import sys
from collections import deque

import pytest

import veloop
from veloop import _accelerate, streams
from veloop.loop import core, datagram, timers
from veloop.loop.handles import Handle, TimerHandle
from veloop.loop.stream import StreamTransport

accelerated_only = pytest.mark.skipif(
    not veloop.accelerated, reason="the accelerator was not built or is switched off"
)

CLASSES = {
    "Core": core.Core,
    "Handle": Handle,
    "TimerHandle": TimerHandle,
    "StreamTransport": StreamTransport,
    "UdpTransport": datagram.UdpTransport,
    "StreamReader": streams.StreamReader,
    "StreamReaderProtocol": streams.StreamReaderProtocol,
}


def use(variant, monkeypatch):
    """Have loops made from now on be of the variant, until the end of the test."""
    if variant in ("python", "python methods"):
        for name, original in _accelerate.originals.items():
            cls, _, method = name.partition(".")
            monkeypatch.setattr(CLASSES[cls], method, original)
    if variant in ("python", "python containers"):
        monkeypatch.setattr(core, "Queue", deque)
        monkeypatch.setattr(core, "Timers", timers.Timers)


def resident():
    """Bytes of memory that the process holds; Linux only."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pair():
    """A connected pair of sockets that do not block."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return ends


def python(code, **environment):
    """Runs code in a process of its own. -> the words that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
