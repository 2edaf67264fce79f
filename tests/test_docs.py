"""The documentation: every Python example in docs/ and the README runs and prints what it says.

A ```python block is a program of its own, run with all warnings as errors. If the next thing
behind it is a ```text block, that is the whole output. Blocks that are no whole program
(configuration, a shell) have another language.
"""

import asyncio
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n*^```text\n(?P<output>.*?)^```\n)?", re.M | re.S
)
DOCUMENTED = """
    events exceptions futures graph locks queues runners streams subprocess taskgroups tasks testing
    threads timeouts
""".split()


def examples():
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            name = f"{page.relative_to(ROOT)}:{line}"
            # As many empty lines before it as make a traceback's line that of the page.
            code = "\n" * line + match["code"]
            yield pytest.param(page, code, match["output"], id=name)


@pytest.fixture(autouse=True)
def _warm_up():
    """What a process opens once, with its first loop, must not be taken for a leak."""
    from helpers import new_event_loop

    new_event_loop("veloop").close()


@pytest.mark.parametrize(("page", "code", "output"), list(examples()))
def test_example_runs(page, code, output, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr()
    assert printed.err == ""
    if output is not None:
        assert printed.out == output
    assert asyncio._get_running_loop() is None


@pytest.mark.parametrize("area", DOCUMENTED)
def test_every_public_name_of_a_module_is_on_its_page(area):
    import importlib

    page = (ROOT / "docs" / f"{area}.md").read_text("utf-8")
    for name in importlib.import_module(f"veloop.{area}").__all__:
        assert re.search(rf"`{name}\b", page), f"docs/{area}.md says nothing about {name}"


def test_every_public_name_is_in_the_table():
    import veloop

    table = (ROOT / "docs" / "modules.md").read_text("utf-8")
    # What is asyncio's own and comes and goes with its versions is told below the table.
    stock = {name for name in asyncio.__all__ if name not in vars(veloop)}
    for name in {*veloop.__all__, "DefaultEventLoopPolicy"} - stock - {"__version__"}:
        assert f"`{name}`" in table, f"docs/modules.md says nothing about {name}"
