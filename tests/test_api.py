"""The public face: names, signatures and docstrings, held against the running Python's asyncio."""

import asyncio
import inspect
import subprocess
import sys

import pytest

import veloop

# asyncio.AbstractEventLoop's signatures lag behind what its loops take, so we look at these.
STOCK = asyncio.SelectorEventLoop


def public_methods(kind):
    return {
        name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))
    }


# What veloop has everywhere and asyncio only in newer versions.
NEWER = {
    "create_server": {"keep_alive"},
    "create_task": {"kwargs"},
    "create_connection": {"all_errors"},
    "create_unix_server": {"cleanup_socket"},
    "shutdown_default_executor": {"timeout"},
}


def test_all_public_methods_of_asyncios_loop_are_there():
    assert public_methods(STOCK) <= _defined(veloop.EventLoop)


def _defined(kind):
    """Names defined by veloop, not inherited from AbstractEventLoop."""
    return {name for base in kind.__mro__ if "veloop" in base.__module__ for name in vars(base)}


@pytest.mark.parametrize("name", sorted(public_methods(STOCK)))
def test_signature_is_asyncios(name):
    ours = inspect.signature(getattr(veloop.EventLoop, name)).parameters
    theirs = inspect.signature(getattr(STOCK, name)).parameters
    newer = NEWER.get(name, set())
    assert [p for p in ours if p not in newer] == [p for p in theirs if p not in newer]
    for key, parameter in theirs.items():
        if key == "self":
            continue  # of a method in C it can never be given by name
        assert ours[key].kind == parameter.kind, key
        assert ours[key].default == parameter.default, key


@pytest.mark.parametrize("kind", [veloop.EventLoop, asyncio.Server], ids=lambda kind: kind.__name__)
def test_every_public_method_says_what_it_does(kind):
    if kind is asyncio.Server:
        from veloop.loop.server import Server as kind
    for name in _defined(kind):
        if not name.startswith("_") and callable(getattr(kind, name)):
            assert inspect.getdoc(getattr(kind, name)), name


def test_everything_in_all_is_there_and_documented():
    for name in veloop.__all__:
        assert hasattr(veloop, name), name
    assert set(veloop.__all__) <= set(dir(veloop))
    for name in ("EventLoop", "Runner", "new_event_loop", "run"):
        assert inspect.getdoc(getattr(veloop, name)), name


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        veloop.no_such_name  # noqa: B018


def test_libuv_version_is_the_pinned_one():
    parts = [int(part) for part in veloop.libuv_version.split(".")]
    assert parts >= [1, 48, 0]


def test_import_makes_no_loop_and_no_policy():
    code = (
        "import asyncio, sys, veloop; from veloop._uv import lib; "
        "assert lib.vl_live_handles() == 0; assert 'veloop.policies' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_modules_also_have_what_asyncios_of_that_name_has():
    for area in "events tasks streams runners locks queues futures subprocess exceptions".split():
        ours, stock = getattr(veloop, area), getattr(asyncio, area)
        missing = [name for name in dir(stock) if not hasattr(ours, name)]
        assert not missing, area
    assert veloop.events.Handle is asyncio.Handle
    assert veloop.tasks._current_tasks is asyncio.tasks._current_tasks
    with pytest.raises(AttributeError, match="no_such_name"):
        veloop.tasks.no_such_name  # noqa: B018
    assert not hasattr(sys, "no_such_name")  # others' modules are left alone


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio.graph is new in 3.14")
@pytest.mark.parametrize("first", ["import veloop.graph", "import veloop; veloop.graph"])
def test_call_graphs_module_also_has_what_asyncios_has(first):
    code = f"{first}; from asyncio import graph as stock; "
    code += "print([name for name in dir(stock) if not hasattr(veloop.graph, name)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_program_that_checks_for_asyncios_classes_finds_ours():
    areas = {
        "locks": "Lock Event Condition Semaphore BoundedSemaphore Barrier",
        "queues": "Queue PriorityQueue LifoQueue",
        "streams": "StreamReader StreamWriter StreamReaderProtocol",
        "subprocess": "Process",
    }
    for area, names in areas.items():
        for name in names.split():
            ours, stock = getattr(getattr(veloop, area), name), getattr(asyncio, area)
            assert issubclass(ours, getattr(stock, name)), name
