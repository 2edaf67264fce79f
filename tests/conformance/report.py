"""What run.py prints and writes: a table per interpreter, the failures, a summary, JSON."""
from collections import defaultdict
from dataclasses import asdict

from harness import FAILED, NO_LOOP, STALE
from table import NOT_APPLICABLE, NOT_YET

VERDICTS = 'passed', 'failed', STALE, NOT_YET, NOT_APPLICABLE, NO_LOOP, 'skipped'
SCORED = 'passed', 'failed', STALE, NOT_YET
SUMS = 'loops', 'stock', 'secs'


def count(results):
    """Return the row of the table for some results."""
    row = dict.fromkeys(VERDICTS + SUMS, 0)
    for result in results:
        row['failed' if result.status in FAILED else result.status] += 1
        for key in SUMS:
            row[key] += getattr(result, key)
    row['secs'] = round(row['secs'], 1)
    return row


def applicable(row):
    return sum(row[verdict] for verdict in SCORED)


def score(row):
    return f"{row['passed']} / {applicable(row)}"


def print_table(outcome):
    """Print a line per file and the total."""
    by_file = defaultdict(list)
    for result in outcome.results.values():
        by_file[result.file].append(result)
    rows = {file: count(by_file[file]) for file in sorted(outcome.files)}
    rows['TOTAL'] = count(outcome.results.values())
    print(f'\n{outcome.interpreter}')
    print(f"{'file':26}" + ''.join(f'{key:>9}' for key in VERDICTS + SUMS))
    for file, row in rows.items():
        print(f'{file:26}' + ''.join(f'{row[key] or "-":>9}' for key in VERDICTS + SUMS))
    print(f"{score(rows['TOTAL'])} applicable tests passed, {len(outcome.flaky)} of them flaky; "
          f'{outcome.loops} loops of {outcome.interpreter.package} made; {outcome.secs:.0f} s')


def problems(outcome, strict=False):
    """Yield a line for everything that makes the run a failure."""
    for result in outcome.unexpected:
        if result.status == STALE:
            entry = outcome.table.find(result.id, NOT_YET)
            yield f'STALE    {result.id}: passes; take it out of not_yet.toml ({entry.pattern})'
        else:
            yield f'{result.status.upper():8} {result.id}: {result.error}'
    for file in outcome.loopless:
        yield f'NO LOOP  {file}: no test made a loop of {outcome.interpreter.package}'
    for entry in outcome.dead:
        if strict or entry.bounded:
            yield f'DEAD     {entry.pattern}: no such test here ({entry.reason})'


def print_problems(outcome, strict):
    """Print the problems and the flaky tests.  -> how many problems"""
    lines = list(problems(outcome, strict))
    for line in lines:
        print(line)
    for name, error in sorted(outcome.flaky.items()):
        print(f'FLAKY    {name}: {error}')
    return len(lines)


def print_failures(outcome):
    """Print the failures as entries to paste into not_yet.toml, one for each class."""
    by_class = defaultdict(list)
    for result in outcome.unexpected:
        if result.status in FAILED:
            where, _, test = result.id.rpartition('.')
            by_class[where].append((test, result.error))
    for where, tests in by_class.items():
        print(f'\n[[entry]]\nissue = ""\nreason = ""\nin = "{where}"\ntests = [')
        for test, error in tests:
            print(f'    "{test}",  # {error[:100]}')
        print(']')


def print_summary(outcomes):
    """Print a line per interpreter."""
    print(f"\n{'interpreter':40}{'passed / applicable':>20}"
          + ''.join(f'{key:>9}' for key in VERDICTS[1:5]))
    for outcome in outcomes:
        row = count(outcome.results.values())
        print(f'{outcome.interpreter!s:40}{score(row):>20}'
              + ''.join(f'{row[key] or "-":>9}' for key in VERDICTS[1:5]))


def as_json(outcome):
    """Return what --out writes about one interpreter; compare.py reads it."""
    interpreter = outcome.interpreter
    return dict(
        title=str(interpreter), python=f'{interpreter.implementation} {interpreter.version_text}',
        total=count(outcome.results.values()), wall_secs=round(outcome.secs, 1),
        flaky=outcome.flaky,
        results={name: asdict(result) for name, result in sorted(outcome.results.items())})
