"""python s3_front.py PORT BEHIND EVERY: passes requests on to the server at BEHIND; every EVERYth fails (503).

As a process of its own it can be killed, while what the server behind it holds stays, as it would on S3.
"""

import asyncio
import itertools
import sys

from aiohttp import ClientSession, DummyCookieJar, web

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


async def serve(port: int, behind: int, every: int) -> None:
    numbers = itertools.count(1)
    async with ClientSession(auto_decompress=False, cookie_jar=DummyCookieJar()) as session:

        async def answer(request: web.Request) -> web.Response:
            if every and next(numbers) % every == 0:
                return web.Response(status=503, text="<Error><Code>ServiceUnavailable</Code></Error>")
            url = f"http://127.0.0.1:{behind}{request.raw_path}"
            headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
            async with session.request(
                request.method, url, headers=headers, data=await request.content.read()
            ) as theirs:
                content = await theirs.read()
                kept = {name: value for name, value in theirs.headers.items() if name.lower() not in HOP_BY_HOP}
                if request.method == "HEAD":
                    kept["Content-Length"] = theirs.headers.get("Content-Length", "0")
                return web.Response(status=theirs.status, headers=kept, body=content)

        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
