"""The scripts that build, check and publish: what can be tried of them without building."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers import WINDOWS

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path for path in (ROOT / "ci").iterdir() if path.is_file())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(autouse=True)
def _scripts_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(ROOT / "ci" / "packaging"))


def sources_of_libuv():
    return tomllib.loads((ROOT / "vendor/libuv/sources.toml").read_text("utf-8"))


# ------------------------------------------------------------ what is in a wheel


def test_bill_of_materials_names_the_pinned_libuv(tmp_path):
    import json

    from vendor.libuv import sbom

    sbom.write(tmp_path, "1.2.3")
    bill = json.loads((tmp_path / "sboms" / "veloop.cdx.json").read_text("utf-8"))
    pin = tomllib.loads((ROOT / "vendor/libuv/pin.toml").read_text("utf-8"))
    [libuv] = bill["components"]
    assert bill["bomFormat"] == "CycloneDX"
    assert libuv["version"] == pin["version"]
    assert libuv["purl"] == f"pkg:github/libuv/libuv@v{pin['version']}"
    assert pin["version"] in libuv["cpe"]
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/veloop@1.2.3"


def test_bill_of_materials_is_the_same_every_time():
    from vendor.libuv import sbom

    assert sbom.document("1") == sbom.document("1")


# ------------------------------------------------------------ ci/matrix


def test_this_interpreter_is_found(monkeypatch):
    import interpreters

    monkeypatch.delenv(interpreters.VARIABLE, raising=False)  # ci/matrix may have been given some
    [python] = interpreters.find([sys.executable], only_given=True)
    assert python.version == sys.version_info[:3]
    assert python.implementation == sys.implementation.name
    assert python.name.startswith(sys.implementation.name)


def test_what_is_no_python_is_refused(tmp_path, monkeypatch):
    import interpreters

    monkeypatch.setenv(interpreters.VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match="no Python"):
        interpreters.find(only_given=True)


@pytest.mark.parametrize(
    ("output", "summary"),
    [
        ("....\n12 passed, 3 skipped in 4.56s\n", "12 passed, 3 skipped"),
        ("=== 1 failed, 2 passed in 61.00s (0:01:01) ===\n", "1 failed, 2 passed"),
        ("Segmentation fault\n\n", "Segmentation fault"),
        ("", "no output"),
    ],
)
def test_summary_of_the_tests_is_read(output, summary):
    import matrix

    assert matrix.pytest_summary(output) == summary


def test_score_of_conformance_is_read():
    import matrix

    output = "770 / 770 applicable tests passed, 0 of them flaky; 900 loops made; 60 s\n\nall\n"
    assert matrix.conformance_score(output) == "770 / 770"


def test_table_of_the_matrix():
    import matrix
    from interpreters import Python

    python = Python("python3.14t", "cpython", (3, 14, 1), True, None, True)
    row = matrix.Row(python, {"build": "yes", "tests": "FAILED: 1 failed"})
    assert row.is_bad
    assert not python.is_stable_abi
    assert python.tag == "cp314-cp314t"
    assert matrix.table([row], ["build", "tests"]) == [
        "| interpreter     | build | tests            |",
        "| --------------- | ----- | ---------------- |",
        "| cpython-3.14.1t | yes   | FAILED: 1 failed |",
    ]


# ------------------------------------------------------------ ci/cross


def test_targets_are_systems_that_libuv_is_compiled_for():
    pytest.importorskip("ziglang", reason="only in the environment that ci/cross makes")
    cross = pytest.importorskip("cross")
    known = sources_of_libuv()["platforms"]
    assert {target.system for target in cross.TARGETS.values()} <= set(known)


def test_header_for_windows_hides_the_one_of_this_python():
    text = (ROOT / "ci/packaging/pyconfig-windows.h").read_text("utf-8")
    assert "#define Py_PYCONFIG_H" in text
    # A long has 4 bytes there, and pointers 8.
    sizes = dict(re.findall(r"#define SIZEOF_(\w+) (\d)", text))
    assert (sizes["LONG"], sizes["VOID_P"], sizes["WCHAR_T"]) == ("4", "8", "2")


# ------------------------------------------------------------ all scripts, and who calls them


@pytest.mark.skipif(WINDOWS, reason="no bash")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_can_be_run(script):
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True, timeout=20)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_documented(script):
    if script.name != "check":
        assert f"`ci/{script.name}`" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")


@pytest.mark.skipif(not WORKFLOWS, reason="not in the source distribution")
def test_workflows_use_actions_by_commit():
    for path in WORKFLOWS:
        for action in re.findall(r"uses: (.*)", path.read_text("utf-8")):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action), path


@pytest.mark.skipif(not WORKFLOWS, reason="not in the source distribution")
def test_workflows_call_scripts_that_are_there():
    called = {
        name for path in WORKFLOWS for name in re.findall(r"run: ci/(\w+)", path.read_text("utf-8"))
    }
    assert called
    assert called <= {script.name for script in SCRIPTS}


@pytest.mark.skipif(not WORKFLOWS, reason="not in the source distribution")
def test_nothing_but_a_tag_is_published():
    text = "".join(path.read_text("utf-8") for path in WORKFLOWS)
    assert text.count("id-token: write") == 1
    publish = text.partition("\n  publish:\n")[2]
    assert "if: github.event_name == 'push' && startsWith(github.ref, 'refs/tags/v')" in publish
    assert "id-token: write" in publish
