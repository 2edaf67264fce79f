"""The ASGI application that uvicorn serves in test_uvicorn.py, without any framework.

GET  /?17            the query string            POST /           the body that came
GET  /loop           the class of the loop       POST /upload     size and checksum of the body
GET  /state          the counters below          POST /hold       the same, but the body is read
GET  /download?SIZE  so many bytes, streamed                      only after GET /release
GET  /pid            the process that answers

WebSockets, at any path: what comes goes back; the text "close" has the server close with 4000.
"""

import asyncio
import json
import os

from payload import Checksum, chunks

# What /state tells: bytes that went through send and receive, peers that left early.
state = {"sent": 0, "received": 0, "disconnects": 0}
release = asyncio.Event()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    assert scope["state"]["started"], "no lifespan"
    if scope["type"] == "websocket":
        await websocket(receive, send)
        return
    await ROUTES[scope["method"], scope["path"]](scope, receive, send)


async def lifespan(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    if os.environ.get("ASGI_APP_FAILS"):
        await send({"type": "lifespan.startup.failed", "message": "told to fail"})
        return
    print(f"application started on {loop_class()}", flush=True)
    scope["state"]["started"] = True
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    print("application stopped", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


def loop_class():
    kind = type(asyncio.get_running_loop())
    return f"{kind.__module__}.{kind.__qualname__}"


async def begin(send, length):
    headers = [(b"content-length", b"%d" % length), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def answer(send, body):
    await begin(send, len(body))
    await send({"type": "http.response.body", "body": body})


async def body_of(receive):
    """The parts of the request's body; ConnectionError when the peer left before its end."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            state["disconnects"] += 1
            raise ConnectionError("the peer left")
        part = message.get("body", b"")
        state["received"] += len(part)
        yield part
        if not message.get("more_body"):
            return


async def query(scope, receive, send):
    await answer(send, scope["query_string"])


async def echo(scope, receive, send):
    await answer(send, b"".join([part async for part in body_of(receive)]))


async def loop(scope, receive, send):
    await answer(send, loop_class().encode())


async def tell_state(scope, receive, send):
    fds = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    await answer(send, json.dumps({**state, "fds": fds}).encode())


async def download(scope, receive, send):
    size = int(scope["query_string"])
    await begin(send, size)
    for chunk in chunks(size):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        state["sent"] += len(chunk)
    await send({"type": "http.response.body"})


async def upload(scope, receive, send):
    checksum = Checksum()
    try:
        async for part in body_of(receive):
            checksum.feed(part)
    except ConnectionError:
        return
    await answer(send, str(checksum).encode())


async def hold(scope, receive, send):
    release.clear()
    await release.wait()
    await upload(scope, receive, send)


async def let_go(scope, receive, send):
    release.set()
    await answer(send, b"")


async def pid(scope, receive, send):
    await answer(send, str(os.getpid()).encode())


async def websocket(receive, send):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4000, "reason": "told to"})
            return
        content = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **content})
    print(f"websocket closed: {message['code']}", flush=True)


ROUTES = {
    ("GET", "/"): query,
    ("POST", "/"): echo,
    ("GET", "/loop"): loop,
    ("GET", "/state"): tell_state,
    ("GET", "/download"): download,
    ("GET", "/release"): let_go,
    ("GET", "/pid"): pid,
    ("POST", "/upload"): upload,
    ("POST", "/hold"): hold,
}
