"""Compiles the C programs on first use, into build/; the names change with the sources."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from bench.loops import HERE

BUILD = HERE / "build"
CERTS = HERE.parent / "tests" / "certs"
VENDORED = HERE.parent / "vendor" / "libuv"

# Those of libuv's files in src/unix that a Linux build takes, as in its CMakeLists.txt.
LIBUV_UNIX = """
    async core dl fs getaddrinfo getnameinfo linux loop loop-watcher pipe poll process
    procfs-exepath proctitle random-devurandom random-getrandom random-sysctl-linux signal stream
    tcp thread tty udp
"""


class Unavailable(Exception):
    """Cannot be had on this machine; the text is the reason that the report gives."""


def compiler() -> list[str]:
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    raise Unavailable("no C compiler (cc, gcc, clang or $CC)")


def build(name: str, sources: list[Path], flags: list[str], depends: str = "") -> Path:
    """An executable of the sources; the first one and `depends` say when an old one is stale."""
    cc = [*compiler(), "-O2", *flags]
    digest = hashlib.sha256(sources[0].read_bytes() + " ".join([*cc, depends]).encode())
    target = BUILD / f"{name}-{digest.hexdigest()[:12]}"
    if target.exists():
        return target
    print(f"compiling {name} ...", file=sys.stderr, flush=True)
    BUILD.mkdir(exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")  # so that a broken build is never found
    command = [*cc, "-o", str(unfinished), *map(str, sources), "-lpthread", "-ldl", "-lrt"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"the C compiler does not run: {error}") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        raise Unavailable(f"{name} does not compile: {lines[0]}")
    unfinished.rename(target)
    return target


def client() -> tuple[list[str], str | None]:
    """The command of the client, and what has to be said about it if it is not the C one."""
    if sys.platform == "linux":
        try:
            return [str(build("client", [HERE / "client.c"], ["-Wall", "-Wextra"]))], None
        except Unavailable as error:
            reason = str(error)
    else:
        reason = "the C client needs epoll"
    warning = (
        f"Python ({reason}): throughput may be the client's and not the server's, and CPU per "
        "message does not compare with figures taken by the C client"
    )
    return [sys.executable, str(HERE / "client.py")], warning


def tls_client() -> list[str]:
    """A Python one everywhere: OpenSSL does the work in it too, and need not be linked."""
    return [sys.executable, str(HERE / "client.py"), "--tls", str(CERTS / "ca.pem")]


def libuv_echo(tree: Path | None) -> Path:
    """The C echo server, on the libuv in `tree`, $VELOOP_LIBUV_SOURCE or vendor/libuv."""
    if sys.platform != "linux":
        raise Unavailable("the C reference server is only built on Linux")
    if tree is None:
        tree = Path(os.environ.get("VELOOP_LIBUV_SOURCE") or VENDORED)
    source, include = tree / "src", tree / "include"
    if not (include / "uv.h").is_file() or not (source / "unix").is_dir():
        raise Unavailable(f"no libuv sources in {tree} (--libuv FOLDER names others)")
    version = (include / "uv" / "version.h").read_text()
    files = [HERE / "libuv_echo.c", *sorted(source.glob("*.c"))]
    files += [source / "unix" / f"{name}.c" for name in LIBUV_UNIX.split()]
    flags = ["-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-fno-strict-aliasing", "-w"]
    return build("libuv_echo", files, [*flags, f"-I{include}", f"-I{source}"], version)


def libuv_version(tree: Path | None) -> str:
    tree = tree or Path(os.environ.get("VELOOP_LIBUV_SOURCE") or VENDORED)
    header = (tree / "include" / "uv" / "version.h").read_text()
    parts = re.findall(r"#define UV_VERSION_(?:MAJOR|MINOR|PATCH) +(\d+)", header)
    return f"C, libuv {'.'.join(parts)}"
