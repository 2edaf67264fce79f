"""Child processes: one that is talked to through pipes, and many at the same time.

python examples/subprocesses.py
"""

import sys

import veloop as asyncio

UPPER = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
SQUARE = "import sys; print(int(sys.argv[1]) ** 2)"


async def conversation():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", UPPER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    for line in (b"one\n", b"two\n"):
        process.stdin.write(line)
        print((await process.stdout.readline()).decode(), end="")
    process.stdin.close()
    print("exit status", await process.wait())


async def square(number):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SQUARE, str(number), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return int(output)


async def main():
    await conversation()
    print(*await asyncio.gather(*(square(number) for number in range(5))))
    shell = await asyncio.create_subprocess_shell("exit 3")
    print("the shell said", await shell.wait())


asyncio.run(main())
