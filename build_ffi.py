# SPDX-License-Identifier: MIT
"""Build backend: setuptools', plus the extension modules veloop._uv._cffi and veloop._speedups.

The first is made of three parts, compiled separately and linked together:

    libuv           vendor/libuv, put there by vendor/libuv/fetch.py; a static library
    our C           pkg/veloop/_uv/shim/*.c
    cffi's module   generated from pkg/veloop/_uv/decl/*.h and constants.cdef

The second, the accelerator, is pkg/veloop/_speedups/*.c. It is optional: for CPython only, and if
it cannot be compiled veloop works without it.

So there are two kinds of wheels. The usual one has both modules and is for one version of Python,
the one that built it. With VELOOP_ABI3=1 it has the first alone, within CPython's stable ABI, and
is for that version and every later one, also those that come out after it. Where an installer
finds both, the first one wins: its tag is the more special.

Object files are kept in build/objects under a name that holds the digest of everything they
depend on, so a second build compiles only what changed. Removing build/ is always safe.

Environment:

    CFLAGS, LDFLAGS, CC ...   as for any extension; CFLAGS come after our own flags
    VELOOP_LIBUV_SOURCE=PATH  take libuv from this folder or archive (see vendor/libuv)
    VELOOP_SYSTEM_LIBUV=1     link the system's libuv, found by pkg-config
    VELOOP_ABI3=1             build for this CPython and all later ones, without the accelerator
    VELOOP_TARGET=SYSTEM      compile for another system: linux, darwin, freebsd, windows. CC, AR
                              and LDSHARED must be for it, and VELOOP_ABI3 set (see ci/cross)
    VELOOP_SANITIZE=LIST      build with -fsanitize=LIST, for instance address,undefined
    VELOOP_FAULTS=1           build for the soak test: system calls can be made to fail (faults.c)
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cffi
import setuptools
from setuptools.build_meta import _BuildMetaBackend
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

from vendor.libuv import fetch, sbom

ROOT = Path(__file__).resolve().parent
# Relative paths go to the compiler, so that no build machine's folders get into debug
# information and messages. PEP 517 calls every hook in the project's folder.
LIBUV = Path("vendor/libuv")
UV = Path("pkg/veloop/_uv")
SPEEDUPS = Path("pkg/veloop/_speedups")
OBJECTS = Path("build/objects")

# The first that has the fix for CVE-2024-24806, host names cut short by getaddrinfo.
SYSTEM_LIBUV_MINIMUM = (1, 48)

# Wrong prototypes are errors, in our C and in what cffi generates.
STRICT = (
    "-Werror=implicit-function-declaration",
    "-Werror=incompatible-pointer-types",
    "-Werror=int-conversion",
)

# What goes into our source distribution besides what setuptools finds by itself.
SDIST_FILES = ("build_ffi.py", "CHANGELOG.md")
SDIST_FOLDERS = ("pkg", "vendor", "tests", "ci", "docs", "benchmarks", "examples")
SDIST_SKIP_FOLDERS = {"__pycache__", "build"}
SDIST_SKIP_SUFFIXES = {".egg-info", ".o", ".pyc", ".pyd", ".so"}

# Python.h is of one version and one ABI of Python.
PYTHON_ABI = f"{sys.hexversion:x} {sysconfig.get_config_var('EXT_SUFFIX')}"

SANITIZE = os.environ.get("VELOOP_SANITIZE", "")
FAULTS_HEADER = UV / "shim/faults.h"
FAULTS = os.environ.get("VELOOP_FAULTS", "0") not in ("", "0")
SYSTEM_LIBUV = os.environ.get("VELOOP_SYSTEM_LIBUV", "0") not in ("", "0")
ABI3 = os.environ.get("VELOOP_ABI3", "0") not in ("", "0")
SYSTEM = os.environ.get("VELOOP_TARGET") or (
    "windows" if sys.platform == "win32" else sys.platform.rstrip("0123456789")
)
# The GIL is what the accelerator relies on, and what the stable ABI has up to Python 3.14.
HAS_GIL = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")


def platform_table() -> dict[str, list[str]]:
    """The rows of vendor/libuv/sources.toml that apply to this platform, joined."""
    tables = tomllib.loads((LIBUV / "sources.toml").read_text("utf-8"))
    if SYSTEM not in tables["platforms"]:
        known = ", ".join(tables["platforms"])
        sys.exit(f"veloop has no libuv source table for {SYSTEM!r}, only for: {known}")
    joined: dict[str, list[str]] = {}
    for group in tables["platforms"][SYSTEM]:
        for key, values in tables[group].items():
            joined.setdefault(key, []).extend(values)
    return joined


def system_libuv() -> tuple[list[str], list[str]]:
    """Compiler and linker flags of the installed libuv."""
    pkg_config = os.environ.get("PKG_CONFIG", "pkg-config")

    def query(option: str) -> str:
        try:
            return subprocess.check_output([pkg_config, option, "libuv"], text=True).strip()
        except (OSError, subprocess.CalledProcessError) as exc:
            sys.exit(
                f"\nveloop: VELOOP_SYSTEM_LIBUV is set, but pkg-config finds no libuv: {exc}\n"
                f"Install its development files (libuv1-dev on Debian, libuv-devel on Fedora),"
                f" or unset the variable to build the bundled libuv."
            )

    version = query("--modversion")
    if tuple(map(int, version.split(".")[:2])) < SYSTEM_LIBUV_MINIMUM:
        minimum = ".".join(map(str, SYSTEM_LIBUV_MINIMUM))
        sys.exit(
            f"\nveloop: VELOOP_SYSTEM_LIBUV is set, but the installed libuv is {version};"
            f" veloop needs {minimum} or newer. Unset the variable to build the bundled"
            f" {fetch.PIN['version']}."
        )
    # The version is there to have the objects compiled anew when the library changes.
    cflags = [*shlex.split(query("--cflags")), f'-DVL_SYSTEM_LIBUV="{version}"']
    return cflags, shlex.split(query("--libs"))


def ensure_libuv() -> None:
    """Have libuv's sources in place, or leave with a message, for front ends show it whole."""
    try:
        fetch.ensure()
    except fetch.SourceError as exc:
        sys.exit(f"\nveloop: {exc}")


