"""Build the source distribution and the wheels for this machine's Pythons, and look into each.

The wheels are built from the source distribution, with no network: it contains all that it takes.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import binaries
import interpreters
from interpreters import Python

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
from vendor.libuv import fetch, sbom  # noqa: E402

BUILD = ROOT / "build" / "wheels"
REQUIREMENTS = ["setuptools>=77", "cffi>=1.17", "pip"]
TEST_REQUIREMENTS = [
    *("pytest>=8", "pytest-timeout>=2.3"),
    "hypothesis>=6.100; platform_python_implementation != 'PyPy'",
    "hypothesis>=6.100,<6.155; platform_python_implementation == 'PyPy'",  # as in pyproject.toml
]
LIBUV_NOTICES = ("vendor/libuv/LICENSE", "vendor/libuv/LICENSE-extra")
# Some of everything that is compiled, in a minute.
SHORT = [
    *("api", "loop_run", "timers", "wakeup", "poll", "dns", "sockets", "tcp", "stream"),
    *("unix", "udp", "pipe", "process", "signals", "streams", "tls", "fork", "speedups"),
]


class Failure(Exception):
    """Something that was built is not as it must be."""


def run(*command: object, **options) -> str:
    """Run it, or raise Failure with what it printed."""
    done = subprocess.run(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **{"env": interpreters.clean(), **options},
    )
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def without_network() -> list[str]:
    """What to put in front of a command that shall have loopback only; empty if we cannot."""
    prefix = ["unshare", "-n"] if hasattr(os, "getuid") and os.getuid() == 0 else ["unshare", "-rn"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [*prefix, "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$@"', "sh"]


# ------------------------------------------------------------ building


def build_sdist(output: Path) -> Path:
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", output, ROOT)
    [made] = output.glob("*.tar.gz")
    return made


def build_wheel(python: Python, sdist: Path, output: Path, *, abi3: bool) -> Path:
    """A wheel, built with no network."""
    inside = interpreters.environment(python, BUILD / f"build-{python.name}")
    run(inside, "-m", "pip", "install", "--quiet", *REQUIREMENTS)
    with tempfile.TemporaryDirectory() as folder:
        command = [*without_network(), inside, "-m", "pip", "wheel", "--no-build-isolation"]
        command += ["--no-index", "--no-deps", "--no-cache-dir", "--wheel-dir", folder, sdist]
        run(*command, env={**interpreters.clean(), "VELOOP_ABI3": str(int(abi3))})
        [made] = Path(folder).glob("*.whl")
        return Path(shutil.move(made, output / made.name))


# ------------------------------------------------------------ checks


def check_sdist(sdist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", sdist)
    with tarfile.open(sdist) as archive, tempfile.TemporaryDirectory() as name:
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(name)
        [tree] = Path(name).iterdir()
        fetch.verify(tree / "vendor/libuv", sdist.name)
        for each in (
            "LICENSE",
            "CHANGELOG.md",
            "vendor/libuv/LICENSE",
            "vendor/libuv/LICENSE-extra",
        ):
            if not (tree / each).exists():
                raise Failure(f"{sdist.name} lacks {each}")
        built = [p for p in tree.rglob("*") if p.suffix in {".so", ".pyd", ".o", ".pyc"}]
        if built:
            raise Failure(f"{sdist.name} has {built[0].relative_to(tree)}")


def check_wheel(wheel: Path) -> None:
    """Everything that can be seen without installing it."""
    run(sys.executable, "-m", "twine", "check", "--strict", wheel)
    run(sys.executable, "-m", "check_wheel_contents", wheel)
    abi3 = "-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = set(archive.namelist())
        info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
        for each in ("LICENSE", *LIBUV_NOTICES):
            if f"{info}/licenses/{each}" not in names:
                raise Failure(f"{wheel.name} lacks the licence file {each}")
        check_bill(wheel, json.loads(archive.read(f"{info}/sboms/{sbom.NAME}")))
        strangers = [n for n in names if not n.startswith(("veloop/", info))]
        strangers += [n for n in names if n.endswith((".c", ".h", ".cdef", ".map", ".o"))]
        if strangers:
            raise Failure(f"{wheel.name} has {strangers[0]}")
        check_modules(wheel, archive, Path(folder), abi3)
    if abi3:
        run(sys.executable, "-m", "abi3audit", "--strict", wheel)


def check_all(folder: Path) -> int:
    """Check the wheels that somebody else has built."""
    failed = False
    for wheel in sorted(folder.glob("*.whl")):
        try:
            check_wheel(wheel)
            print(f"{wheel.name}: checked")
        except Failure as exc:
            failed = True
            print(f"{wheel.name}: FAILED: {str(exc)[-4000:]}")
    return int(failed or not any(folder.glob("*.whl")))


def check_modules(wheel: Path, archive: zipfile.ZipFile, folder: Path, abi3: bool) -> None:
    """The extension modules are those that they should be, and export nothing else."""
    modules = {}
    for name in archive.namelist():
        if found := re.search(r"/(\w+)\.[\w.-]*?(so|pyd)$", name):
            modules[found[1]] = name
    with_gil = re.search(r"-cp\d+-cp\d+-", wheel.name)
    expected = {"_cffi", "_speedups"} if with_gil else {"_cffi"}
    if set(modules) != expected:
        raise Failure(f"{wheel.name} has the modules {sorted(modules)}, not {sorted(expected)}")
    if abi3 and not modules["_cffi"].endswith(("/_cffi.abi3.so", "/_cffi.pyd")):
        raise Failure(f"{wheel.name} has {modules['_cffi']}")
    for module, name in modules.items():
        binary = binaries.read(Path(archive.extract(name, folder)))
        for problem in binaries.problems(binary, module=module, abi3=abi3):
            raise Failure(f"{wheel.name}: {name} {problem}")


def check_bill(wheel: Path, bill: dict) -> None:
    libuv = fetch.PIN["version"]
    [part] = bill["components"]
    told = (bill["bomFormat"], part["name"], part["version"], part["purl"])
    if told != ("CycloneDX", "libuv", libuv, f"pkg:github/libuv/libuv@v{libuv}"):
        raise Failure(f"{wheel.name}: the bill of materials says {told}")


def platform_of(wheel: Path) -> str:
    """The oldest manylinux that the wheel would do for, as auditwheel sees it."""
    if sys.platform != "linux":
        return wheel.stem.rpartition("-")[2]
    text = " ".join(run(sys.executable, "-m", "auditwheel", "show", wheel).split())
    found = re.search(r'(?:platform tag|constrains the platform tag to): "([\w.]+)"', text)
    return found[1] if found else "?"


def check_preference(pythons: list[Python], output: Path, wheels: list[Path]) -> None:
    """pip takes the wheel for the very Python where there is one, else that of the stable ABI."""
    version = wheels[0].name.split("-")[1]

    def choice(*options: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--no-index", "--only-binary", ":all:", "--find-links", output]
            run(*command, "--dest", folder, *options, f"veloop=={version}")
            [made] = os.listdir(folder)
            return made

    def options_of(minor: int) -> list[str]:
        platform = wheels[0].stem.rpartition("-")[2]
        abis = [f"--abi=cp3{minor}", "--abi=abi3", "--abi=none"]
        return [
            "--python-version",
            f"3.{minor}",
            "--implementation=cp",
            *abis,
            "--platform",
            platform,
        ]

    for python in pythons:
        if python.is_stable_abi and (chosen := choice(*options_of(python.version[1]))):
            if f"-{python.tag}-" not in chosen:
                raise Failure(f"for {python.name} pip takes {chosen}")
    newer = pythons[-1].version[1] + 5
    if "-abi3-" not in (chosen := choice(*options_of(newer))):
        raise Failure(f"for a Python 3.{newer} pip takes {chosen}")


# ------------------------------------------------------------ tests


def run_tests(python: Python, wheel: Path, sdist: Path, arguments: list[str]) -> str:
    """The tests of the source distribution on the installed wheel, far from the checkout."""
    kind = "abi3" if "-abi3-" in wheel.name else "own"
    inside = interpreters.environment(python, BUILD / f"test-{kind}-{python.name}")
    run(inside, "-m", "pip", "install", "--quiet", wheel, *TEST_REQUIREMENTS)
    with tempfile.TemporaryDirectory() as name, tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(name)
        [tree] = Path(name).iterdir()
        where = run(inside, "-c", "import veloop; print(veloop.__file__)", cwd=tree)
        if not where.startswith(str(BUILD)):
            raise Failure(f"the tests would run on {where}")
        log = BUILD / f"test-{kind}-{python.name}.log"
        try:
            output = run(inside, "-m", "pytest", "-q", *arguments, cwd=tree)
        except Failure as exc:
            log.write_text(str(exc))
            failures = re.findall(r"^(?:FAILED|ERROR) .*$", str(exc), re.M)
            raise Failure("\n".join([*failures, last_line(str(exc)), f"see {log}"])) from None
        return last_line(output)


def last_line(output: str) -> str:
    return output.strip().rpartition("\n")[2].strip("= ")


def short_selection() -> list[str]:
    return [f"tests/test_{area}.py" for area in SHORT]


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/wheels", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--python", action="append", default=[], help="an interpreter (repeatable); default: all")
    add("--also", action="append", default=[], help="one more, for the stable ABI's wheel only")
    add("--output", type=Path, default=BUILD / "dist", help="default: build/wheels/dist")
    add("--tests", choices=("none", "short", "all"), default="short", help="default: short")
    add("--check-only", type=Path, metavar="FOLDER", help="build nothing; check the wheels there")
    options = parser.parse_args()
    if options.check_only:
        return check_all(options.check_only)
    pythons = interpreters.find(options.python, only_given=bool(options.python))
    also = interpreters.find(options.also, only_given=True) if options.also else []
    stable = [python for python in pythons if python.is_stable_abi]
    if not stable:
        parser.error("none of the interpreters has the stable ABI")
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)

    fetch.ensure()
    sdist = build_sdist(options.output)
    check_sdist(sdist)
    print(f"{sdist.name}: checked", flush=True)
    if not without_network():
        print("the network cannot be cut off here: unshare -n does not work")

    oldest, newest = stable[0], (also or stable)[-1]
    jobs = [(oldest, True, [oldest, newest])] + [(each, False, [each]) for each in pythons]
    wheels, failed = [], False
    for python, abi3, testers in jobs:
        kind = "stable ABI" if abi3 else python.name
        try:
            wheel = build_wheel(python, sdist, options.output, abi3=abi3)
            wheels.append(wheel)
            check_wheel(wheel)
            size = f"{wheel.stat().st_size / 1024:.0f} KiB"
            print(f"{wheel.name}: checked; {size}, would do for {platform_of(wheel)}", flush=True)
            if options.tests == "none":
                continue
            for tester in dict.fromkeys(testers):
                arguments = short_selection() if options.tests == "short" else []
                told = run_tests(tester, wheel, sdist, arguments)
                print(f"    {kind} on {tester.name}: {told}", flush=True)
        except (Failure, subprocess.CalledProcessError) as exc:
            failed = True
            print(f"{kind}: FAILED: {str(exc)[-4000:]}", flush=True)
    try:
        check_preference(stable, options.output, wheels)
        print("pip prefers the wheel for its own version to that for all")
    except Failure as exc:
        failed = True
        print(f"FAILED: {exc}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
