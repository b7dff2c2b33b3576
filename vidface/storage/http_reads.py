"""Reads over http that are bounded: a server may ignore ranges, send without end, or lie.

Coroutines for the loop of fsspec's http file system, whose session (with its proxies and the user's
~/.netrc) makes the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vidface.core.errors import VidfaceError
from vidface.storage.reach import Reach, check_public, is_private, public_addresses_only
from vidface.storage.store_failures import (
    RefusedError,
    StatusError,
    check_length,
    too_large_error,
)
from vidface.storage.urls import Address

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0  # without a byte
REQUEST_SECONDS = 180.0  # for one request in all
MAX_REDIRECTS = 5
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


@dataclass(frozen=True)
class Info:
    """What is known of an object, or that it is a folder."""

    size_bytes: int
    etag: str = ""  # changes with the content; empty where a server gives none
    is_folder: bool = False
    site: str = ""  # https://host:port, where another site than the one asked gave the answer


async def _http_answer(
    system: Any, reach: Reach, url: str, start: int | None = None, end: int = 0
) -> Any:
    """An open answer to GET, or to a part of it; its body isn't read yet.

    Redirections are followed here, one by one: never away from https, and from a public address
    never into a private network. Credentials go to the host alone that they are for.
    """
    aiohttp = importlib.import_module("aiohttp")
    yarl = importlib.import_module("yarl")
    session = await system.set_session()
    headers = {"Accept-Encoding": "identity"}
    if start is not None:
        headers["Range"] = f"bytes={start}-{end - 1}"
    timeout = aiohttp.ClientTimeout(
        total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
    )
    target, public_only = yarl.URL(url, encoded=True), reach.public_only
    for _ in range(1 + MAX_REDIRECTS):
        guard = public_addresses_only() if public_only else contextlib.nullcontext()
        with guard:
            if public_only:
                await asyncio.to_thread(check_public, Address(str(target)))
            answer = await session.get(
                target, headers=headers, timeout=timeout, allow_redirects=False
            )
        if answer.status not in _REDIRECTS or "Location" not in answer.headers:
            break
        location = answer.headers["Location"]
        answer.close()
        target, before = _redirected(target, location, yarl), target
        if not (public_only or reach.allow_private or target.host == before.host):
            public_only = not await asyncio.to_thread(is_private, Address(str(before)))
    else:
        raise RefusedError(f"refused, it redirects more than {MAX_REDIRECTS} times")
    try:
        if answer.status >= 400 and not (start is not None and answer.status == 416):
            raise StatusError(answer.status)
        if answer.headers.get("Content-Encoding", "identity") not in ("identity", ""):
            raise OSError(errno.EIO, "refused, the server packs what it sends (Content-Encoding)")
    except BaseException:
        answer.close()
        raise
    return answer


def _redirected(before: Any, location: str, yarl: Any) -> Any:
    """The URL that a redirection leads to."""
    try:
        target = before.join(yarl.URL(location, encoded=True))
        Address(str(target))
        fits = target.scheme in ("http", "https")
    except (ValueError, VidfaceError):
        fits = False
    if not fits:
        raise RefusedError("refused, it redirects to something that is no http address")
    if before.scheme == "https" and target.scheme != "https":
        raise RefusedError(f"refused, it redirects away from https, to {target.host}")
    return target


def _other_site(answer: Any, url: str) -> str:
    """Where an answer came from, if from another site: https in place of http is the same."""
    asked, given = urlsplit(url), urlsplit(str(answer.url))
    usual = {"http": 80, "https": 443}
    ports = [part.port or usual[part.scheme] for part in (asked, given)]
    same_port = ports[0] == ports[1] or ports == [80, 443]
    if asked.hostname == given.hostname and same_port:
        return ""
    return f"{given.scheme}://{given.netloc.rpartition('@')[2]}"


async def http_info(system: Any, reach: Reach, url: str) -> Info:
    """By a GET of the first byte: signed addresses are often signed for GET alone."""
    with contextlib.closing(await _http_answer(system, reach, url, 0, 1)) as answer:
        etag, site = _etag(answer), _other_site(answer, url)
        total = _content_range(answer)[2]
        if answer.status == 416:
            if total != 0:
                raise StatusError(416)
            return Info(0, etag, site=site)
        if answer.status == 206 and total is not None:
            await _body(answer, 1)  # so that the connection can be used again
            return Info(total, etag, site=site)
        if answer.status == 200 and answer.content_length is not None:
            return Info(answer.content_length, etag, site=site)
    raise OSError(errno.EIO, "the server doesn't say how long the file is")


async def http_range(
    system: Any, reach: Reach, url: str, start: int, end: int, info: Info
) -> bytes:
    with contextlib.closing(await _http_answer(system, reach, url, start, end)) as answer:
        etag = _etag(answer)
        first, last, total = _content_range(answer)
        whole = answer.status == 200 and start == 0 and answer.content_length == end
        if answer.status == 200 and not whole:
            raise OSError(errno.ENOTSUP, "the server ignores ranges, which videos need")
        if (total not in (None, info.size_bytes)) or (etag and info.etag and etag != info.etag):
            raise OSError(errno.EIO, "changed while it was read")
        if not whole and (answer.status != 206 or (first, last) != (start, end - 1)):
            raise OSError(errno.EIO, "the server sends another part than it was asked for")
        data = await _body(answer, end - start)
        check_length(len(data), end - start)
        return data


async def http_read(system: Any, reach: Reach, url: str, limit_bytes: int) -> bytes:
    with contextlib.closing(await _http_answer(system, reach, url)) as answer:
        length = answer.content_length
        if length is not None and length > limit_bytes:
            raise too_large_error(length, limit_bytes)
        data = await _body(answer, limit_bytes)
        if length is not None:
            check_length(len(data), length)
        return data


async def _body(answer: Any, limit_bytes: int) -> bytes:
    """The body, read no further than one piece beyond its limit."""
    body = bytearray()
    async for piece in answer.content.iter_chunked(1 << 18):
        body += piece
        if len(body) > limit_bytes:
            raise too_large_error(None, limit_bytes)
    return bytes(body)


def _etag(answer: Any) -> str:
    return answer.headers.get("ETag", "") or answer.headers.get("Last-Modified", "")


def _content_range(answer: Any) -> tuple[int | None, ...]:
    """First byte, last byte and size of the whole, as the answer says."""
    content_range = re.fullmatch(
        r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)",
        answer.headers.get("Content-Range", "").strip(),
    )
    if content_range is None:
        return None, None, None
    return tuple(None if part in (None, "*") else int(part) for part in content_range.groups())
