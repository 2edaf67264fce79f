"""What is in an extension module of any system: its machine, its symbols, its libraries."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import lief
from abi3info import DATAS, FUNCTIONS

lief.logging.disable()  # it complains of what zig leaves out of files for macOS

# The oldest Python that a stable-ABI wheel is for.
OLDEST = (3, 11)

# What zig's linker exports of every library for macOS.
OF_THE_LINKER = {"__dso_handle", "_dso_handle", "_mh_dylib_header"}

# Libraries that every system of the kind has, by the beginnings of their names.
SYSTEM_LIBRARIES = {
    "ELF": ("libc.", "libpthread.", "libdl.", "librt.", "libm.", "ld-linux", "libthr."),
    "MACHO": ("/usr/lib/libSystem.",),
    "PE": (
        *("api-ms-win-crt-", "kernel32.", "ntdll.", "advapi32.", "dbghelp.", "iphlpapi."),
        *(
            "libpypy3",
            "ole32.",
            "psapi.",
            "shell32.",
            "user32.",
            "userenv.",
            "ws2_32.",
            "python3",
            "vcruntime140.",
        ),
    ),
}


@dataclass
class Binary:
    """An extension module, as its headers tell."""

    format: str  # ELF, MACHO, PE
    machine: str  # x86_64, arm64
    exported: set[str] = field(default_factory=set)
    undefined: set[str] = field(default_factory=set)
    libraries: set[str] = field(default_factory=set)
    glibc: tuple[int, ...] = ()  # the newest version of it that a symbol is of
    macos: tuple[int, ...] = ()  # the oldest that it is for
    signed: bool = False

    @property
    def python(self) -> set[str]:
        """The symbols that it takes from the interpreter."""
        return {name for name in self.undefined if re.match(r"_?Py[A-Z_]|Py_", name)}


def read(path: Path) -> Binary:
    """Parse a file; ValueError if it is none of the formats."""
    binary = lief.parse(str(path))
    match binary:
        case lief.ELF.Binary():
            return read_elf(binary)
        case lief.MachO.Binary():
            return read_macho(binary)
        case lief.PE.Binary():
            return read_pe(binary)
    raise ValueError(f"{path}: no ELF, Mach-O or PE file")


def read_elf(binary: "lief.ELF.Binary") -> Binary:
    machines = {"X86_64": "x86_64", "AARCH64": "arm64"}
    machine = binary.header.machine_type.name
    versions = {
        tuple(map(int, found[1].split(".")))
        for requirement in binary.symbols_version_requirement
        for each in requirement.get_auxiliary_symbols()
        if (found := re.fullmatch(r"GLIBC_([\d.]+)", each.name))
    }
    return Binary(
        "ELF",
        machines.get(machine, machine),
        {str(each.name) for each in binary.exported_symbols if each.name},
        # Not imported_symbols: it leaves out those whose type the linker did not know.
        {str(each.name) for each in binary.dynamic_symbols if each.name and each.shndx == 0},
        set(map(str, binary.libraries)),
        glibc=max(versions, default=()),
    )


def read_macho(binary: "lief.MachO.Binary") -> Binary:
    machines = {"X86_64": "x86_64", "ARM64": "arm64"}
    machine = binary.header.cpu_type.name
    oldest: tuple[int, ...] = ()
    if binary.build_version is not None:
        oldest = tuple(binary.build_version.minos)
    elif binary.version_min is not None:
        oldest = tuple(binary.version_min.version)

    def names(symbols):
        return {str(each.name).removeprefix("_") for each in symbols}

    own_name = lief.MachO.LoadCommand.TYPE.ID_DYLIB
    return Binary(
        "MACHO",
        machines.get(machine, machine),
        names(binary.exported_symbols) - OF_THE_LINKER,
        names(binary.imported_symbols),
        {str(each.name) for each in binary.libraries if each.command != own_name},
        macos=oldest,
        signed=binary.has_code_signature,
    )


def read_pe(binary: "lief.PE.Binary") -> Binary:
    machines = {"AMD64": "x86_64", "ARM64": "arm64"}
    machine = binary.header.machine.name
    exported = binary.get_export().entries if binary.has_exports else []
    return Binary(
        "PE",
        machines.get(machine, machine),
        {str(each.name) for each in exported},
        {str(entry.name) for library in binary.imports for entry in library.entries},
        {library.name.lower() for library in binary.imports},
    )


def stable_abi(version: tuple[int, int] = OLDEST) -> tuple[set[str], set[str]]:
    """The functions and the variables of the stable ABI of that Python."""

    def names(table):
        return {
            symbol.name
            for symbol, entry in table.items()
            if (entry.added.major, entry.added.minor) <= version
        }

    return names(FUNCTIONS), names(DATAS)


def problems(binary: Binary, *, module: str = "_cffi", abi3: bool = True) -> list[str]:
    """What an extension module of ours must not be or have."""
    found = []
    entry = re.compile(rf"(PyInit_|PyModExport_|_cffi_pypyinit_){module}")
    if others := sorted(name for name in binary.exported if not entry.fullmatch(name)):
        found.append(f"exports {', '.join(others[:5])}")
    if len(others) == len(binary.exported):
        found.append("does not export its entry point")
    if abi3 and not binary.python:
        found.append("uses nothing of Python")
    functions, variables = stable_abi()
    if abi3 and (foreign := sorted(binary.python - functions - variables)):
        found.append(f"not in the stable ABI of 3.11: {', '.join(foreign[:5])}")
    if ours := sorted(name for name in binary.undefined if re.match(r"uv_|uv__|vl_|vs_", name)):
        found.append(f"undefined: {', '.join(ours[:5])}")
    if (binary.format, binary.machine) == ("MACHO", "arm64") and not binary.signed:
        found.append("is not signed, as the system demands")
    allowed = SYSTEM_LIBRARIES[binary.format]
    for library in sorted(binary.libraries):
        if not library.startswith(allowed):
            found.append(f"needs {library}")
    return found
