"""Compile veloop's C for other systems than this one, link it, and look at what comes out.

Each target is a wheel that the build backend makes as it always does, but with zig, which has the
headers and libraries of every system in it, as the compiler. The headers of Python are this
interpreter's, which within the limited API are the same everywhere but for pyconfig.h.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import binaries
import ziglang

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "cross"
ZIG = Path(ziglang.__file__).parent / ("zig.exe" if sys.platform == "win32" else "zig")


@dataclass(frozen=True)
class Target:
    """A system, as zig, our build and the wheel's name call it."""

    zig: str
    system: str
    wheel: str  # the platform tag
    machine: str
    glibc: tuple[int, ...] = ()
    macos: tuple[int, ...] = ()


TARGETS = {
    "windows-x86_64": Target("x86_64-windows-gnu", "windows", "win-amd64", "x86_64"),
    "windows-arm64": Target("aarch64-windows-gnu", "windows", "win-arm64", "arm64"),
    "macos-x86_64": Target(
        "x86_64-macos.11.0", "darwin", "macosx-11.0-x86_64", "x86_64", macos=(11, 0)
    ),
    "macos-arm64": Target(
        "aarch64-macos.11.0", "darwin", "macosx-11.0-arm64", "arm64", macos=(11, 0)
    ),
    "linux-x86_64": Target(
        "x86_64-linux-gnu.2.17", "linux", "manylinux_2_17_x86_64", "x86_64", glibc=(2, 17)
    ),
    "linux-aarch64": Target(
        "aarch64-linux-gnu.2.17", "linux", "manylinux_2_17_aarch64", "arm64", glibc=(2, 17)
    ),
    "musl-x86_64": Target("x86_64-linux-musl", "linux", "musllinux_1_2_x86_64", "x86_64"),
    "musl-aarch64": Target("aarch64-linux-musl", "linux", "musllinux_1_2_aarch64", "arm64"),
}
FORMATS = {"windows": "PE", "darwin": "MACHO", "linux": "ELF"}


def write_tool(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def python_library(target: Target, folder: Path) -> Path:
    """What a linker for Windows needs to know of python3.dll: the names in it."""
    functions, variables = binaries.stable_abi()
    lines = ["LIBRARY python3.dll", "EXPORTS", *sorted(functions)]
    lines += [f"{name} DATA" for name in sorted(variables)]
    definition = folder / "python3.def"
    definition.write_text("\n".join(lines) + "\n")
    library = folder / "python3.lib"
    machine = {"x86_64": "i386:x86-64", "arm64": "arm64"}[target.machine]
    command = [ZIG, "dlltool", "-m", machine, "-d", definition, "-D", "python3.dll", "-l", library]
    subprocess.run(command, check=True)
    return library


def environment(target: Target, folder: Path) -> dict[str, str]:
    """The variables under which the build makes the wheel of that target."""
    zig = shlex.quote(str(ZIG))
    cflags, ldflags = "", ""
    if target.system == "windows":
        # zig defines the version of Windows that it links for; ours is the same.
        cflags = f"-Wno-macro-redefined -include {shlex.quote(str(HERE / 'pyconfig-windows.h'))}"
        ldflags = shlex.quote(str(python_library(target, folder)))
    if target.system == "darwin":
        ldflags = "-Wl,-undefined,dynamic_lookup -Wl,-install_name,_cffi.abi3.so"
    # What this Python was built with is for this system: of it Windows refuses the first, and
    # the other two name folders of this system.
    cc = write_tool(
        folder / "cc",
        f"""for argument; do
    shift
    case $argument in
        -fPIC) {"continue" if target.system == "windows" else ""} ;;
        -L*|-Wl,-rpath*|-Wl,--rpath*) continue ;;
    esac
    set -- "$@" "$argument"
done
exec {zig} cc -target {target.zig} "$@"
""",
    )
    archiver = write_tool(folder / "ar", f'exec {zig} ar "$@"\n')
    return {
        **{k: v for k, v in os.environ.items() if k not in ("CPPFLAGS", "LDFLAGS")},
        "CC": str(cc),
        "AR": str(archiver),
        "CFLAGS": f"-g0 {cflags}",
        "LDSHARED": f"{cc} -shared -s {ldflags}",
        "VELOOP_ABI3": "1",
        "VELOOP_TARGET": target.system,
        "_PYTHON_HOST_PLATFORM": target.wheel,
    }


def build(name: str, output: Path, log: Path) -> Path | None:
    """The wheel of that target, or None, and then the log says why."""
    target = TARGETS[name]
    # Always the same, for the objects that are kept know their compiler by its path.
    tools = BUILD / f"tools-{name}"
    tools.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
        with log.open("w") as file:
            done = subprocess.run(
                command,
                env=environment(target, tools),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        if done.returncode:
            return None
        [wheel] = folder.glob("*.whl")
        shutil.copy(wheel, output)
        return output / wheel.name


def check(target: Target, wheel: Path) -> list[str]:
    """What is wrong with that wheel."""
    tag = target.wheel.replace("-", "_").replace(".", "_")
    if not wheel.stem.endswith(f"-abi3-{tag}"):
        return [f"{wheel.name} is for another platform than {tag}"]
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = [name for name in archive.namelist() if "/_cffi." in name]
        modules = [name for name in names if name.endswith((".so", ".pyd"))]
        expected = ".pyd" if target.system == "windows" else ".abi3.so"
        if [name.partition("/_cffi")[2] for name in modules] != [expected]:
            return [f"the modules in it are {modules}"]
        binary = binaries.read(Path(archive.extract(modules[0], folder)))
    found = binaries.problems(binary)
    if (binary.format, binary.machine) != (FORMATS[target.system], target.machine):
        found.append(f"is {binary.format} for {binary.machine}")
    if target.glibc and binary.glibc > target.glibc:
        found.append(f"needs glibc {binary.glibc}")
    if target.macos and binary.macos[:2] != target.macos:
        found.append(f"needs macOS {binary.macos}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/cross", description=__doc__.partition("\n")[0])
    parser.add_argument("target", nargs="*", help=f"default: all: {', '.join(TARGETS)}")
    parser.add_argument("--output", type=Path, default=BUILD, help="default: build/cross")
    options = parser.parse_args()
    for name in options.target:
        if name not in TARGETS:
            parser.error(f"no such target: {name}; there are {', '.join(TARGETS)}")
    options.output.mkdir(parents=True, exist_ok=True)
    rows, failed = [], False
    for name in options.target or TARGETS:
        target, log = TARGETS[name], options.output / f"{name}.log"
        began = time.monotonic()
        wheel = build(name, options.output, log)
        found = check(target, wheel) if wheel else []
        if wheel:
            rows.append((name, "yes", "no: " + found[0] if found else "yes", wheel.name))
        else:
            linked = "error: ld" in log.read_text() or "undefined symbol" in log.read_text()
            rows.append((name, "linking failed" if linked else "compiling failed", "-", log))
            print(*log.read_text().splitlines()[-30:], sep="\n", file=sys.stderr)
        for problem in found[1:]:
            rows.append(("", "", "no: " + problem, ""))
        failed = failed or not wheel or bool(found)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(f"{'target':16} {'compiled, linked':18} {'checked':10} wheel")
    for row in rows:
        print("{:16} {:18} {:10} {}".format(*map(str, row)))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
