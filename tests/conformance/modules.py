"""Puts a package's modules (locks, queues, tasks, ...) in place of asyncio's own, name by name.

Runs in the child process, before the test file is loaded. What the package's module has in
__all__ replaces the object of that name in asyncio's module and in asyncio itself; everything
else there, private names above all, stays.
"""

import asyncio
import importlib
import sys

AREAS = """
    exceptions events futures graph tasks locks queues timeouts taskgroups threads
    streams subprocess runners
""".split()


def install(package):
    """Replace asyncio's names by the package's, and begin to count what runs of it."""
    for area in AREAS:
        ours = importlib.import_module(f"{package}.{area}")
        try:
            theirs = importlib.import_module(f"asyncio.{area}")
        except ModuleNotFoundError:
            continue  # graph came with 3.14
        for name in ours.__all__:
            for place in theirs, asyncio:
                if hasattr(place, name):
                    setattr(place, name, getattr(ours, name))
    # A Runner makes its loops where the tests look for theirs, which inject.py has seen to.
    importlib.import_module(f"{package}.events").new_default_loop = asyncio.new_event_loop
    return Ran(importlib.import_module(package).__path__[0])


class Ran:
    """Has code below a folder run since restart()?  None where this Python cannot tell."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = None
        self.monitoring = getattr(sys, "monitoring", None)  # since Python 3.12
        if self.monitoring:
            tool = self.monitoring.PROFILER_ID
            self.monitoring.use_tool_id(tool, "conformance")
            event = self.monitoring.events.PY_START
            self.monitoring.register_callback(tool, event, self.started)
            self.monitoring.set_events(tool, event)

    def started(self, code, offset):
        if code.co_filename.startswith(self.folder) and "/loop/" not in code.co_filename:
            self.seen = True
        return self.monitoring.DISABLE  # once is enough, until restart()

    def restart(self):
        if self.monitoring:
            self.seen = False
            self.monitoring.restart_events()
