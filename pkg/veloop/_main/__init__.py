"""What `python -m veloop` does: run a program on veloop, or the demonstration.

program.py    run a script, module, command or stdin as `python` runs it
takeover.py   asyncio's own loop classes make veloop's loops
demo.py       TCP echo on veloop and on asyncio, side by side
"""
