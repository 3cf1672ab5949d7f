"""The connection to an OpenAI-compatible server: addresses, key, time-outs, and what went wrong in a person's words."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import aiohttp

from suffice.engines.base import GenerationRequest
from suffice.engines.openai.requests import addresses, api_key, error_message, is_permanent, retry_after
from suffice.errors import EngineError, UsageError
from suffice.json_codec import dump

__all__ = ["NETWORK_ERRORS", "OpenAIClient", "drain", "read_body"]

NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError)
"""What aiohttp raises when a request fails on its way."""

_MAX_BODY = 16 << 20  # bytes; a hosted API's list of models has about 1 MiB
_CONTROL_TIMEOUT = 30.0  # seconds of silence allowed to requests that generate nothing
_DRAIN_TIMEOUT = 0.2  # seconds for the end of a response after its [DONE], so that the connection can be used again
_KEEPALIVE = 4.0  # seconds; uvicorn closes idle connections after 5, and a request must not run into that
_STREAM_HEADERS = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # compression would gather pieces before it lets them go
    "Content-Type": "application/json",
}


class OpenAIClient:
    """One server, one pool of connections. `start` it before use, `close` it after. Arguments as for `RemoteEngine`.

    Certificates are always checked, redirects are reported and not followed (they would turn a POST into a GET), the
    environment's proxies are not used.
    """

    def __init__(
        self, base_url: str, key: str | None, connect_timeout: float, read_timeout: float, proxy: str | None
    ) -> None:
        for name, seconds in (("connect_timeout", connect_timeout), ("read_timeout", read_timeout)):
            if not seconds > 0:
                raise UsageError(f"{name} is {seconds}: give seconds above 0")
        self.root, self.api = addresses(base_url)
        self.host = self.root.split("/")[2]
        self._key = api_key(key)
        self._connect_timeout, self._read_timeout, self._proxy = connect_timeout, read_timeout, proxy
        self._streaming = self._timeout(read_timeout)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),  # one caller's cookies are none of the next one's
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            proxy=self._proxy,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def post_stream(self, url: str, body: dict[str, Any], request: GenerationRequest) -> aiohttp.ClientResponse:
        """Sends a request whose answer streams. The caller closes the response, and explains `NETWORK_ERRORS`."""
        return await self._http.post(
            url,
            data=dump(body),
            headers={**_STREAM_HEADERS, "X-Request-Id": request.id, **request.trace_context},
            timeout=self._streaming,
            allow_redirects=False,
        )

    async def ask(self, method: str, url: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """One small request: its status and text.

        Raises:
            EngineError: the server cannot be reached or does not answer.
        """
        silence = min(self._read_timeout, _CONTROL_TIMEOUT)
        options: dict[str, Any] = {"timeout": self._timeout(silence), "allow_redirects": False}
        try:
            async with self._http.request(method, url, json=body, **options) as response:
                return response.status, await read_body(response)
        except NETWORK_ERRORS as error:
            raise EngineError(self.explain(error, silence=silence), where=self.host) from error

    def refusal(self, status: int, text: str, response: aiohttp.ClientResponse | None = None) -> EngineError:
        """The error for an answer that is not 200."""
        message, where = self.without_key(f"HTTP {status}: {error_message(text)}"), self.host
        headers = response.headers if response is not None else {}
        if 300 <= status < 400 and "Location" in headers:
            where += f" (it moved to {headers['Location']}: use that address)"
        if status == 401 and not self._key:
            message += "; no key was sent: set SUFFICE_API_KEY"
        if "Retry-After" in headers:
            message += f"; Retry-After: {headers['Retry-After']}"
        return EngineError(
            message, status=status, where=where, retry_after=retry_after(headers), permanent=is_permanent(text, headers)
        )

    def explain(self, error: Exception, after: str = "", silence: float | None = None) -> str:
        """What went wrong on the network.

        Args:
            after: how far an answer had come.
            silence: seconds that were waited for the next piece; the read time-out by default.
        """
        match error:
            case aiohttp.ConnectionTimeoutError():
                return f"no connection within {self._connect_timeout:g} s; is the server reachable?"
            case TimeoutError():
                return f"the server sent nothing for {silence or self._read_timeout:g} s {after}".rstrip()
            case aiohttp.ClientConnectorDNSError():
                return "no such host; check the address"
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
                return "TLS failed: the server's certificate is not trusted, or it does not speak https"
            case aiohttp.ClientProxyConnectionError():
                return "the proxy cannot be reached"
            case aiohttp.ClientConnectorError(os_error=cause):
                return f"cannot connect: {os.strerror(cause.errno) if cause.errno else cause}; is the server running?"
            case aiohttp.ClientResponseError(message=message):
                return f"the server does not speak HTTP: {' '.join(message.split())}"
        return f"connection dropped {after}".rstrip()

    def without_key(self, message: str) -> str:
        """`message` with the key blacked out, should a server have sent it back."""
        return message.replace(self._key, "***") if self._key else message

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("enter the engine first: `async with engine:`")
        return self._session

    def _timeout(self, silence: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=None, connect=self._connect_timeout, sock_read=silence)


async def read_body(response: aiohttp.ClientResponse) -> str:
    """The body of a response that is not a stream.

    Raises:
        EngineError: it is longer than any that belongs here.
    """
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        if len(body) > _MAX_BODY:
            raise EngineError(f"the server sent more than {_MAX_BODY >> 20} MiB at once", where=str(response.url.host))
    return body.decode("utf-8", "replace")


async def drain(response: aiohttp.ClientResponse) -> None:
    """Reads what is left of a response, not waiting long for it."""
    if response.content.at_eof():
        return
    try:
        async with asyncio.timeout(_DRAIN_TIMEOUT):
            while not response.content.at_eof():
                await response.content.readany()
    except NETWORK_ERRORS:
        response.close()
