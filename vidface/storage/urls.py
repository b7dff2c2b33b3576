"""Addresses on the net: which are read at all, and how they are shown without their secrets.

Manifests come from strangers, so the protocols are a list: no local files by `file://`, no
protocol that runs or unpacks something, no chains (`simplecache::s3://…`). What may be secret in a
URL (`user:password@`, signed queries) is never shown: `str` of an `Address` is redacted.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from vidface.core.errors import VidfaceError
from vidface.core.redaction import (
    AZURE,
    HIDDEN,
    URL_START,
    is_url,
    partition_any,
    redacted,
)

# Protocol → the extra of vidface that installs what reads it.
PROTOCOLS = {
    "http": "urls",
    "https": "urls",
    "memory": "urls",
    "s3": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
}
HTTP = frozenset(("http", "https"))
MAX_URL_CHARACTERS = 8192

_CHAIN = re.compile(r"::[A-Za-z0-9+.-]*://|^[^/]*::", re.ASCII)
# What a signed address carries beside the object's name; it is another one with every signing.
_SIGNING = frozenset(
    ("signature", "expires", "key-pair-id", "policy", "awsaccesskeyid", "googleaccessid",
     "access_token", "token",
     "sig", "se", "sp", "sv", "st", "sr", "spr", "skoid", "sktid", "skt", "ske", "sks", "skv")
)  # fmt: skip


def unsigned(path: str) -> str:
    """A clip's path without what changes with every signing, so that it can be compared.

    >>> unsigned("https://u:p@h/a?id=3&X-Amz-Signature=12ab")
    'https://h/a?id=3'
    """
    if not is_url(path) or path.partition("://")[0].lower() not in HTTP:
        return path
    try:
        parts = urlsplit(path)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        kept = [(k, v) for k, v in pairs if not _signs(k.lower())]
        query = "?" + urlencode(kept) if kept else ""
    except ValueError:  # half a surrogate is one, too
        return redacted(path)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


def _signs(name: str) -> bool:
    return name in _SIGNING or name.startswith(("x-amz-", "x-goog-"))


def base_name(path: str) -> str:
    """The file name at the end of a manifest's path, for a URL without its query.

    >>> base_name("https://h/p/a%20b.jpg?sig=x/y"), base_name("p/a.jpg")
    ('a b.jpg', 'a.jpg')
    """
    if not is_url(path):
        return posixpath.basename(path)
    rest = path.partition("://")[2]
    if path.partition("://")[0].lower() in HTTP:
        rest = unquote(partition_any(rest, "?#")[0])
    return posixpath.basename(rest)


def local_path(text: str) -> Path | None:
    """The path of a `file://` URL that the user himself gave; None for everything else.

    >>> local_path("file:///data/my%20clips").as_posix()
    '/data/my clips'
    """
    if not text.lower().startswith("file://"):
        return None
    from urllib.request import url2pathname  # with all of http, which `--help` need not wait for

    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise VidfaceError(f"{text}: file:// has three slashes before an absolute path")

    return Path(url2pathname(parts.path))


class Address:
    """A URL that is allowed, checked when made; `str` and `repr` hide what may be secret.

    No dataclass: `asdict` and JSON would take it apart and store what it hides.

    Raises:
        VidfaceError: a protocol that is not in `PROTOCOLS`, a chain, no host or bucket, a URL of
            an artefact, which was stored without its query.
    """

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url
        shown = redacted(self.url)[:200]
        if len(self.url) > MAX_URL_CHARACTERS or not self.url.isprintable():
            raise VidfaceError(
                f"{shown!r}: not a URL (over {MAX_URL_CHARACTERS} characters, or unprintable ones)"
            )
        match = URL_START.match(self.url)
        if self.url.endswith(f"?{HIDDEN}"):
            raise VidfaceError(
                f"{shown}: what stood behind the ? may be secret and was not stored; give the "
                "whole URL again"
            )
        if _CHAIN.search(self.url):
            raise VidfaceError(f"{shown}: chained URLs (::) are refused; give the address itself")
        if match is None:
            raise VidfaceError(f"{shown}: not a URL")
        protocol = match.group(1).lower()
        if protocol == "file":
            raise VidfaceError(f"{shown}: a local file is written as a plain path, without file://")
        if protocol not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise VidfaceError(f"{shown}: protocol '{protocol}' is not allowed (known: {known})")
        rest = self.url[match.end() :]
        host = partition_any(rest, "/?#" if protocol in HTTP else "/")[0]
        if protocol in HTTP:
            self._check_http(shown)
            rest = partition_any(rest, "#")[0]
            # Spaces and letters beyond ASCII as the net writes them; what is written so, stays.
            rest = quote(rest, safe="%/:?[]@!$&'()*+,;=-._~")
        elif not host and protocol != "memory":
            raise VidfaceError(f"{shown}: names no bucket; write {protocol}://bucket/folder")
        elif "@" in host and (protocol not in AZURE or ":" in host):
            raise VidfaceError(
                f"{shown}: credentials don't belong into a URL; give them through the environment"
            )
        self._url = f"{protocol}://{rest}"

    def _check_http(self, shown: str) -> None:
        try:
            parts = urlsplit(self.url)
            fits = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            fits = False
        if not fits:
            raise VidfaceError(f"{shown}: names no host, or one that cannot be")

    @property
    def url(self) -> str:
        """The whole of it, for those who connect; never to be shown or stored."""
        return self._url

    def __str__(self) -> str:
        return redacted(self.url)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __repr__(self) -> str:
        return f"Address({redacted(self.url)!r})"

    @property
    def protocol(self) -> str:
        return self.url.partition("://")[0]

    @property
    def stored(self) -> str:
        """It as artefacts hold it: user and password come from the environment, a query is hidden.

        >>> Address("https://me:pw@host/a.csv").stored, Address("https://host/a.csv?k=1").stored
        ('https://host/a.csv', 'https://host/a.csv?***')
        """
        return str(self).replace(f"://{HIDDEN}@", "://", 1)

    @property
    def is_http(self) -> bool:
        return self.protocol in HTTP

    @property
    def host(self) -> str:
        """The host's name of an http address, without brackets and port; else the bucket."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_plain(self) -> bool:
        """Whether nothing in it can be secret: `str` is the whole of it then."""
        return str(self) == self.url

    @property
    def key(self) -> str:
        """What fsspec's file systems call it: bucket/name; the whole URL for http."""
        rest = self.url.partition("://")[2]
        if self.is_http:
            return self.url
        return "/" + rest.strip("/") if self.protocol == "memory" else rest.rstrip("/")

    @property
    def name(self) -> str:
        """Its last part, as a path's name."""
        return base_name(self.url.rstrip("/"))

    @property
    def parent(self) -> Address:
        """The folder it lies in, without a query; a bucket or host is its own."""
        scheme, _, rest = self.url.partition("://")
        if self.is_http:
            rest = partition_any(rest, "?")[0]
        folder = rest.rstrip("/").rpartition("/")[0]
        return Address(f"{scheme}://{folder or rest}")

    def __truediv__(self, relative: str) -> Address:
        """The address of what lies below; `relative` is a plain path that stays below.

        Raises:
            VidfaceError: it leads out (`..`, a leading slash), or this address has a query.
        """
        parts = relative.replace("\\", "/").split("/")
        if relative.startswith(("/", "\\")) or ".." in parts:
            raise VidfaceError(f"{relative!r} leads out of {self}")
        if self.is_http and "?" in self.url:
            raise VidfaceError(f"{self}: nothing lies below an address with a query")
        inside = "/".join(part for part in parts if part not in ("", "."))
        if self.is_http:
            inside = quote(inside, safe="/!$&'()*+,;=-._~@:")
        return Address(f"{self.url.rstrip('/')}/{inside}" if inside else self.url)

    def resolve(self) -> Address:
        """Itself: as a path's `resolve`, for those who ask either."""
        return self
