"""One file of a server after the other: bounded in size, and gone on with after a cut."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

from cache.errors import Refused
from cache.printable import printable
from cache.remote.streams import denied, file_system, open_stream, passing
from cache.remote.url import Url

_BLOCK, _SMALLEST = 1 << 22, 1 << 14
"""Bytes that are asked for at a time; after a cut fewer, as libraries keep nothing of an answer
that they did not get as a whole."""
TRIES = 5
"""In a row without a single further byte: then it is given up."""
_MOST_CUTS = 1000
"""Of one file: a server that sends it byte by byte is given up, too."""
_WAIT = 0.1
"""Seconds before the second try; each later one waits four times as long."""
_CREDENTIALS = {
    "s3": "Credentials come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_PROFILE) or ~/.aws, another endpoint from AWS_ENDPOINT_URL; a public bucket needs "
    "FSSPEC_S3_ANON=true.",
    "gs": "Credentials come from GOOGLE_APPLICATION_CREDENTIALS or gcloud auth application-default "
    "login; a public bucket needs FSSPEC_GS_TOKEN=anon.",
    "https": 'Credentials come from ~/.netrc, from FSSPEC_HTTPS=\'{"headers": {"Authorization": '
    '"..."}}\', or stand in a signed URL.',
}
_CREDENTIALS["http"] = _CREDENTIALS["https"].replace("FSSPEC_HTTPS", "FSSPEC_HTTP")

Told = Callable[[int, int | None], None]
"""Bytes of the file that are there, and how many it has, if the server says so."""


class Missing(Exception):
    """The server has no such file; the text is what it says."""


class Server:
    """Where the files of one URL are."""

    def __init__(self, url: Url) -> None:
        """Raises Refused: what speaks this scheme is not installed, or cannot be set up."""
        self.url = url
        self.cuts = 0
        """How often the connection failed and was made again."""
        self._files = file_system(url.scheme)

    def read(self, name: str, most: int, told: Told) -> bytes:
        """A file of at most `most` bytes.

        Raises:
            Missing: there is none.
            Refused: it is larger, access is denied, or the connection fails again and again.
        """
        sink, failures, cuts, before = io.BytesIO(), 0, 0, 0
        part, most_part = None, _BLOCK
        while True:
            try:
                if self._go_on(name, most, sink, told, part):
                    return sink.getvalue()  # shares its bytes
                part = min(2 * (part or _BLOCK), most_part)
                continue
            except (Refused, MemoryError):
                raise
            except FileNotFoundError as error:
                raise Missing("" if name in str(error) else f": {self._reason(error)}") from None
            except Exception as error:  # libraries raise what they like
                failures, cuts = (1 if sink.tell() > before else failures + 1), cuts + 1
                if failures == TRIES or cuts == _MOST_CUTS or not passing(error):
                    raise self._failed(name, error, cuts, sink.tell()) from None
            before, self.cuts = sink.tell(), self.cuts + 1
            most_part = max((part or _BLOCK) // 2, _SMALLEST)
            part = max((part or _BLOCK) // 16, _SMALLEST)
            time.sleep(_WAIT * 4 ** (failures - 1))

    def _go_on(self, name: str, most: int, sink: io.BytesIO, told: Told, part: int | None) -> bool:
        """Add to `sink` what the file has behind it, or so many bytes of it; True: that was all."""
        with open_stream(self._files, self.url, name, sink.tell(), part) as stream:
            size, anew = stream.size, sink.tell() - stream.start
            if size is not None and size > most:
                raise self._too_large(name, f"has {size}", most)
            while block := stream.read(_BLOCK):
                fresh = block[anew:]  # what is there already a server without Range sends again
                anew -= len(block) - len(fresh)
                if sink.tell() + len(fresh) > most:
                    raise self._too_large(name, "sends more", most)
                sink.write(fresh)
                told(sink.tell(), size)
        if size is None:
            return stream.left > 0
        if sink.tell() > size or (stream.left and sink.tell() < size):
            raise ConnectionError("the file is shorter than the server has said")
        return sink.tell() == size

    def _too_large(self, name: str, says: str, most: int) -> Refused:
        return Refused(
            f"{self.url}/{name} can have at most {most} bytes, but the server {says}: it is no "
            "file of this cache, or does not fit into memory. Nothing was kept."
        )

    def _failed(self, name: str, error: Exception, cuts: int, there: int) -> Refused:
        place, reason = f"{self.url}/{name}", self._reason(error)
        if denied(error):
            return Refused(
                f"Access to {place} is denied: {reason}. {_CREDENTIALS[self.url.scheme]}"
            )
        if not passing(error):
            return Refused(f"{place} cannot be read: {reason}.")
        return Refused(
            f"{place}: the connection failed {cuts} times, {there} bytes of it came: {reason}. "
            "Nothing was kept: check address and network, and run it again."
        )

    def _reason(self, error: Exception) -> str:
        """In words, without what must not be shown."""
        status, message = getattr(error, "status", None), getattr(error, "message", "")
        if isinstance(status, int):  # of aiohttp, whose text would repeat the URL
            return printable(f"the server says {status} {message}").strip()
        if self.url.login or self.url.query:
            return type(error).__name__
        return printable(str(error) or type(error).__name__)[:300].rstrip(".")