def sanitizer_flags() -> list[str]:
    if not SANITIZE:
        return []
    flags = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer"]
    if "undefined" in SANITIZE.split(","):
        flags.append("-fno-sanitize-recover=undefined")
    return flags


def defines(names: Iterable[str]) -> list[tuple[str, str | None]]:
    """Turn "A=1" and "B" into what distutils wants for macros."""
    return [(name, value or "1") for name, _, value in (item.partition("=") for item in names)]


def make_ffi() -> cffi.FFI:
    """An FFI with all declarations: types.h first, the other files in any order."""
    ffi = cffi.FFI()
    headers = sorted((UV / "decl").glob("*.h"), key=lambda p: (p.name != "types.h", p.name))
    for path in [*headers, UV / "decl/constants.cdef"]:
        # The line marker makes a parse error name the file and the line in it.
        ffi.cdef(f'# 1 "{path.as_posix()}"\n{path.read_text("utf-8")}')
    ffi.set_source("veloop._uv._cffi", '#include "shim.h"')
    return ffi


def extensions() -> list[setuptools.Extension]:
    found = [setuptools.Extension("veloop._uv._cffi", sources=[], py_limited_api=ABI3)]
    # It relies on the GIL, and on how CPython lays out objects with slots.
    if HAS_GIL and not ABI3:
        found.append(setuptools.Extension("veloop._speedups", sources=[], optional=True))
    return found


