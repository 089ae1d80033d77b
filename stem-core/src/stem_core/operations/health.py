"""``--health-port``: a small HTTP/1.1 server with three answers.

=============  ==============================================================  =============
path           200 when                                                        else
=============  ==============================================================  =============
``/healthz``   it consumes, and its event loop turns: restart it if it is not  503, with why
``/readyz``    it has reached its stores and consumes                          503, with why
``/metrics``   always                                                          -
=============  ==============================================================  =============
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, NamedTuple, Self

from stem_core.errors import ConfigurationError
from stem_core.operations.metrics import CONTENT_TYPE, render
from stem_core.operations.reports import Reporter

__all__ = ["Address", "HealthServer"]

_log = logging.getLogger("stem.health")
#: Seconds a client has for its request; most bytes of a request's head.
_PATIENCE: Final = 5.0
_MOST: Final = 8192
_PLAIN: Final = "text/plain; charset=utf-8"
_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


class Address(NamedTuple):
    """Where to listen; port 0 takes a free one, which is logged."""

    host: str
    port: int


class Answer(NamedTuple):
    """A response without its framing."""

    status: int
    body: str
    type: str = _PLAIN


class HealthServer:
    """Serves while entered; ``address`` is where."""

    def __init__(self, address: Address, reporter: Reporter) -> None:
        self.address = address
        self._reporter = reporter
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_server(self._serve, *self.address, limit=_MOST)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {self.address.host}:{self.address.port} for health checks: {error.strerror or error}"
            ) from error
        host, port, *_ = self._server.sockets[0].getsockname()
        self.address = Address(host, port)
        _log.info("Health and metrics on http://%s:%d", host, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                    if isinstance(error, asyncio.IncompleteReadError) and not error.partial:
                        return  # a port scan, or a load balancer's look
                    head = b""
                method, answer = await self._answer(head)
                body = answer.body.encode()
                lines = (
                    f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}",
                    f"Content-Type: {answer.type}",
                    f"Content-Length: {len(body)}",
                    "Cache-Control: no-store",
                    "Connection: close",
                )
                writer.write("\r\n".join((*lines, "", "")).encode() + (b"" if method == "HEAD" else body))
                await writer.drain()
        except (OSError, TimeoutError):
            pass  # the client's trouble
        except Exception:  # noqa: BLE001 - a failed answer must not end the server, and is logged
            _log.exception("Answering a health check failed")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes) -> tuple[str, Answer]:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "", Answer(400, "this is not an HTTP/1.1 request\n")
        method, path = words[0], words[1].partition("?")[0]
        if path not in {"/healthz", "/readyz", "/metrics"}:
            return method, Answer(404, "there are /healthz, /readyz and /metrics\n")
        if method not in {"GET", "HEAD"}:
            return method, Answer(405, "use GET\n")
        report = await self._reporter.report(metrics=path == "/metrics")
        if path == "/metrics":
            return method, Answer(200, render(report.families), CONTENT_TYPE)
        good = report.healthy if path == "/healthz" else report.ready
        return method, Answer(200, "ok\n") if good else Answer(503, f"{report.problem or 'not ready'}\n")
