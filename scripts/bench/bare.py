"""The least that aiohttp can do: `python -m scripts.bench.bare PORT FILE` answers every request with the file's bytes, held in memory."""

import sys
from pathlib import Path

from aiohttp import web


def main(port: int, path: Path) -> None:
    body = path.read_bytes()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/dicom+json", headers={"Content-Encoding": "gzip"})

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    web.run_app(application, host="127.0.0.1", port=port, reuse_port=True, access_log=None, print=lambda *_: None)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
