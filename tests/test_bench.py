"""benchmarks/: every row leads to a program, the programs do their work, the report is whole."""

import dataclasses
import json
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree
from pathlib import Path

import pytest

from helpers import PATIENCE, run

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import client  # noqa: E402
import micro  # noqa: E402
import servers  # noqa: E402
from bench import load, plot, report, results  # noqa: E402
from bench.loops import LOOPS, Column  # noqa: E402
from bench.micro import micro as measure_micro  # noqa: E402
from bench.rows import BY_NAME, ROWS  # noqa: E402
from bench.sample import Sample  # noqa: E402
from bench.startup import startup  # noqa: E402
from programs import Wrong, echo, figures, primitives, scheduling  # noqa: E402

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
MICRO = {*micro.PROGRAMS, *micro.OUTSIDE, *figures.FIGURES}


def test_row_names_are_unique():
    assert len(BY_NAME) == len(ROWS)


@rows
def test_each_row_leads_to_a_program(row):
    if row.measure is startup:
        assert row.kind == ""
    else:
        assert row.kind in (MICRO if row.measure is measure_micro else servers.KINDS)


@rows
def test_each_row_asks_the_client_for_what_it_can_do(row):
    if row.measure is load.load:
        assert row.mode in client.MODES
        assert row.size > client.STAMP
        # What client.c has no mode for must go to the other one.
        assert row.tls or f'{{"{row.mode}", SOCK_' in (BENCHMARKS / "client.c").read_text()


def test_each_program_has_a_row():
    used = {row.kind for row in ROWS}
    assert used >= MICRO | servers.KINDS.keys()


def test_the_server_that_counts_bytes_is_asked_for_so_many():
    assert BY_NAME["readexactly-1k"].size == echo.EXACTLY


def test_each_loop_has_a_home_and_the_columns_that_name_a_module_use_it():
    for name, loop in LOOPS.items():
        assert loop.factory.count(":") == 1
        if "+" in name:
            assert name == f"{name.partition('+')[0]}+{loop.module}"
    assert LOOPS["veloop"].module == "veloop"


SMALL = {**primitives.PROGRAMS, **scheduling.PROGRAMS}


@pytest.mark.parametrize("n", [1, 23])
@pytest.mark.parametrize("name", SMALL)
def test_a_program_does_its_work(aio, loop, name, n):
    # Each counts what it did and raises Wrong when that is not n.
    assert run(loop, SMALL[name](aio, n)) is None


def test_a_program_notices_a_lock_that_locks_nothing(aio, loop):
    class Open:
        async def __aenter__(self):
            pass

        async def __aexit__(self, *error):
            pass

    with pytest.raises(Wrong):
        run(loop, primitives.contended(aio, Open(), 20, at_once=1))


def test_a_sample_is_of_the_wanted_length_though_the_first_operation_is_slow():
    asked = []

    def fake(operations):
        asked.append(operations)
        return {"seconds": 0.001 * operations + (0.5 if len(asked) == 1 else 0)}

    result = micro.measure(fake, seconds=0.2, warmup=0.05)
    assert 0.14 <= result["seconds"] <= 0.3


def test_a_sample_waits_for_the_end_of_the_warm_up():
    spent = []

    def fake(operations):
        spent.append(0.1 * operations)
        return {"seconds": spent[-1]}

    micro.measure(fake, seconds=0.1, warmup=0.35)
    assert sum(spent[:-1]) >= 0.35


def answering(change):
    """A server that answers with change(message), and its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listener, listener.accept()[0] as connection:
            while data := connection.recv(4096):
                connection.sendall(change(data))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener.getsockname()[1], thread


@pytest.mark.parametrize(
    "mode, change, errors",
    [
        ("echo", lambda data: data, 0),
        ("echo", lambda data: data[:50] + b"#" + data[51:], 1),
        ("echo", lambda data: data + b"x", 1),
        ("http", lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, world!", 0),
        ("http", lambda _: b"HTTP/1.1 500 No\r\nContent-Length: 13\r\n\r\nHello, world!", 1),
        ("http", lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!", 1),
        ("http", lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHello, world!", 1),
    ],
    ids=["echo", "changed", "longer", "http", "status", "body", "length"],
)
def test_the_client_notices_a_wrong_answer(mode, change, errors):
    port, thread = answering(change)
    command = [sys.executable, str(BENCHMARKS / "client.py"), "--mode", mode, "--size", "100"]
    command += ["--port", str(port), "--connections", "1", "--warmup", "0", "--seconds", "0.02"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    thread.join(PATIENCE)
    found = json.loads(done.stdout)
    assert (found["errors"], found["stuck"]) == (errors, 0)
    assert (found["messages"] > 0) == (errors == 0)


@pytest.fixture
def made():
    """Results of two rows and three columns, one of which fails and one has no such thing."""
    names = ["veloop", "uvloop", "asyncio"]
    chosen = [BY_NAME["echo-1k"], BY_NAME["memory-timer"]]
    everything = results.Results(
        rows=chosen,
        columns=[Column.parse(name) for name in names],
        facts={"CPU": "one & only", "kernel": "k", "taken": "today"},
        versions=dict.fromkeys(names, "1"),
        absent={"rloop": "not installed"},
    )
    for cost, name in enumerate(names, 2):
        everything.samples["echo-1k", name] = {
            number: Sample(operations=1000, seconds=1.0, cpu_ns=cost * 10**6 + number)
            for number in range(3)
        }
    everything.samples["memory-timer", "veloop"] = {0: Sample(1, 1.0, figure=400.0)}
    everything.failures["memory-timer", "uvloop"] = "it broke"
    everything.unsupported["memory-timer", "asyncio"] = "it has none"
    return everything


def test_the_report_judges_the_targets(made):
    words = report.text(made, markdown=False)
    assert "target met: veloop 0.667 x uvloop, at most 0.92" in words
    made.rows[0] = dataclasses.replace(made.rows[0], target=0.5)
    assert "target missed: veloop 0.667 x uvloop, at most 0.50" in report.text(made, False)


def test_the_report_names_what_failed_and_what_is_not_there(made):
    words = report.text(made, markdown=False)
    assert "uvloop: FAILED: it broke" in words
    assert "asyncio: no such thing: it has none" in words
    assert "rloop: absent (not installed)" in words


def test_the_markdown_table_is_rectangular(made):
    lines = [line for line in report.text(made, True).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(made.rows)
    assert len({line.count("|") for line in lines}) == 1


def test_results_come_back_from_their_json(made):
    written = json.loads(json.dumps(results.as_json(made)))
    again = results.from_json(written, BY_NAME)
    assert report.text(again, False) == report.text(made, False)
    assert results.as_json(again) == results.as_json(made)


def test_the_plot_has_a_bar_per_ratio(made):
    root = xml.etree.ElementTree.fromstring(plot.svg(made))
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if word in ("0.67", "1.00", "1.33")] == ["0.67", "1.00", "1.33"]
    assert any("one & only" in word for word in words)


def test_a_micro_program_prints_one_sample():
    command = [sys.executable, str(BENCHMARKS / "micro.py"), "asyncio", "sleep"]
    command += ["--seconds", "0.005", "--warmup", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    sample = Sample(**json.loads(done.stdout))
    assert sample.operations > 0 and sample.cpu_ns > 0 and done.stderr == ""
