"""Turns samples into tables and JSON. Every figure of a loop stands beside those of the others."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.loops import REFERENCES, Column
from bench.rows import Row
from bench.sample import Sample, median, ratio, spread

DISTURBED = 0.02  # share of lost time from which on a sample is mentioned

Rounds = dict[int, Sample]


@dataclass
class Results:
    rows: list[Row]
    columns: list[Column]
    connections: int | None
    facts: dict[str, str]  # about the machine and this run
    versions: dict[str, str]  # of the loops that are there
    absent: dict[str, str]  # and why the others are not
    samples: dict[tuple[str, str], Rounds] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)

    def rounds(self, row: Row, column: Column) -> Rounds:
        return self.samples.get((row.name, column.label), {})

    def ratio(self, row: Row, column: Column, reference: str) -> float | None:
        for other in self.columns:
            if other.loop == reference:
                return ratio(self.rounds(row, column), self.rounds(row, other))
        return None


def show(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def share(sample: Sample, of_user: bool) -> float | None:
    if sample.cpu_us is None or sample.user_share is None:
        return None
    return sample.cpu_us * (sample.user_share if of_user else 1 - sample.user_share)


def titles(row: Row) -> list[str]:
    latency = ["p50 us", "p99 us"] if row.latency else []
    ratios = [f"x {reference}" for reference in REFERENCES]
    return ["loop", f"{row.unit}/s", "CPU us", "+-", "user", "system", *ratios, "load", *latency]


def cells(results: Results, row: Row, column: Column) -> list[str]:
    samples = list(results.rounds(row, column).values())

    def middle(value: Callable[[Sample], float | None], form: str) -> str:
        return show(median([value(sample) for sample in samples]), form)

    line = [
        column.label,
        middle(lambda s: s.rate, ",.0f"),
        middle(lambda s: s.cpu_us, ".2f"),
        format(spread([s.cost_us for s in samples]), ".1%"),
        middle(lambda s: share(s, True), ".2f"),
        middle(lambda s: share(s, False), ".2f"),
        *(show(results.ratio(row, column, name), ".3f") for name in REFERENCES),
        middle(lambda s: s.busy, ".0%"),
    ]
    if row.latency:
        line += [middle(lambda s: s.p50_us, ".1f"), middle(lambda s: s.p99_us, ".1f")]
    return line


def table(lines: list[list[str]], markdown: bool) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def aligned(line: list[str]) -> list[str]:
        return [
            line[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
        ]

    if not markdown:
        return ["  ".join(aligned(line)).rstrip() for line in lines]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return ["| " + " | ".join(line) + " |" for line in (aligned(lines[0]), rule)] + [
        "| " + " | ".join(aligned(line)) + " |" for line in lines[1:]
    ]


def text(results: Results, markdown: bool) -> str:
    bullet, heading, gap = ("- ", "### ", [""]) if markdown else ("", "", [])
    out = [f"{bullet}{name}: {value}" for name, value in results.facts.items()]
    out += [f"{bullet}{label}: {words}" for label, words in results.versions.items()]
    out += [f"{bullet}{label}: absent ({words})" for label, words in results.absent.items()]
    for row in results.rows:
        connections = results.connections or row.connections
        out += ["", f"{heading}{row.name}: {row.title}, {connections} connections", *gap]
        measured = [column for column in results.columns if results.rounds(row, column)]
        if measured:
            lines = [titles(row), *(cells(results, row, column) for column in measured)]
            out += table(lines, markdown)
        for (name, label), reason in results.failures.items():
            if name == row.name:
                out += [*gap, f"{label}: FAILED: {reason}"]
    return "\n".join([*out, "", *notes(results)])


def notes(results: Results) -> list[str]:
    samples = [s for rounds in results.samples.values() for s in rounds.values()]
    lines = [
        "CPU us: CPU time of the server process per operation (user + system), median of the "
        "rounds; +-: half the distance of its extremes.",
        "x NAME: CPU per operation relative to that loop's in the same round, median; below 1 is "
        "cheaper. load: share of the time the server was running.",
    ]
    if any(sample.cpu_us is None for sample in samples):
        lines.append(
            "No CPU time on this platform without psutil: ratios are of time per operation."
        )
    lost = [sample.disturbed for sample in samples if sample.disturbed > DISTURBED]
    if lost:
        lines.append(
            f"The machine was not idle: in {len(lost)} of {len(samples)} samples the server or the "
            f"client waited for its core more than {DISTURBED:.0%} of the time (at worst "
            f"{max(lost):.0%}, median of these {statistics.median(lost):.0%})."
        )
    return lines


def as_json(results: Results) -> dict[str, Any]:
    rows = []
    for row in results.rows:
        columns = {}
        for column in results.columns:
            rounds = results.rounds(row, column)
            if not rounds:
                continue
            samples = list(rounds.values())
            columns[column.label] = {
                "rate": median([s.rate for s in samples]),
                "cpu_us": median([s.cpu_us for s in samples]),
                "user_us": median([share(s, True) for s in samples]),
                "system_us": median([share(s, False) for s in samples]),
                "spread": spread([s.cost_us for s in samples]),
                "ratio": {name: results.ratio(row, column, name) for name in REFERENCES},
                "samples": {n: dataclasses.asdict(sample) for n, sample in rounds.items()},
            }
        failures = {
            label: reason for (name, label), reason in results.failures.items() if name == row.name
        }
        rows.append(
            {
                "name": row.name,
                "title": row.title,
                "unit": row.unit,
                "size": row.size,
                "connections": results.connections or row.connections,
                "columns": columns,
                "failures": failures,
            }
        )
    return {
        "facts": results.facts,
        "versions": results.versions,
        "absent": results.absent,
        "rows": rows,
    }
