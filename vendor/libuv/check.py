# SPDX-License-Identifier: MIT
"""Check this folder against upstream; run by ci/vendor.

The sources must be the pinned ones, and sources.toml must say about every platform what libuv's
own CMakeLists.txt says. To learn the latter, this evaluates as much of CMake's language as
libuv uses around its variables: set, list(APPEND), if/elseif/else/endif.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

from vendor.libuv.fetch import HERE, PIN, SourceError, ensure

# How CMake sees the platforms that sources.toml has.
PLATFORMS = {
    "linux": {"CMAKE_SYSTEM_NAME": "Linux"},
    "darwin": {"CMAKE_SYSTEM_NAME": "Darwin", "APPLE": "1"},
    "freebsd": {"CMAKE_SYSTEM_NAME": "FreeBSD"},
    "windows": {"CMAKE_SYSTEM_NAME": "Windows", "WIN32": "1"},
}

TOKEN = re.compile(r'#[^\n]*|(?P<quoted>"(?:\\.|[^"\\])*")|(?P<paren>[()])|(?P<word>[^\s()"#]+)')


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, arguments) for each command; nested parentheses stay as arguments."""
    name, depth = "", 0
    arguments: list[str] = []
    for match in TOKEN.finditer(text):
        token = match[0]
        if token.startswith("#"):
            continue
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth == 0 and token == ")":
            yield name.lower(), arguments
        elif depth == 0:
            name, arguments = token, []
        elif (depth, token) != (1, "("):
            arguments.append(token.strip('"'))


def holds(condition: list[str], variables: dict[str, Any]) -> bool:
    """Evaluate an if(): NOT before AND before OR; a variable nobody set is false."""
    if "OR" in condition:
        at = condition.index("OR")
        return holds(condition[:at], variables) or holds(condition[at + 1 :], variables)
    if "AND" in condition:
        at = condition.index("AND")
        return holds(condition[:at], variables) and holds(condition[at + 1 :], variables)
    if condition[0] == "NOT":
        return not holds(condition[1:], variables)
    value = str(variables.get(condition[0], ""))
    match condition[1:]:
        case []:
            return bool(value)
        case ["STREQUAL", other]:
            return value == other
        case ["MATCHES", pattern]:
            return re.search(pattern, value) is not None
    return False


def evaluate(text: str, system: dict[str, str]) -> dict[str, set[str]]:
    """The variables of a CMakeLists.txt, as far as they are lists of words."""
    variables: dict[str, Any] = dict(system)
    # One entry per open if(): does this branch run, and did an earlier branch of it run?
    stack: list[tuple[bool, bool]] = []
    for name, arguments in commands(text):
        if name == "if":
            true = holds(arguments, variables)
            stack.append((true, true))
        elif name in ("elseif", "else"):
            _, before = stack.pop()
            true = not before and (name == "else" or holds(arguments, variables))
            stack.append((true, before or true))
        elif name == "endif":
            stack.pop()
        elif not all(active for active, _ in stack):
            continue
        elif name == "set" and arguments[0].startswith("uv_"):
            variables[arguments[0]] = set(arguments[1:])
        elif name == "list" and arguments[0] == "APPEND":
            variables.setdefault(arguments[1], set()).update(arguments[2:])
    return variables


def compare(platform: str, tables: dict[str, Any], text: str) -> list[str]:
    """Differences between sources.toml and CMakeLists.txt for one platform."""
    upstream = evaluate(text, PLATFORMS[platform])
    problems = []
    for name, keys in (
        ("sources", ["sources"]),
        ("defines", ["defines", "abi-defines"]),
        ("libraries", ["libraries"]),
    ):
        groups = tables["platforms"][platform]
        ours = [item for group in groups for key in keys for item in tables[group].get(key, [])]
        theirs = upstream.get(f"uv_{name}", set())
        where = f"{platform}: {name}:"
        problems += [f"{where} {item} is twice" for item in set(ours) if ours.count(item) > 1]
        problems += [f"{where} lacks {item}" for item in sorted(theirs - set(ours))]
        problems += [f"{where} has extra {item}" for item in sorted(set(ours) - theirs)]
    return problems


def main() -> str | None:
    try:
        ensure()
    except SourceError as exc:
        return str(exc)
    tables = tomllib.loads((HERE / "sources.toml").read_text("utf-8"))
    text = (HERE / "CMakeLists.txt").read_text("utf-8")
    problems = []
    if set(tables["platforms"]) != set(PLATFORMS):
        problems.append("sources.toml and check.py name different platforms")
    for platform in PLATFORMS:
        problems += compare(platform, tables, text)
    version = (HERE / "include/uv/version.h").read_text("utf-8")
    numbers = [re.search(rf"UV_VERSION_{n} (\d+)", version) for n in ("MAJOR", "MINOR", "PATCH")]
    if ".".join(m[1] if m else "?" for m in numbers) != PIN["version"]:
        problems.append("include/uv/version.h is of another version than the pin")
    if problems:
        return "vendor/libuv: " + "\nvendor/libuv: ".join(problems)
    print(f"libuv {PIN['version']}: digest and source tables are right")
    return None


if __name__ == "__main__":
    sys.exit(main())
