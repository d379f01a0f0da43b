"""Bytes from object storage and web servers through fsspec, and what its libraries' errors mean.

Credentials, endpoints and proxies are those of the environment (AWS_*, GOOGLE_*, HTTPS_PROXY,
~/.netrc) and of fsspec's own configuration (FSSPEC_*, ~/.config/fsspec).
"""

from __future__ import annotations

import errno
import math
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cache.errors import Refused
from cache.printable import printable
from cache.remote.url import Url

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}
_CONNECT, _SILENT = 30, 60
"""Seconds: a server that says nothing for longer is taken for gone."""


class Stream:
    """A file, or a part of it."""

    def __init__(self, handle: Any, start: int, size: int | None, left: float) -> None:
        """`left`: how many bytes the part has, at most; infinite: all up to the end."""
        self.handle, self.left = handle, left
        self.start = start
        """Where in the file: not always what was asked for."""
        self.size = size
        """Bytes of the whole file, if the server says so."""

    def read(self, count: int) -> bytes:
        """At most so many bytes; none: it has ended."""
        data: bytes = self.handle.read(int(min(count, self.left)))
        self.left -= len(data)
        return data


def file_system(scheme: str) -> Any:
    """fsspec's, for one of `cache.remote.url.SCHEMES`.

    Raises:
        Refused: a package is missing, or fsspec's configuration does not fit.
    """
    try:
        import fsspec

        kind = fsspec.get_filesystem_class(scheme)
    except ImportError:
        raise Refused(
            f"Caches at {scheme}:// need fsspec and {_PACKAGES[scheme]}, which are not installed: "
            "pip install 'lgr-pipe[remote]'."
        ) from None
    try:
        return kind(**_options(scheme, fsspec.config.conf))
    except Exception as error:  # whatever the constructor makes of the configuration
        raise Refused(
            f"{_PACKAGES[scheme]} cannot be set up: {printable(error)}. Its configuration comes "
            "from the environment (FSSPEC_*) and ~/.config/fsspec."
        ) from None


def _options(scheme: str, configured: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What fsspec is told beside its own configuration, of which a given option hides its like."""

    def own(key: str, *schemes: str) -> dict[str, Any]:
        said = [configured.get(name, {}).get(key) for name in schemes]
        return {k: v for one in said if isinstance(one, dict) for k, v in one.items()}

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "s3":  # how often it is tried is decided in transfer.py
        once = {"retries": {"total_max_attempts": 1}}
        options["config_kwargs"] = {**own("config_kwargs", "s3", "s3a"), **once}
    elif scheme.startswith("http"):
        options["client_kwargs"] = {"trust_env": True, **own("client_kwargs", "http", "https")}
    return options


@contextmanager
def open_stream(
    files: Any, url: Url, name: str, start: int, part: int | None = None
) -> Iterator[Stream]:
    """The file `name` from byte `start` on, or so many bytes of it; or all from an earlier byte."""
    opened = _from_web if url.scheme.startswith("http") else _from_bucket
    stream = opened(files, url.file(name), start, part)
    try:
        yield stream
    finally:
        stream.handle.close()


def _from_bucket(files: Any, target: str, start: int, part: int | None) -> Stream:
    files.retries = 1  # of s3fs: as above
    handle = files.open(target, "rb", cache_type="none")
    handle.seek(start)
    return Stream(handle, start, int(handle.size), math.inf if part is None else part)


def _from_web(files: Any, target: str, start: int, part: int | None) -> Stream:
    """A single answer, read as it comes: a server may ignore what range it was asked for."""
    from aiohttp import ClientTimeout

    headers = {**files.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
    if start or part is not None:
        headers["Range"] = f"bytes={start}-{'' if part is None else start + part - 1}"
    limits = ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENT)
    # size: anything, or else it would be asked for first; block_size 0: as it comes
    handle = files.open(target, "rb", block_size=0, size=1, headers=headers, timeout=limits)
    try:
        return _understood(handle, target, start, math.inf if part is None else part)
    except BaseException:
        handle.close()
        raise


def _understood(handle: Any, target: str, start: int, part: float) -> Stream:
    answer = handle.r
    if target.startswith("https:") and answer.url.scheme != "https":
        raise ValueError("the server leads to an address without encryption (http://)")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("the server sends it compressed, though it was asked not to")
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", _range_of(answer))
        if found is None or int(found[1]) != start:
            raise ValueError("the server sends another part than it was asked for")
        return Stream(handle, start, None if found[2] == "*" else int(found[2]), part)
    if answer.status != 200:
        raise ValueError(f"the server says {int(answer.status)}")
    return Stream(handle, 0, answer.content_length, math.inf)


def _range_of(answer: Any) -> str:
    return str(answer.headers.get("Content-Range", ""))


def denied(error: BaseException) -> bool:
    """Whether credentials are missing or not enough."""
    no_credentials = type(error).__name__ in ("NoCredentialsError", "DefaultCredentialsError")
    refused = getattr(error, "status", None) in (401, 403)
    return isinstance(error, PermissionError) or no_credentials or refused


_LASTING = {
    errno.EINVAL,
    errno.EPERM,
    errno.EACCES,
    errno.ENOSYS,
    errno.ENAMETOOLONG,
    getattr(errno, "EREMCHG", errno.ENOENT),  # another region
}
"""What s3fs makes of answers that another try does not change."""
_CUTS = {
    "ClientConnectionError",
    "ClientPayloadError",
    "EndpointConnectionError",
    "HTTPClientError",
    "ResponseParserError",
}
"""Of aiohttp and botocore: errors of connections that are no OSError."""


def passing(error: BaseException) -> bool:
    """Whether another try may help."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status in (408, 425, 429)
    if any(map(_wrong_host, _causes(error))):
        return False
    if isinstance(error, OSError):
        return error.errno not in _LASTING and not denied(error)
    return any(kind.__name__ in _CUTS for kind in type(error).__mro__)


def _wrong_host(error: BaseException) -> bool:
    """No such name, or a certificate that cannot be trusted."""
    unknown = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
    return unknown or isinstance(error, ssl.SSLCertVerificationError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__
