"""The rules of the layout that a test can hold: who imports whom, sizes, stems, declarations.

The tables below are the rules; changing the layout means changing them here, with a reason. The
checks are functions of a source root, so that the last tests can show each of them a culprit.
"""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pkg" / "veloop"
TESTS = ROOT / "tests"

# ------------------------------------------------------------ who may import whom

# Each module may import those to its left in its own row, and what its row says beyond.
PURE = ["exceptions", "events", "futures", "graph", "spawning", "tasks"]
PRIMITIVES = ["locks", "queues", "timeouts", "taskgroups", "threads"]
STREAMS = ["stream_reader", "streams", "subprocess"]
# debug is first because everybody logs through it.
LOOP = """
    handles arguments poll nesting debug fork heap timers wakeup signals dns sockets executor
    gil turn asyncgens core
    transport buffers stream datagram tls_state tls_flow tls_transport tls server
    tcp unix pipe named_pipe udp sendfile
    children process
""".split()
# What runs loops, and knows them by their public face only.
ABOVE_THE_LOOP = ["runners", "policies", "testing"]


def allowed_imports(module):
    """The modules of ours that this one may import; None when the table does not know it."""
    if module == "_uv" or module.startswith("_uv."):
        return {"_uv", "_uv.*"}
    if module in PURE:
        return set(PURE[: PURE.index(module)])
    if module in PRIMITIVES:
        return {*PURE, *(["locks"] if module == "queues" else [])}
    if module in STREAMS:
        return {*PURE, *PRIMITIVES, *STREAMS[: STREAMS.index(module)]}
    if module == "loop":
        return {"loop.loop"}
    if module == "loop.loop":
        return {"_uv", "_uv.*", *PURE, *(f"loop.{name}" for name in LOOP)}
    if module.startswith("loop.") and module[5:] in LOOP:
        before = LOOP[: LOOP.index(module[5:])]
        return {"_uv", "_uv.*", *PURE, *(f"loop.{name}" for name in before)}
    if module in ABOVE_THE_LOOP:
        return {*PURE, "loop", *(["loop.handles", "loop.timers"] if module == "testing" else [])}
    if module in ("", "_accelerate"):
        return {"*"}
    # The command line is one more user of the public names.
    if module == "__main__":
        return {"", "_main", "_main.*"}
    if module == "_main" or module.startswith("_main."):
        return {"", "loop", "_main", "_main.*"}
    return None


def permits(allowed, target):
    return (
        "*" in allowed
        or target in allowed
        or any(each.endswith(".*") and target.startswith(each[:-1]) for each in allowed)
    )


