"""Compares event loops: python benchmarks/run.py [--loops ...] [--rows ...]. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from bench import machine, native
from bench.loops import DEFAULT, LIBUV, LOOPS, REFERENCES, Column
from bench.plot import svg
from bench.report import digits, text
from bench.results import Results, as_json, from_json
from bench.row import Row, Settings
from bench.rows import BY_NAME, ROWS
from bench.sample import Failed, Sample, Unsupported

TOO_DISTURBED = 0.05  # share of lost time from which on a sample is taken again


def cores(words: str) -> machine.Cores:
    found = [int(core) for core in words.split(",")]
    if len(found) != 2 or not set(found) <= set(machine.available()):
        raise argparse.ArgumentTypeError(f"two of {machine.available()} are needed, not {words!r}")
    return machine.Cores(server=found[0], client=found[1])


def column(words: str) -> Column:
    try:
        return Column.parse(words)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"loops: {', '.join([*LOOPS, LIBUV])}; rows: {', '.join(BY_NAME)}",
    )
    parser.add_argument(
        "--loops",
        type=column,
        nargs="+",
        metavar="NAME[@PYTHON]",
        default=[Column.parse(name) for name in DEFAULT],
        help="default: all",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=BY_NAME,
        metavar="ROW",
        default=list(BY_NAME),
        help="default: all",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, help="measured time of a sample; default: the row's"
    )
    parser.add_argument(
        "--warmup", type=float, help="unmeasured time before it; default: the row's"
    )
    parser.add_argument("--connections", type=int, help="in place of the rows' own number")
    parser.add_argument("--retries", type=int, default=1, help="of a sample that was disturbed")
    parser.add_argument("--cores", type=cores, metavar="SERVER,CLIENT", help="default: chosen")
    parser.add_argument("--libuv", type=Path, metavar="FOLDER", help="default: vendor/libuv")
    parser.add_argument(
        "--minutes", type=float, default=14, help="no round is begun that would end after that"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw bars there, as SVG")
    parser.add_argument("--markdown", action="store_true", help="only a table for a README")
    parser.add_argument(
        "--from",
        dest="written",
        type=Path,
        metavar="FILE",
        help="measure nothing, report what --json wrote",
    )
    options = parser.parse_args()
    seconds = 1 if options.seconds is None else options.seconds
    if options.rounds < 1 or seconds <= 0 or (options.warmup or 0) < 0:
        parser.error("rounds and seconds have to be positive")
    return options


def present(columns: list[Column], libuv: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Which columns can be measured here, with their versions, and why the others cannot."""
    versions, absent = {}, {}
    for column in columns:
        if column.loop == LIBUV:
            try:
                native.libuv_echo(libuv)
                versions[column.label] = native.libuv_version(libuv)
            except native.Unavailable as error:
                absent[column.label] = str(error)
            continue
        words, found = column.probe()
        (versions if found else absent)[column.label] = words
    return versions, absent


def take(row: Row, column: Column, settings: Settings, retries: int) -> Sample:
    """One sample; a disturbed one is taken again, and the least disturbed one counts."""
    best = row.measure(row, column, settings)
    while best.disturbed > TOO_DISTURBED and retries > 0:
        retries -= 1
        again = row.measure(row, column, settings)
        best = min(best, again, key=lambda sample: sample.disturbed)
    return best


def measure_round(results: Results, settings: Settings, number: int, retries: int) -> None:
    for row in results.rows:
        if row.rounds is not None and number >= row.rounds:
            continue
        columns = [column for column in results.columns if row.applies_to(column)]
        # Every loop is first, last and in between equally often, and nobody always follows the
        # same neighbour: what one leaves behind (heat, caches) hits each in turn.
        shift = number % len(columns) if columns else 0
        order = columns[shift:] + columns[:shift]
        for column in order if number % 2 == 0 else reversed(order):
            place = f"round {number + 1} {row.name} {column.label}"
            key = row.name, column.label
            if reason := column.lacks(row.name):
                results.unsupported[key] = reason
            if key in results.failures or key in results.unsupported:
                continue
            try:
                sample = take(row, column, settings, retries)
            except Unsupported as error:
                results.unsupported[key] = str(error)
                print(f"{place}: has no such thing: {error}", file=sys.stderr, flush=True)
                continue
            except Failed as error:
                results.failures[key] = str(error)
                print(f"{place}: FAILED: {error}", file=sys.stderr, flush=True)
                continue
            results.samples.setdefault(key, {})[number] = sample
            print(f"{place}: {row.figure} {digits(sample.cost)}", file=sys.stderr, flush=True)


def measure(results: Results, settings: Settings, options: argparse.Namespace) -> None:
    begin = time.monotonic()
    longest = 0.0
    for number in range(options.rounds):
        spent = time.monotonic() - begin
        if number and spent + longest > options.minutes * 60:
            results.facts["taken"] += f", ended after {number}: {options.minutes:g} minutes are up"
            break
        measure_round(results, settings, number, options.retries)
        longest = max(longest, time.monotonic() - begin - spent)


def run(options: argparse.Namespace) -> Results:
    columns: list[Column] = list({column.label: column for column in options.loops}.values())
    if len(columns) != len(set(options.loops)):
        sys.exit("run.py: two interpreters of the same file name: give one of them a link")
    if not any(column.loop in REFERENCES for column in columns):
        columns.append(Column.parse("asyncio"))  # a figure without a reference means nothing
    client, warning = native.client()
    versions, absent = present(columns, options.libuv)
    pinning = options.cores or machine.choose()
    settings = Settings(
        cores=pinning,
        client=client,
        tls_client=native.tls_client(),
        libuv_echo=native.libuv_echo(options.libuv) if LIBUV in versions else None,
    )
    facts = machine.describe(pinning)
    facts["client"] = warning or "C, for TLS Python"
    facts["taken"] = f"{time.strftime('%Y-%m-%d')}, {options.rounds} rounds"
    results = Results(
        rows=[
            row.adjusted(options.seconds, options.warmup, options.connections)
            for row in ROWS
            if row.name in options.rows
        ],
        columns=[column for column in columns if column.label in versions],
        facts=facts,
        versions=versions,
        absent=absent,
    )
    with machine.pinned(pinning.client if pinning else None):
        measure(results, settings, options)
    return results


def main() -> int:
    options = parse()
    if options.written:
        results = from_json(json.loads(options.written.read_text()), BY_NAME)
    else:
        results = run(options)
    print(text(results, options.markdown))
    if options.json:
        options.json.write_text(json.dumps(as_json(results), indent=2) + "\n")
    if options.plot:
        options.plot.write_text(svg(results))
    return 1 if results.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
