"""Fixtures of the integration tests; at the end pytest says which databases were really started."""

import pytest
from databases import NotInstalled, PostgreSQL, Redis
from running import AnyioRunner

# One line per database that a test asked for.
_reports = []


def _database(kind):
    """The server for the whole session; where it is not installed its tests are skipped."""
    server = kind()
    try:
        server.__enter__()
    except NotInstalled as exc:
        _reports.append(f"{kind.name}: NOT started: {exc}")
        pytest.skip(f"{kind.name} is not installed: {exc}")
    except BaseException:
        _reports.append(f"{kind.name}: FAILED to start")
        raise
    _reports.append(f"{kind.name} {server.version}: started on {server.host}:{server.port}")
    try:
        yield server
    finally:
        server.__exit__()


@pytest.fixture(scope="session")
def postgres():
    """A running PostgreSQL."""
    yield from _database(PostgreSQL)


@pytest.fixture(scope="session")
def redis_server():
    """A running Redis."""
    yield from _database(Redis)


@pytest.fixture
def runner(loop_kind):
    """`anyio.run` with that kind of loop."""
    return AnyioRunner(loop_kind)


def pytest_terminal_summary(terminalreporter):
    if _reports:
        terminalreporter.section("databases")
        for line in sorted(_reports):
            terminalreporter.line(line)
