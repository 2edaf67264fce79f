"""Turns samples into tables. Every figure of a loop stands beside those of the others."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable

from bench.loops import LIBUV, REFERENCES, Column
from bench.results import Results, share
from bench.row import Row
from bench.sample import Sample, median, spread

DISTURBED = 0.02  # share of lost time from which on a sample is mentioned
SUBJECT, RIVAL = "veloop", "uvloop"  # whose targets these are, and what they are relative to


def digits(value: float) -> str:
    """Three digits or more, whatever the size: operations take from 50 ns to a second."""
    size = abs(value)
    return format(value, ".3f" if size < 1 else ".2f" if size < 100 else ",.0f")


def show(value: float | None, form: str | Callable[[float], str]) -> str:
    if value is None:
        return "-"
    return format(value, form) if isinstance(form, str) else form(value)


def titles(row: Row) -> list[str]:
    ratios = [f"x {reference}" for reference in REFERENCES]
    if row.figure != "CPU us":
        return ["loop", row.figure, "+-", *ratios]
    return ["loop", f"{row.unit}/s", row.figure, "+-", "user", "system", *ratios, "load"]


def cells(results: Results, row: Row, column: Column) -> list[str]:
    samples = list(results.rounds(row, column).values())

    def middle(value: Callable[[Sample], float | None], form: str | Callable[[float], str]) -> str:
        return show(median([value(sample) for sample in samples]), form)

    figure = [middle(lambda s: s.cost, digits), format(spread([s.cost for s in samples]), ".1%")]
    ratios = [show(results.ratio(row, column, name), ".3f") for name in REFERENCES]
    if row.figure != "CPU us":
        return [column.label, *figure, *ratios]
    return [
        column.label,
        middle(lambda s: s.rate, ",.0f"),
        *figure,
        middle(lambda s: share(s, True), digits),
        middle(lambda s: share(s, False), digits),
        *ratios,
        middle(lambda s: s.busy, ".0%"),
    ]


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


def verdict(found: float | None, target: float | None) -> str:
    if found is None or target is None:
        return ""
    return "met" if found <= target else "missed"


def verdicts(results: Results, row: Row) -> list[str]:
    """What became of each target of the row that this run can judge."""
    out = []
    for target, reference in ((row.target, RIVAL), (row.floor_target, LIBUV)):
        for column in results.columns:
            found = results.ratio(row, column, reference)
            if column.loop == SUBJECT and (word := verdict(found, target)):
                out.append(
                    f"target {word}: {column.label} {found:.3f} x {reference}, at most {target:.2f}"
                )
    return out


def details(results: Results) -> list[str]:
    """A table per row of the benchmark."""
    out = []
    for row in results.rows:
        load = f", {row.connections:,} connections" if row.connections else ""
        out += ["", f"{row.name}: {row.title}{load}"]
        measured = [column for column in results.columns if results.rounds(row, column)]
        if measured:
            lines = [titles(row), *(cells(results, row, column) for column in measured)]
            out += table(lines, markdown=False)
        out += verdicts(results, row)
        for what, reasons in (
            ("no such thing", results.unsupported),
            ("FAILED", results.failures),
        ):
            for (name, label), reason in reasons.items():
                if name == row.name:
                    out.append(f"{label}: {what}: {reason}")
    return out


def summary(results: Results, markdown: bool) -> list[str]:
    """One line per row: every column's figure, and where the subject stands."""
    subject = next((column for column in results.columns if column.loop == SUBJECT), None)
    heads = [column.label for column in results.columns]
    ratios = [f"{SUBJECT} x {reference}" for reference in REFERENCES]
    lines = [["row", "unit", *heads, *ratios, "target", ""]]
    counts: Counter[str] = Counter()
    for row in results.rows:
        line = [row.title if markdown else row.name, f"{row.figure}/{row.unit}"]
        for column in results.columns:
            key = row.name, column.label
            samples = results.rounds(row, column).values()
            if samples:
                line.append(show(median([s.cost for s in samples]), digits))
            elif key in results.failures:
                line.append("FAILED")
            else:
                line.append("none" if key in results.unsupported else "-")
        found = {
            reference: results.ratio(row, subject, reference) if subject else None
            for reference in REFERENCES
        }
        word = verdict(found[RIVAL], row.target)
        counts[word] += 1
        line += [show(found[reference], ".2f") for reference in REFERENCES]
        lines.append([*line, show(row.target, ".2f"), word])
    out = table(lines, markdown)
    if subject:
        judged = f"{counts['met']} targets met, {counts['missed']} missed"
        out += ["", f"{judged}, {counts['']} rows without a verdict."]
    return out


def text(results: Results, markdown: bool) -> str:
    """The report: for a README the facts and the summary, else also a table per row."""
    bullet = "- " if markdown else ""
    out = [f"{bullet}{name}: {value}" for name, value in results.facts.items()]
    out += [f"{bullet}{label}: {words}" for label, words in results.versions.items()]
    out += [f"{bullet}{label}: absent ({words})" for label, words in results.absent.items()]
    if not markdown:
        out += details(results)
    return "\n".join([*out, "", *summary(results, markdown), "", *notes(results)])


def notes(results: Results) -> list[str]:
    samples = [s for rounds in results.samples.values() for s in rounds.values()]
    lines = [
        "CPU us: CPU time of the measured process per operation (user + system), median of the "
        "rounds; +-: half the distance of its extremes.",
        "x NAME: figure relative to that loop's in the same round, median; below 1 is "
        "cheaper. load: share of the time the process was running.",
        f"target: {SUBJECT}'s figure relative to {RIVAL}'s is to be at most that.",
    ]
    if any(sample.cpu_us is None and sample.figure is None for sample in samples):
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