class BuildExt(build_ext):
    """Compiles the parts; linking is left to setuptools."""

    def run(self) -> None:
        # What to link may have changed although no file did, for instance VELOOP_SANITIZE.
        self.force = True
        super().run()

    def get_ext_filename(self, fullname: str) -> str:
        if SYSTEM == "windows" and sys.platform != "win32":
            return str(Path(*fullname.split(".")).with_suffix(".pyd"))
        return str(super().get_ext_filename(fullname))

    def build_extension(self, ext: setuptools.Extension) -> None:
        unix = self.compiler.compiler_type != "msvc"
        sanitize = sanitizer_flags()
        # Last on the command line, so they win over what Python itself was built with; and the
        # user's CFLAGS, which setuptools puts in front, must win over ours.
        common = ["/O2", "/std:c11"]
        if unix:
            common = ["-g", "-O1"] if sanitize else ["-O2"]
            # Python's own flags have NDEBUG; libuv is built with its assertions everywhere else.
            common += ["-UNDEBUG", "-fvisibility=hidden", *sanitize]
        if ext.name == "veloop._speedups":
            self.build_speedups(ext, common, sanitize, unix)
        else:
            self.build_cffi(ext, common, sanitize, unix)

    def build_speedups(
        self, ext: setuptools.Extension, common: list[str], sanitize: list[str], unix: bool
    ) -> None:
        headers = [*SPEEDUPS.glob("*.h"), UV / "shim/table.h", *(UV / "decl").glob("*.h")]
        objects = self.compile(
            sorted(SPEEDUPS.glob("*.c")),
            macros=[],
            include=[],
            flags=[
                *common,
                *(["-Wall", "-Wextra", *STRICT] if unix else []),
                *shlex.split(os.environ.get("CFLAGS", "")),
            ],
            depends=f"{digest_files(headers)} {PYTHON_ABI}",
        )
        self.link(ext, objects, sanitize)

    def build_cffi(
        self, ext: setuptools.Extension, common: list[str], sanitize: list[str], unix: bool
    ) -> None:
        table = platform_table()
        if FAULTS:
            # The state of the header, so that a change of it compiles everything anew.
            common += ["-D_GNU_SOURCE", f"-DVL_FAULTS=0x{digest_files([FAULTS_HEADER])[:8]}"]
        user = shlex.split(os.environ.get("CFLAGS", ""))
        public = defines(table.get("abi-defines", []))
        # Not decl/, where process.h and others have the names of system headers.
        include = [UV / "shim"]

        if SYSTEM_LIBUV:
            cflags, ext.extra_link_args = system_libuv()
            common += cflags
            libuv: list[Path] = []
        else:
            include.append(LIBUV / "include")
            # Empty instead of uv.h's visibility("default"): nothing of libuv is exported.
            public.append(("UV_EXTERN", ""))
            ext.libraries = table["libraries"]
            libuv = [self.build_libuv(table, public, [*common, *user], unix)]

        headers = [*(UV / "decl").glob("*.h"), *(UV / "shim").glob("*.h")]
        state = digest_files(headers) + fetch.PIN["tree-sha256"]
        shim = self.compile(
            sorted((UV / "shim").glob("*.c")),
            macros=public,
            include=include,
            flags=[
                *common,
                *(["-include", str(FAULTS_HEADER)] if FAULTS else []),
                *(["-Wall", "-Wextra", *STRICT] if unix else []),
                *user,
            ],
            depends=state,
        )
        generated = Path(self.build_temp, "_cffi.c")
        generated.parent.mkdir(parents=True, exist_ok=True)
        make_ffi().emit_c_code(str(generated))
        module = self.compile(
            [generated],
            macros=public,
            include=include,
            flags=[*common, *(STRICT if unix else []), *user],
            depends=f"{state} {PYTHON_ABI}",
        )
        self.link(ext, [*module, *shim, *libuv], sanitize)

    def link(self, ext: setuptools.Extension, objects: list[Path], sanitize: list[str]) -> None:
        ext.extra_objects = [str(path) for path in objects]
        ext.extra_link_args += sanitize
        if SYSTEM in ("linux", "freebsd"):
            ext.extra_link_args.append(f"-Wl,--version-script={UV / 'shim/exports.map'}")
        super().build_extension(ext)

    def build_libuv(
        self,
        table: dict[str, list[str]],
        public: list[tuple[str, str | None]],
        flags: list[str],
        unix: bool,
    ) -> Path:
        """Compile libuv as a static library and return its path."""
        flags = ["-fno-strict-aliasing", *flags] if unix else flags
        depends = fetch.PIN["tree-sha256"]
        # Ours, where there is something in libuv that has to be redirected. It must not include
        # other headers of ours, or a change in those would be missed here.
        port = UV / "shim/port.h"
        if port.exists():
            depends += digest_files([port])
            # msvc spells it /FIpath, in one word
            flags = [*flags, "-include", str(port)] if unix else [*flags, f"/FI{port}"]
        if FAULTS:  # behind port.h, which redirects some of the same calls
            flags = [*flags, "-include", str(FAULTS_HEADER)]
        objects = self.compile(
            [LIBUV / source for source in table["sources"]],
            macros=[*public, *defines(table["defines"])],
            include=[LIBUV / "include", LIBUV / "src"],
            flags=flags,
            depends=depends,
        )
        name = "uv-" + digest(*map(str, objects))
        library = Path(OBJECTS, self.compiler.library_filename(name))
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=OBJECTS) as folder:
                self.compiler.create_static_lib([str(o) for o in objects], name, folder)
                os.replace(Path(folder, library.name), library)
        return library

    def compile(
        self,
        sources: list[Path],
        *,
        macros: list[tuple[str, str | None]],
        include: list[Path],
        flags: list[str],
        depends: str,
    ) -> list[Path]:
        """Compile what is not in build/objects yet, in parallel; return the object files."""
        compiler = self.compiler
        if getattr(compiler, "initialized", True) is False:
            compiler.initialize()  # msvc does this lazily, and not thread-safely
        command = repr([compiler.compiler_type, getattr(compiler, "compiler_so", None)])
        settings = digest(command, self.plat_name, repr((macros, include, flags)), depends)
        OBJECTS.mkdir(parents=True, exist_ok=True)

        def one(source: Path) -> Path:
            key = digest(settings, source.name, digest_files([source]))
            target = OBJECTS / f"{source.stem}-{key}{compiler.obj_extension}"
            if target.exists():
                return target
            # A folder of its own, and a rename at the end: an interrupted or concurrent build
            # never leaves half an object file under the final name.
            with tempfile.TemporaryDirectory(dir=OBJECTS) as folder:
                [made] = compiler.compile(
                    [str(source)],
                    output_dir=folder,
                    macros=macros,
                    include_dirs=[str(path) for path in include],
                    extra_postargs=flags,
                )
                os.replace(made, target)
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(one, sources))


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]


