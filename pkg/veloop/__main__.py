"""The command line: python -m veloop."""

from __future__ import annotations

import platform
import sys

from . import __version__, accelerated, libuv_version

USAGE = """\
usage: python -m veloop SCRIPT [ARGUMENT ...]
       python -m veloop -m MODULE [ARGUMENT ...]
       python -m veloop -c CODE [ARGUMENT ...]
       python -m veloop --demo | --version | --help
"""

HELP = """
Runs an asyncio program, unchanged, on veloop's event loop. Whenever the program makes one of
asyncio's own loops, by asyncio.run() or in any other way, it gets one of veloop's; so do its
multiprocessing children. A loop of another package that it asks for by name it gets: uvicorn
prefers uvloop where that is installed, unless it is told `--loop asyncio`.

  SCRIPT         a file, or a folder or zip archive with a __main__.py; "-" reads it from stdin
  -m MODULE      a module or package, as `python -m` finds it
  -c CODE        a program given as text

  --demo         TCP echo on veloop and on asyncio, side by side; takes some seconds
  --version, -V  versions of veloop, libuv and Python, and whether the accelerator is in use
  --help, -h     this text

Options of Python itself come before `-m veloop`: python -X dev -m veloop SCRIPT
"""

# Only alone on the command line.
ALONE = {
    "--demo": "--demo",
    "--help": "--help",
    "-h": "--help",
    "--version": "--version",
    "-V": "--version",
}


def main(args: list[str]) -> int:
    """Do what the command line says; a program's own exit goes through as an exception."""
    if not args:
        return bad_usage("nothing to run")
    first, rest = args[0], args[1:]
    if first in ALONE:
        if rest:
            return bad_usage(f"{first} takes no argument, got {rest[0]!r}")
        return alone(ALONE[first])
    if first[:2] in ("-m", "-c"):
        option, what = first[:2], first[2:]
        if not what:
            if not rest:
                return bad_usage(f"argument expected for the {option} option")
            what, rest = rest[0], rest[1:]
        run(option, what, rest)
    elif first.startswith("-") and first != "-":
        return bad_usage(f"unknown option {first!r}; options of Python go before `-m veloop`")
    else:
        run("", first, rest)
    return 0


def run(option: str, what: str, args: list[str]) -> None:
    """Run a program, with asyncio's loops replaced by ours."""
    from ._main import program, takeover

    takeover.use_veloop()
    if option == "-m":
        program.run_module(what, args)
    elif option == "-c":
        program.run_command(what, args)
    elif what == "-":
        program.run_stdin(args)
    else:
        program.run_script(what, args)


def alone(option: str) -> int:
    """--demo, --version or --help; return the exit status."""
    if option == "--demo":
        from ._main import demo

        print(version())
        return demo.main()
    print(USAGE + HELP if option == "--help" else version(), end="")
    return 0


def version() -> str:
    """What --version prints."""
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    rows = {
        "veloop": __version__,
        "libuv": libuv_version,
        "Python": python,
        "accelerator": "yes" if accelerated else "no",
    }
    return "".join(f"{name:12} {value}\n" for name, value in rows.items())


def bad_usage(message: str) -> int:
    """Say what is wrong with the command line; return the exit status."""
    print(f"{USAGE}python -m veloop: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status:  # no SystemExit without need: `python -i` would show it
        sys.exit(status)
