"""The servers that are measured: one program for every Python loop.

python benchmarks/servers.py LOOP KIND [--lifetime SECONDS]   prints "port N" or "path P", serves
python benchmarks/servers.py LOOP --probe                     can this loop be made here?
"""

from __future__ import annotations

import argparse
import json
import signal

from bench.loops import LOOPS, describe, factory, module
from programs import Aio, Kind, echo, http, tls

KINDS: dict[str, Kind] = {**echo.KINDS, **tls.KINDS, **http.KINDS}


async def serve(aio: Aio, kind: str) -> None:
    try:
        word, address, kept = await KINDS[kind](aio)
    except NotImplementedError as error:
        print("unsupported", str(error) or "NotImplementedError", flush=True)
        return
    print(word, address, flush=True)
    await aio.get_running_loop().create_future()  # for ever, and without a timer in the loop
    del kept


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("kind", nargs="?", choices=KINDS, default="protocol")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--lifetime", type=int, default=0)
    options = parser.parse_args()
    aio = module(options.loop)
    if options.probe:
        factory(options.loop)().close()
        print(json.dumps({"description": describe(options.loop)}))
        return
    if options.lifetime and hasattr(signal, "alarm"):
        # Never outlives a benchmark that was killed; costs the loop nothing, unlike a timer in it.
        signal.alarm(options.lifetime)
    with aio.Runner(loop_factory=factory(options.loop)) as runner:
        runner.run(serve(aio, options.kind))


if __name__ == "__main__":
    main()
