"""How far an address on the net may lead: to other sites, into private networks.

A table from the net is a stranger's word. What it names, and where its servers send those who ask,
may be a machine behind the reader's firewall that answers him alone: a router, a cloud's metadata
service. So what a public address says is followed to public addresses only, unless allowed.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import ipaddress
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from vidface.storage.store_failures import RefusedError
from vidface.storage.urls import Address

PRIVATE_HINT = "--allow-private ([manifest] allow_private) allows it"
_ENDPOINTS = {  # the variables that send an object store's requests to a host of one's own
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL"),
    "gs": ("STORAGE_EMULATOR_HOST",),
    "gcs": ("STORAGE_EMULATOR_HOST",),
}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Reach:
    """What somebody's addresses may lead to.

    Attributes:
        allow_private: private networks, whoever names them.
        public_only: public addresses only, for they stand in a table from a public address.
            Without either the addresses are the user's own, and their redirections a stranger's.
        root: what lies below this address is the user's own all the same: he named it.
    """

    allow_private: bool = False
    public_only: bool = False
    root: Address | None = None

    @classmethod
    def of_table(cls, table: object, allow_private: bool, root: object = None) -> Reach:
        """Of what stands in a table that lies at a place, with the root that the user named."""
        is_public = isinstance(table, Address) and not allow_private and not is_private(table)
        return cls(allow_private, is_public, root if isinstance(root, Address) else None)

    def of_address(self, address: Address) -> Reach:
        """What one address of the table may lead to."""
        above = "" if self.root is None else f"{self.root.url.rstrip('/')}/"
        if above and address.url.startswith(above):
            steps = unquote(address.url.removeprefix(above)).replace("\\", "/").split("/")
            if ".." not in steps:  # a server may follow them out of the root
                return Reach(self.allow_private)
        return Reach(self.allow_private, self.public_only)


OWN_REACH = Reach()

_public_only = contextvars.ContextVar("public_only", default=False)


def is_private_ip(text: str) -> bool:
    """Whether an IP address is of no public network: loopback, intranet, link-local, multicast.

    >>> is_private_ip("169.254.169.254"), is_private_ip("::ffff:10.0.0.1"), is_private_ip("8.8.8.8")
    (True, True, False)
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_private_ip(str(inner))
    return not address.is_global or address.is_multicast


def is_private_host(host: str) -> bool:
    """Whether a name or IP address, in any spelling, leads into a private network.

    One that can't be resolved is not: behind a proxy, the proxy alone may know names.
    """
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(is_private_ip(str(answer[4][0])) for answer in answers)


def is_private(address: Address) -> bool:
    """Whether an address is of a private network; an object store's is where its endpoint is."""
    if address.protocol == "memory":
        return True
    if address.is_http:
        return is_private_host(address.host)
    endpoints = filter(None, map(os.environ.get, _ENDPOINTS.get(address.protocol, ())))
    return any(is_private_host(Address(endpoint).host) for endpoint in endpoints)


def check_public(address: Address) -> None:
    """Refuse a private address before anything is asked there."""
    if is_private(address):
        raise _refused(address.host if address.is_http else str(address))


@contextmanager
def public_addresses_only() -> Iterator[None]:
    """Within, sessions of `open_session` connect to public addresses alone."""
    token = _public_only.set(True)
    try:
        yield
    finally:
        _public_only.reset(token)


async def open_session(*, loop: asyncio.AbstractEventLoop, **options: Any) -> Any:
    """aiohttp's session that checks the very addresses that it connects to.

    A name that resolves to another address every time can't pass: what is checked is what the
    connection is made to, not the answer of a lookup before it.
    """
    aiohttp = importlib.import_module("aiohttp")

    class Resolver(aiohttp.ThreadedResolver):  # type: ignore[name-defined]
        async def resolve(self, host: str, *arguments: Any, **more: Any) -> Any:
            answers = await super().resolve(host, *arguments, **more)
            is_checked = _public_only.get() and host not in _proxy_hosts()
            if is_checked and any(is_private_ip(answer["host"]) for answer in answers):
                raise _refused(host)
            return answers

    connector = aiohttp.TCPConnector(resolver=Resolver(), use_dns_cache=False)
    return aiohttp.ClientSession(loop=loop, connector=connector, **options)


def _proxy_hosts() -> set[str]:
    """Hosts of the user's own proxies, which may be private: they look up names themselves."""
    parts = map(urlsplit, urllib.request.getproxies().values())
    return {part.hostname for part in parts if part.hostname}


def _refused(host: str) -> RefusedError:
    return RefusedError(
        f"refused, {host} is of a private network, and a public address led there; {PRIVATE_HINT}"
    )