def digest_files(paths: Iterable[Path]) -> str:
    return digest(*(f"{path.name}\0{path.read_text('utf-8')}" for path in sorted(paths)))


class BuildPy(build_py):
    """Starts from an empty folder, or modules deleted since the last build get into the wheel."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BdistWheel(bdist_wheel):
    """Puts a bill of materials beside the metadata, of what is in the wheel and not ours."""

    def initialize_options(self) -> None:
        super().initialize_options()
        if ABI3:
            self.py_limited_api = "cp{}{}".format(*sys.version_info)

    def egg2dist(self, egginfo_path: str, distinfo_path: str) -> None:
        super().egg2dist(egginfo_path, distinfo_path)
        if not SYSTEM_LIBUV:
            sbom.write(Path(distinfo_path), self.distribution.get_version())


class Sdist(sdist):
    """Adds what no MANIFEST.in is needed for: whole folders, libuv's sources among them."""

    def make_distribution(self) -> None:
        ensure_libuv()  # even if this build is to use the system's

        def skip(name: str) -> bool:
            hidden = name.startswith(".") or name in SDIST_SKIP_FOLDERS
            return hidden or Path(name).suffix in SDIST_SKIP_SUFFIXES

        files = [Path(name) for name in SDIST_FILES]
        for folder in SDIST_FOLDERS:
            for path in Path(folder).rglob("*"):
                if path.is_file() and not any(map(skip, path.parts)):
                    files.append(path)
        self.filelist.extend([str(path) for path in files])
        self.filelist.sort()
        self.filelist.remove_duplicates()
        super().make_distribution()


class Backend(_BuildMetaBackend):
    """setuptools' backend, with this file in the place of setup.py."""

    def run_setup(self, setup_script: str = "setup.py") -> None:
        if int(setuptools.__version__.partition(".")[0]) < 77:
            # pip checks this only when it makes the build's environment itself
            sys.exit(f"\nveloop: setuptools 77 or newer is needed, not {setuptools.__version__}")
        # Before any hook, for libuv's licence is part of our metadata; also, a message at this
        # point is not lost among the compiler's.
        if os.environ.get("VELOOP_TARGET") and not ABI3:
            sys.exit("\nveloop: VELOOP_TARGET is set, but VELOOP_ABI3 is not")
        if ABI3 and not HAS_GIL:
            sys.exit("\nveloop: VELOOP_ABI3 is set, but only CPython with the GIL has that ABI")
        if SYSTEM_LIBUV:
            system_libuv()
        else:
            ensure_libuv()
        setuptools.setup(
            ext_modules=extensions(),
            cmdclass={
                "bdist_wheel": BdistWheel,
                "build_ext": BuildExt,
                "build_py": BuildPy,
                "sdist": Sdist,
            },
        )


_backend = Backend()
get_requires_for_build_wheel = _backend.get_requires_for_build_wheel
get_requires_for_build_sdist = _backend.get_requires_for_build_sdist
get_requires_for_build_editable = _backend.get_requires_for_build_editable
prepare_metadata_for_build_wheel = _backend.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = _backend.prepare_metadata_for_build_editable
build_wheel = _backend.build_wheel
build_sdist = _backend.build_sdist
build_editable = _backend.build_editable
