# SPDX-License-Identifier: MIT
"""Put libuv's sources into this folder, from the first place that has them.

Called by build_ffi.py before every build, and by hand with `python -m vendor.libuv.fetch`.
Whatever the place, the tree must have the digest recorded in pin.toml; a tree that has another
one stops the build, because falling through to the next place would hide it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PIN: dict[str, Any] = tomllib.loads((HERE / "pin.toml").read_text("utf-8"))

# Of the upstream tree only this is kept: the code, its licence, and what ci/vendor reads.
WANTED = ("src", "include", "LICENSE", "LICENSE-extra", "CMakeLists.txt")

SOURCE_VARIABLE = "VELOOP_LIBUV_SOURCE"


class SourceError(Exception):
    """libuv's sources are missing or are not the pinned ones. The text is for the user."""


def tree_digest(tree: Path) -> str:
    """The canonical digest of a libuv tree: sha256 of the `sha256sum` listing of its files."""
    files = [p for top in ("src", "include") for p in (tree / top).rglob("*") if p.is_file()]
    names = {p.relative_to(tree).as_posix(): p for p in files}
    listing = "".join(
        f"{hashlib.sha256(names[name].read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(names, key=str.encode)
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def verify(tree: Path, origin: str) -> None:
    """Raise SourceError unless `tree` is the pinned libuv."""
    found = tree_digest(tree)
    if found != PIN["tree-sha256"]:
        raise SourceError(
            f"the libuv sources from {origin} are not those of libuv"
            f" {PIN['version']} as pinned in vendor/libuv/pin.toml\n"
            f"  expected digest  {PIN['tree-sha256']}\n"
            f"  found digest     {found}\n"
            + ("Remove vendor/libuv/src to have it fetched again." if tree == HERE else "")
        )


def present() -> bool:
    """Whether a complete tree, right or wrong, is in this folder already."""
    return all((HERE / name).exists() for name in WANTED)


def ensure() -> None:
    """Have the pinned sources in this folder, or raise SourceError."""
    if present():
        return verify(HERE, "vendor/libuv")
    reasons = []
    # Inside this folder, so that the last step is a rename on one file system.
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=HERE) as name:
        temporary = Path(name)
        if source := os.environ.get(SOURCE_VARIABLE):
            return install(from_path(Path(source), temporary), f"{SOURCE_VARIABLE}={source}")
        reasons.append(f"{SOURCE_VARIABLE} is not set")
        for step in (from_release, from_sdist):
            try:
                tree, origin = step(temporary)
            except SourceError as exc:
                reasons.append(str(exc))
            else:
                return install(tree, origin)
    raise SourceError(
        f"libuv {PIN['version']} is needed to build veloop, and no copy was found:\n"
        + "".join(f"  - {reason}\n" for reason in reasons)
        + f"Any of these will do:\n"
        f"  - {SOURCE_VARIABLE}=PATH, a folder or archive with libuv {PIN['version']}, or an\n"
        f"    archive that contains it, such as the source distribution of"
        f" {PIN['sdist-name']} {PIN['sdist-version']}\n"
        f"  - a connection to the package index, from which pip downloads that distribution\n"
        f"  - veloop's own source distribution, which contains libuv\n"
        f"  - VELOOP_SYSTEM_LIBUV=1, to link the libuv that is installed on this system"
    )


def install(tree: Path, origin: str) -> None:
    """Move the wanted part of a verified tree into this folder."""
    verify(tree, origin)
    if missing := [name for name in WANTED if not (tree / name).exists()]:
        raise SourceError(f"the libuv sources from {origin} lack {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=HERE) as staging:
        for name in WANTED:
            copy = shutil.copytree if (tree / name).is_dir() else shutil.copyfile
            copy(tree / name, Path(staging, name))
        for name in WANTED:
            if (HERE / name).is_dir():
                shutil.rmtree(HERE / name)
            os.replace(Path(staging, name), HERE / name)


def from_path(path: Path, temporary: Path) -> Path:
    """The libuv tree in a folder or archive that the user names."""
    if not path.exists():
        raise SourceError(f"{SOURCE_VARIABLE}={path}: no such file or folder")
    return find_tree(path if path.is_dir() else unpack(path, temporary), str(path))


def from_release(temporary: Path) -> tuple[Path, str]:
    """The archive attached to a release of veloop."""
    url = PIN["archive-url"]
    if not url:
        raise SourceError("no release archive of veloop's is recorded in the pin")
    archive = temporary / url.rpartition("/")[2]
    try:
        with urllib.request.urlopen(url, timeout=10) as answer, archive.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as exc:
        raise SourceError(f"{url}: {exc}") from exc
    return find_tree(unpack(archive, temporary), url), url


# pip insists on asking a source distribution's build backend for its metadata, even when it is
# only to be saved. This stands in for the real backend, so that no foreign code runs, nothing
# has to be installed for it, and it works on Windows, where uvloop's own setup refuses to run.
STAND_IN = """\
import pathlib

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "{name}-{version}.dist-info")
    info.mkdir()
    text = "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    (info / "METADATA").write_text(text)
    return info.name
"""


def from_sdist(temporary: Path) -> tuple[Path, str]:
    """The tree inside another project's source distribution, downloaded by pip."""
    name, version = PIN["sdist-name"], PIN["sdist-version"]
    backend = temporary / "stand-in" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(STAND_IN.format(name=name, version=version))
    folder = temporary / "download"
    # An isolated build hands its packages, pip among them, down by PYTHONPATH: keep what is there.
    path = os.pathsep.join(filter(None, [str(backend.parent), os.environ.get("PYTHONPATH")]))
    # The pip that builds us tells our backend's place to whatever runs below it by variables.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("_PYPROJECT_HOOKS_")}
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
    command += ["--retries", "1", "--no-binary", name, "--dest", str(folder), f"{name}=={version}"]
    pip = subprocess.run(
        command,
        env={**environment, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    archives = sorted(folder.glob("*")) if folder.is_dir() else []
    if pip.returncode or not archives:
        lines = pip.stdout.strip().splitlines()
        error = next((line for line in lines if line.startswith("ERROR: ")), (lines or ["?"])[-1])
        raise SourceError(f"pip cannot download {name} {version}: {error.removeprefix('ERROR: ')}")
    origin = f"the source distribution of {name} {version}"
    return find_tree(unpack(archives[0], temporary), origin), origin


def unpack(archive: Path, temporary: Path) -> Path:
    """Extract a tar or zip archive and return the folder."""
    folder = temporary / "unpacked"
    folder.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                bundle.extractall(folder)
        else:
            with tarfile.open(archive) as tar:
                # Refuses names outside the folder, and devices; Python has it since 3.11.4.
                tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
                tar.extractall(folder)
    except (OSError, tarfile.TarError) as exc:
        raise SourceError(f"{archive}: cannot be unpacked: {exc}") from exc
    return folder


def find_tree(folder: Path, origin: str) -> Path:
    """The folder nearest to the top that looks like libuv's."""
    roots = [p.parent.parent for p in folder.rglob("uv-common.c") if p.parent.name == "src"]
    if not roots:
        raise SourceError(f"{origin}: there is no libuv in it")
    return min(roots, key=lambda p: (len(p.parts), p))


if __name__ == "__main__":
    try:
        ensure()
    except SourceError as exc:
        sys.exit(str(exc))
    print(f"libuv {PIN['version']} is in {HERE}")
