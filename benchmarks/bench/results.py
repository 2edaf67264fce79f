"""All samples of a run, and their way into a JSON file and back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bench.loops import REFERENCES, Column
from bench.row import Row
from bench.sample import Sample, median, ratio, spread

Rounds = dict[int, Sample]
Key = tuple[str, str]  # the name of a row, the label of a column


@dataclass
class Results:
    rows: list[Row]
    columns: list[Column]
    facts: dict[str, str]  # about the machine and this run
    versions: dict[str, str]  # of the loops that are there
    absent: dict[str, str]  # and why the others are not
    samples: dict[Key, Rounds] = field(default_factory=dict)
    unsupported: dict[Key, str] = field(default_factory=dict)
    failures: dict[Key, str] = field(default_factory=dict)

    def rounds(self, row: Row, column: Column) -> Rounds:
        return self.samples.get((row.name, column.label), {})

    def ratio(self, row: Row, column: Column, reference: str) -> float | None:
        for other in self.columns:
            if other.loop == reference:
                return ratio(self.rounds(row, column), self.rounds(row, other))
        return None


def share(sample: Sample, of_user: bool) -> float | None:
    if sample.cpu_us is None or sample.user_share is None:
        return None
    return sample.cpu_us * (sample.user_share if of_user else 1 - sample.user_share)


def column_figures(results: Results, row: Row, column: Column) -> dict[str, Any]:
    rounds = results.rounds(row, column)
    samples = list(rounds.values())
    return {
        "figure": median([s.cost for s in samples]),
        "rate": median([s.rate for s in samples]),
        "cpu_us": median([s.cpu_us for s in samples]),
        "user_us": median([share(s, True) for s in samples]),
        "system_us": median([share(s, False) for s in samples]),
        "spread": spread([s.cost for s in samples]),
        "ratio": {name: results.ratio(row, column, name) for name in REFERENCES},
        "samples": {n: dataclasses.asdict(sample) for n, sample in rounds.items()},
    }


def as_json(results: Results) -> dict[str, Any]:
    def of_row(row: Row, reasons: dict[Key, str]) -> dict[str, str]:
        return {label: reason for (name, label), reason in reasons.items() if name == row.name}

    rows = [
        {
            "name": row.name,
            "title": row.title,
            "unit": row.unit,
            "figure": row.figure,
            "target": row.target,
            "floor_target": row.floor_target,
            "size": row.size,
            "connections": row.connections,
            "columns": {
                column.label: column_figures(results, row, column)
                for column in results.columns
                if results.rounds(row, column)
            },
            "unsupported": of_row(row, results.unsupported),
            "failures": of_row(row, results.failures),
        }
        for row in results.rows
    ]
    return {
        "facts": results.facts,
        "versions": results.versions,
        "absent": results.absent,
        "rows": rows,
    }


def from_json(written: dict[str, Any], known: dict[str, Row]) -> Results:
    """What as_json() wrote, to report on again; a row that is no longer known is left out."""
    results = Results(
        rows=[],
        columns=[
            Column(label, label.partition("@")[0], label.partition("@")[2])
            for label in written["versions"]
        ],
        facts=written["facts"],
        versions=written["versions"],
        absent=written["absent"],
    )
    for row in written["rows"]:
        name = row["name"]
        if name not in known:
            continue
        results.rows.append(dataclasses.replace(known[name], connections=row["connections"]))
        for label, figures in row["columns"].items():
            results.samples[name, label] = {
                int(n): Sample(**sample) for n, sample in figures["samples"].items()
            }
        for label, reason in row["unsupported"].items():
            results.unsupported[name, label] = reason
        for label, reason in row["failures"].items():
            results.failures[name, label] = reason
    return results
