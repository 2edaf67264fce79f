"""One measurement, and what is made of several."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


class Failed(Exception):
    """A measurement that gave no figure; the text says why."""


class Unsupported(Exception):
    """The loop says that it has no such thing (NotImplementedError): not a failure."""


@dataclass(frozen=True)
class Sample:
    operations: int
    seconds: float
    figure: float | None = None  # what is compared, where that is not CPU per operation
    cpu_ns: int | None = None  # of the measured process, all its threads
    user_share: float | None = None  # of cpu_ns
    disturbed: float = 0.0  # share of the time in which server or client had no core to run on
    p50_us: float | None = None
    p99_us: float | None = None

    @property
    def rate(self) -> float:
        return self.operations / self.seconds

    @property
    def cpu_us(self) -> float | None:
        """CPU per operation."""
        return None if self.cpu_ns is None else self.cpu_ns / self.operations / 1e3

    @property
    def cost(self) -> float:
        """What is compared: CPU per operation in us, time where the platform tells no CPU, or the
        row's own figure."""
        if self.figure is not None:
            return self.figure
        return self.seconds / self.operations * 1e6 if self.cpu_us is None else self.cpu_us

    @property
    def busy(self) -> float | None:
        return None if self.cpu_ns is None else self.cpu_ns / self.seconds / 1e9


def median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def spread(values: list[float]) -> float:
    """The +- of a figure: half the distance of the outermost values, in shares of the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values)


def ratio(rounds: dict[int, Sample], reference: dict[int, Sample]) -> float | None:
    """The median of the ratios within each round. Both sides of one were measured within seconds of
    each other, so what changes slowly on a machine (clock speed, neighbours) cancels out."""
    common = rounds.keys() & reference.keys()
    return median([rounds[n].cost / reference[n].cost for n in common])