def module_name(path, package):
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node):
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def import_nodes(tree):
    """Import statements wherever they stand, except those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and is_type_checking(node):
            for each in node.orelse:
                yield from import_nodes(each)
                if isinstance(each, ast.Import | ast.ImportFrom):
                    yield each
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from import_nodes(node)


def imported_modules(path, package):
    """(line, module) for each import: ours as dotted name below the package, others as found."""
    module = module_name(path, package)
    here = module.split(".") if module else []
    if path.name != "__init__.py":
        here = here[:-1]
    modules = {module_name(each, package) for each in package.rglob("*.py")}
    for node in import_nodes(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, *own_or_other(alias.name, package.name)
            continue
        if node.level:
            own, base = True, here[: len(here) - node.level + 1]
            base = ".".join([*base, *([node.module] if node.module else [])])
        else:
            own, base = own_or_other(node.module, package.name)
        for alias in node.names:
            below = f"{base}.{alias.name}" if base else alias.name
            yield node.lineno, own, below if own and below in modules else base


def own_or_other(name, package):
    own = name == package or name.startswith(package + ".")
    return own, name[len(package) + 1 :] if own else name


def import_violations(package):
    found = []
    for path in sorted(package.rglob("*.py")):
        module = module_name(path, package)
        allowed = allowed_imports(module)
        if allowed is None:
            found.append(f"{path}: module {module!r} has no place in the table of layers")
            continue
        for line, own, target in imported_modules(path, package):
            if own and target.startswith("_uv._cffi"):
                fine = module == "_uv"
            elif own:
                fine = permits(allowed, target)
            else:
                fine = target.split(".")[0] in sys.stdlib_module_names
            if not fine:
                found.append(f"{path}:{line}: {module or 'veloop'} imports {target}")
    return found


# ------------------------------------------------------------ sizes

LIMITS = [
    ("pkg/veloop/_uv/decl/*", 120),
    ("pkg/veloop/_uv/shim/*", 300),
    ("pkg/veloop/_speedups/*", 300),
    ("pkg/veloop/**/*.py", 600),
    ("pkg/veloop/**/*.pyi", 600),
    ("tests/**/*.py", 800),
]

# path -> (limit, reason)
LONGER = {}


def size_violations(root, limits=LIMITS, longer=LONGER):
    found = []
    for pattern, limit in limits:
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            lines = path.read_text().count("\n")
            own_limit, reason = longer.get(name, (limit, "-"))
            if lines > own_limit:
                found.append(f"{name}: {lines} lines, the limit is {own_limit}")
            if name in longer and (lines <= limit or not reason):
                found.append(f"{name}: {lines} lines, no exception needed")
    found += [f"{name}: listed, but not there" for name in longer if not (root / name).exists()]
    return found


# ------------------------------------------------------------ stems

# decl/ and shim/ files without a partner in the other folder.
DECL_ALONE = {
    "types": "opaque typedefs",
    "error": "names and texts that libuv itself defines",
}
SHIM_ALONE = {
    "environment": "for process.c only",
    "port": "what differs between platforms, for the other shims only",
    "epoll": "the part of port that is about epoll",
    "faults": "system calls that fail, in builds for the soak test",
}
# C stems whose Python half has another name.
PYTHON_HALF = {
    "types": "_uv",
    "event": "_uv.events",
    "error": "_uv.errors",
    "exit": "loop.children",
    "handle": "_uv",
    "listener": "loop.server",
    "table": "_accelerate",
    "timer": "loop.timers",
    "async": "loop.wakeup",
    "signal": "loop.signals",
}
# Modules that another area's tests cover.
TESTED_AS = {
    "": "api",
    "_uv": "layers",
    "_uv.events": "drain",
    "_uv.sockaddr": "dns",
    "spawning": "tasks",
    "stream_reader": "streams",
    "loop.handles": "loop",
    "loop.heap": "timers",
    "loop.transport": "stream",
    "loop.buffers": "stream",
    "_accelerate": "speedups",
    "loop.children": "process",
    "loop.datagram": "udp",
    "loop": "loop",
    "loop.tls_transport": "tls",
    "loop.core": "loop",
    "loop.asyncgens": "loop",
    "__main__": "main",
    "_main": "main",
    "_main.demo": "demo",
    "_main.program": "main",
    "_main.takeover": "main",
}
# Test files whose area is not a module's stem; wakeup, fork and threads are the core's.
# ownership (of descriptors), contract (with libraries) and soak go across all areas; packaging is
# about ci/.
TEST_AREAS_ALONE = {
    "layers",
    "conftest",
    "threads",
    "docs",
    "examples",
    "api",
    "drain",
    "main",
    "wakeup",
    "ownership",
    "contract",
    "bench",
    "soak",
    "packaging",
}


def stem_violations(root):
    package, tests = root / "pkg" / "veloop", root / "tests"
    modules = {module_name(path, package) for path in package.rglob("*.py")}
    decl = {path.stem for path in package.glob("_uv/decl/*.h")}
    shim = {path.stem for path in package.glob("_uv/shim/*.c")}
    found = [f"decl/{stem}.h has no shim/{stem}.c" for stem in sorted(decl - shim - {*DECL_ALONE})]
    found += [f"shim/{stem}.c has no decl/{stem}.h" for stem in sorted(shim - decl - {*SHIM_ALONE})]
    for stem in sorted(decl):
        if PYTHON_HALF.get(stem, f"loop.{stem}") not in modules:
            found.append(f"decl/{stem}.h has no Python half")

    areas = [path.stem.removeprefix("test_") for path in tests.glob("test_*.py")]

    def is_tested(area):
        return any(each == area or each.startswith(area + "_") for each in areas)

    known = set(TEST_AREAS_ALONE)
    for module in sorted(modules):
        stem = module.rpartition(".")[2]
        area = TESTED_AS.get(module, stem)
        if not is_tested(area) and not is_tested(stem or area):
            found.append(f"{module or 'veloop'} has no tests/test_{area}.py")
        known |= {area, stem} - {""}
    for area in sorted(areas):
        if not any(area == each or area.startswith(each + "_") for each in known):
            found.append(f"tests/test_{area}.py belongs to no module")
    return found


# ------------------------------------------------------------ C


def strip_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


def declared_functions(text):
    return set(re.findall(r"\b(vl_\w+)\s*\([^;{]*\)\s*;", strip_comments(text)))


def defined_functions(text):
    """Functions defined at file level: the name, its arguments, a brace."""
    return set(re.findall(r"^\w[\w\s*]*?\b(vl_\w+)\s*\([^;{}]*\)\s*\{", strip_comments(text), re.M))


def declaration_violations(package):
    """Each function is declared in the header of the file that defines it."""
    defined = {
        path.stem: defined_functions(path.read_text()) for path in package.glob("_uv/shim/*.c")
    }
    found = []
    for path in sorted(package.glob("_uv/decl/*.h")):
        for name in sorted(declared_functions(path.read_text())):
            if name not in defined.get(path.stem, ()):
                where = [stem for stem, names in defined.items() if name in names]
                found.append(f"{name}: declared in decl/{path.name}, defined in {where}")
    return found


def stub_names(text):
    """The members that _cffi.pyi promises of `lib`."""
    tree = ast.parse(text)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    kind = "lib"
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and node.target.id == "lib":
            kind = node.annotation.id
    names = set()
    for node in classes[kind].body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
    return names


# ------------------------------------------------------------ what is there


def test_package_is_where_the_checks_look():
    assert (PACKAGE / "__init__.py").exists()
    assert list(PACKAGE.glob("_uv/decl/*.h"))
    assert list(PACKAGE.glob("_uv/shim/*.c"))


def test_modules_import_only_what_their_layer_may():
    assert import_violations(PACKAGE) == []


def test_no_file_is_too_long():
    assert size_violations(ROOT) == []


def test_guards_change_what_is_there():
    for guard in tomllib.loads((TESTS / "guards/guards.toml").read_text("utf-8"))["guard"]:
        text = (ROOT / guard["file"]).read_text("utf-8")
        assert text.count(guard["replace"]) == 1, guard["behaviour"]
        assert all((ROOT / each.partition("::")[0]).exists() for each in guard["tests"])


def test_one_area_has_one_stem():
    assert stem_violations(ROOT) == []


def test_functions_are_declared_beside_their_definition():
    assert declaration_violations(PACKAGE) == []


def test_stub_of_the_extension_is_complete():
    from veloop._uv import lib

    there = {name for name in dir(lib) if not name.startswith("__")}
    promised = stub_names((PACKAGE / "_uv" / "_cffi.pyi").read_text())
    assert promised - there == set(), "in _cffi.pyi only"
    assert there - promised == set(), "not in _cffi.pyi"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_module_begins_with_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_no_python_runs_below_a_c_frame():
    # Memory law: no callback into Python, so no exception ever unwinds through C.
    for path in PACKAGE.glob("_uv/decl/*"):
        assert 'extern "Python"' not in path.read_text(), path
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for banned in ("ffi.callback", "def_extern", "from_handle"):
            assert banned not in text, path


def test_c_calls_are_written_out():
    # So that a search for a C function finds its calls.
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"\bgetattr\(lib\b", path.read_text()), path


# ------------------------------------------------------------ the checks find culprits


@pytest.fixture
def tree(tmp_path):
    """A small tree that breaks no rule, and a function that writes one more file."""

    def write(name, text='"""A module."""\n'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    for name in ("__init__", "events", "tasks", "locks", "queues", "streams", "runners"):
        write(f"pkg/veloop/{name}.py")
    for name in ("__init__", "program"):
        write(f"pkg/veloop/_main/{name}.py")
    for name in ("__init__", "events", "errors"):
        write(f"pkg/veloop/_uv/{name}.py")
    for name in ("__init__", "loop", "timers", "poll", "tcp", "stream"):
        write(f"pkg/veloop/loop/{name}.py")
    write("pkg/veloop/_uv/decl/tcp.h", "int vl_tcp_open(int fd);\n")
    write("pkg/veloop/_uv/shim/tcp.c", "int vl_tcp_open(int fd) {\n  return fd;\n}\n")
    names = "api layers drain errors tasks locks queues streams runners main loop timers poll tcp"
    for name in (*names.split(), "stream", "events"):
        write(f"tests/test_{name}.py")
    write.root = tmp_path
    write.package = tmp_path / "pkg" / "veloop"
    return write


def test_orderly_tree_has_no_violations(tree):
    assert import_violations(tree.package) == []
    assert size_violations(tree.root) == []
    assert stem_violations(tree.root) == []
    assert declaration_violations(tree.package) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("_uv/errors", "from ..events import Handle"),
        ("_uv/errors", "import veloop.loop.tcp"),
        ("_uv/errors", "import cffi"),
        ("_uv/errors", "from . import *\nfrom ..loop import timers"),
        ("events", "from .tasks import Task"),
        ("events", "from . import tasks"),
        ("events", "from ._uv import lib"),
        ("tasks", "from .loop import EventLoop"),
        ("locks", "from . import queues"),
        ("streams", "def f():\n    from veloop.loop.loop import EventLoop"),
        ("runners", "from ._uv import lib"),
        ("runners", "from .loop.loop import EventLoop"),
        ("loop/timers", "from .loop import EventLoop"),
        ("loop/timers", "from . import EventLoop"),
        ("loop/timers", "from .tcp import connect"),
        ("loop/stream", "try:\n    import aiohttp\nexcept ImportError:\n    pass"),
        ("loop/tcp", "from ..locks import Lock"),
        ("loop/tcp", "from .._uv._cffi import lib"),
        ("loop/tcp", "if TYPE_CHECKING:\n    pass\nelse:\n    from .loop import EventLoop"),
        ("__main__", "from ._uv import lib"),
        ("_main/demo", "from ..loop.tcp import connect"),
        ("loop/unheard_of", ""),
    ],
)
def test_import_that_breaks_the_layers_is_found(tree, module, statement):
    tree(f"pkg/veloop/{module}.py", statement + "\n")
    assert len(import_violations(tree.package)) == 1


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("__init__", "from .loop import EventLoop\nfrom ._uv import lib"),
        ("__main__", "from . import run\nfrom ._main import program"),
        ("_main/demo", "from .. import run\nfrom ..loop import new_event_loop"),
        ("_uv/__init__", "from ._cffi import ffi, lib"),
        ("_uv/errors", "import errno\nfrom . import lib\nfrom .events import drain"),
        ("tasks", "import asyncio.events\nfrom .events import Handle"),
        ("queues", "from .locks import Event\nfrom . import tasks"),
        ("runners", "from .loop import new_event_loop"),
        ("loop/__init__", "from .loop import EventLoop"),
        ("loop/loop", "from . import tcp, timers\nfrom .._uv import lib\nfrom ..tasks import Task"),
        ("loop/tcp", "from .stream import Transport\nfrom .._uv.errors import check"),
        (
            "loop/tcp",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .loop import L",
        ),
        ("loop/tcp", "import typing\nif typing.TYPE_CHECKING:\n    from .loop import L"),
    ],
)
def test_import_within_the_layers_is_fine(tree, module, statement):
    tree(f"pkg/veloop/{module}.py", statement + "\n")
    assert import_violations(tree.package) == []


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("pkg/veloop/_uv/decl/tcp.h", 121),
        ("pkg/veloop/_uv/shim/tcp.c", 301),
        ("pkg/veloop/loop/loop.py", 601),
        ("tests/test_tcp.py", 801),
    ],
)
def test_file_that_is_too_long_is_found(tree, name, lines):
    tree(name, "\n" * (lines - 1))
    assert size_violations(tree.root) == []
    tree(name, "\n" * lines)
    assert len(size_violations(tree.root)) == 1
    assert size_violations(tree.root, longer={name: (lines, "a reason")}) == []


def test_exception_nobody_needs_is_found(tree):
    longer = {"tests/test_tcp.py": (900, "a reason"), "tests/gone.py": (900, "a reason")}
    assert len(size_violations(tree.root, longer=longer)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "pkg/veloop/_uv/decl/pipe.h",
        "pkg/veloop/_uv/shim/pipe.c",
        "pkg/veloop/loop/pipe.py",
        "pkg/veloop/taskgroups.py",
        "tests/test_unheard_of.py",
    ],
)
def test_stem_without_its_partners_is_found(tree, name):
    tree(name)
    assert stem_violations(tree.root) != []


def test_function_declared_in_another_header_is_found(tree):
    tree("pkg/veloop/_uv/decl/poll.h", "int vl_tcp_open(int fd);\n")
    assert len(declaration_violations(tree.package)) == 1


def test_names_in_a_stub_are_found():
    stub = "class _Lib(P):\n    VL_A: int\n    def vl_b(self) -> int: ...\nlib: _Lib\nffi: object\n"
    assert stub_names(stub) == {"VL_A", "vl_b"}
