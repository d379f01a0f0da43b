"""URLs of caches: what is sent to the server, and what is shown of it.

Passwords and the queries of signed URLs are sent and nothing else: never shown, never stored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cache.errors import Refused
from cache.printable import printable

SCHEMES = ("s3", "gs", "https", "http")
_BUCKETS = ("s3", "gs")
_ANY = re.compile(r"[\w+.:-]+://\S*")


@dataclass(frozen=True)
class Url:
    """The folder of a cache; as text, what may be shown of it."""

    scheme: str
    host: str
    """With its port; of s3 and gs: the bucket."""
    path: str
    """Without slashes at its ends."""
    login: str = field(default="", repr=False)
    """`user:password@`, or nothing."""
    query: str = field(default="", repr=False)
    """`?` and a signature, or nothing."""

    @classmethod
    def parse(cls, text: str) -> Url:
        """
        >>> str(Url.parse("https://me:secret@example.org/caches/a/?sig=abc"))
        'https://example.org/caches/a'

        Raises:
            Refused: another scheme (chains such as `zip::https` are one), or no host.
        """
        scheme, _, rest = text.partition("://")
        if scheme.lower() not in SCHEMES:
            raise Refused(
                f"A cache is a folder, or a URL that begins with {', '.join(SCHEMES[:-1])} or "
                f"{SCHEMES[-1]}; {printable(scheme)}:// is not read."
            )
        scheme = scheme.lower()
        try:
            parts = urlsplit(f"{scheme}://{rest}")
            port = f":{parts.port}" if parts.port else ""
        except ValueError as error:
            raise Refused(f"The {scheme}:// URL of the cache is none: {error}.") from None
        login, _, host = parts.netloc.rpartition("@")
        if not parts.hostname or not host.isprintable() or parts.fragment:
            raise Refused(
                f"The {scheme}:// URL of the cache must name a host and a path, no #part."
            )
        if scheme in _BUCKETS and (login or port or parts.query or not parts.path.strip("/")):
            raise Refused(
                f"The URL of the cache must look like {scheme}://BUCKET/PATH; credentials come "
                "from the environment."
            )
        return cls(
            scheme,
            host,
            parts.path.strip("/"),
            f"{login}@" if login else "",
            f"?{parts.query}" if parts.query else "",
        )

    def __str__(self) -> str:
        return printable(f"{self.scheme}://{self.host}/{self.path}".rstrip("/"))

    @property
    def name(self) -> str:
        """The last part, for titles."""
        return str(self).rpartition("/")[2]

    def file(self, name: str) -> str:
        """What to ask the server for."""
        inside = f"{self.path}/{name}".removeprefix("/")
        if self.scheme in _BUCKETS:
            return f"{self.host}/{inside}"
        return f"{self.scheme}://{self.login}{self.host}/{inside}{self.query}"

    @property
    def exposed(self) -> bool:
        """Whoever is on the way can read and change what comes."""
        if self.scheme != "http":
            return False
        import ipaddress

        host = urlsplit(f"//{self.host}").hostname or ""
        try:
            return not ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host != "localhost"


def redacted(text: str) -> str:
    """The text with all URLs in it as they may be shown.

    >>> redacted("--cache=s3://b/c --crops https://u:p@h/x?sig=1")
    '--cache=s3://b/c --crops https://h/x'
    """
    return _ANY.sub(lambda found: _shown(found[0]), text)


def _shown(text: str) -> str:
    try:
        return str(Url.parse(text))
    except Refused:
        return f"{text.partition('://')[0]}://..."
