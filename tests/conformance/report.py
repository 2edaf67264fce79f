"""What run.py prints and writes: a table per interpreter, what is wrong, a summary, JSON."""

from collections import defaultdict
from dataclasses import asdict

from harness import FAILED, NO_LOOP, STALE
from table import NOT_APPLICABLE, NOT_YET

VERDICTS = "passed", "failed", STALE, NOT_YET, NOT_APPLICABLE, NO_LOOP, "skipped"
SCORED = "passed", "failed", STALE, NOT_YET  # the applicable tests
SUMS = "loops", "stock", "secs"


def count(results):
    """Return the row of the table for some results."""
    row = dict.fromkeys(VERDICTS + SUMS, 0)
    for result in results:
        row["failed" if result.status in FAILED else result.status] += 1
        for key in SUMS:
            row[key] += getattr(result, key)
    row["secs"] = round(row["secs"], 1)
    return row


def score(row):
    """Return 'passed / applicable'."""
    return f"{row['passed']} / {sum(row[verdict] for verdict in SCORED)}"


def cells(row, keys):
    """Return the numbers of a row, right-aligned; no zeros, the eye should find the others."""
    return "".join(f"{row[key] or '-':>9}" for key in keys)


def table(outcome):
    """Yield the lines of an interpreter's table: one per file, the total, how it went."""
    by_file = defaultdict(list)
    for result in outcome.results.values():
        by_file[result.file].append(result)
    rows = {file: count(by_file[file]) for file in sorted(outcome.files)}
    rows["TOTAL"] = count(outcome.results.values())
    yield f"\n{outcome.interpreter}"
    yield f"{'file':26}" + "".join(f"{key:>9}" for key in VERDICTS + SUMS)
    for file, row in rows.items():
        yield f"{file:26}{cells(row, VERDICTS + SUMS)}"
    yield (
        f"{score(rows['TOTAL'])} applicable tests passed, {len(outcome.flaky)} of them flaky; "
        f"{outcome.loops} loops of {outcome.interpreter.package} made; {outcome.secs:.0f} s"
    )


def problems(outcome):
    """Yield a line for everything that makes a run a failure."""
    for result in outcome.unexpected:
        if result.status == STALE:
            entry = outcome.table.find(result.id, NOT_YET)
            yield f"STALE    {result.id}: passes; take it out of not_yet.toml ({entry.pattern})"
        else:
            yield f"{result.status.upper():8} {result.id}: {result.error}"
    for file in outcome.loopless:
        yield f"NO LOOP  {file}: no test made a loop of {outcome.interpreter.package}"
    for entry in outcome.matched[1]:
        if entry.bounded:
            yield f"DEAD     {entry.pattern}: its bounds hold here, but there is no such test"


def dead(outcomes):
    """Yield a line for every entry without bounds that matches on none of the interpreters."""
    alive = {entry for outcome in outcomes for entry in outcome.matched[0]}
    idle = {entry: None for outcome in outcomes for entry in outcome.matched[1]}
    for entry in idle:
        if entry not in alive and not entry.bounded:
            yield f"DEAD     {entry.pattern}: no such test on any of these interpreters"


def flaky(outcome):
    """Yield a line for every test that passed at the second attempt only."""
    for name, error in sorted(outcome.flaky.items()):
        yield f"FLAKY    {name}: {error}"


def failures(outcome):
    """Yield the failures as entries to paste into not_yet.toml, one for each class."""
    by_class = defaultdict(list)
    for result in outcome.unexpected:
        if result.status in FAILED:
            where, _, test = result.id.rpartition(".")
            by_class[where].append((test, result.error))
    for where, tests in by_class.items():
        yield f'\n[[entry]]\nissue = ""\nreason = ""\nin = "{where}"\ntests = ['
        for test, error in tests:
            yield f'    "{test}",  # {error[:100]}'
        yield "]"


def summary(outcomes):
    """Yield a line per interpreter."""
    keys = VERDICTS[1:]
    yield f"\n{'':36}{'passed / applicable':>20}" + "".join(f"{key:>9}" for key in keys)
    for outcome in outcomes:
        row = count(outcome.results.values())
        yield f"{outcome.interpreter!s:36}{score(row):>20}{cells(row, keys)}"


def as_json(outcome):
    """Return what --out writes about one interpreter; compare.py reads it."""
    interpreter = outcome.interpreter
    return {
        "title": str(interpreter),
        "python": f"{interpreter.implementation} {interpreter.version_text}",
        "total": count(outcome.results.values()),
        "wall_secs": round(outcome.secs, 1),
        "flaky": outcome.flaky,
        "results": {name: asdict(result) for name, result in sorted(outcome.results.items())},
    }
