"""URLs in messages and artefacts: shown without what may be secret in them."""

from __future__ import annotations

import re

HIDDEN = "***"
"""What stands in the place of a secret."""

AZURE = frozenset(("az", "abfs"))  # container@account is an address there, no secret
URL_START = re.compile(r"([A-Za-z0-9][A-Za-z0-9+.-]*)://", re.ASCII)
# Each begins where a word does, or a stranger's long word would be searched from every letter on.
_WORD = r"(?<![A-Za-z0-9+.-])([0-9+.-]*)"
_URL_IN_TEXT = re.compile(_WORD + r"([A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+)")
# As a path writes it, with one slash; one that has nothing to hide is left alone.
_URL_AS_PATH = re.compile(_WORD + r"([A-Za-z][A-Za-z0-9+.-]+)(:/[^/\s'\"<>][^\s'\"<>]*)")
_URL_IN_ARGUMENT = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://.*", re.DOTALL)
_SECRET_IN_TEXT = re.compile(
    r"(?i)(?<![\w-])([\w-]*(?:signature|token|credential|password|secret|accesskeyid|sig|key))"
    r"=[^&\s'\"<>)]+"
)


def is_url(text: object) -> bool:
    """Whether a manifest's or a pipeline's text is meant as a URL, allowed or not.

    >>> [is_url(t) for t in ("s3://b/k", "zip::s3://b", "clips/a.mp4", "/a", "C:/a", "a/b://c")]
    [True, True, False, False, False, False]
    """
    text = str(text)
    chain = text.partition("/")[0].find("::")
    return URL_START.match(text) is not None or (chain >= 0 and "://" in text[chain + 2 :])


def redacted(url: str) -> str:
    """A URL as it may be shown and stored: without user, password, query and fragment.

    What is no URL stays as it is. To be called wherever a clip's path gets into an artefact, a
    message or a log.

    >>> redacted("https://me:pw@host/a.mp4?X-Amz-Signature=12ab")
    'https://***@host/a.mp4?***'
    >>> redacted("clips/a.mp4")
    'clips/a.mp4'
    """
    if not is_url(url):
        return url
    scheme, _, rest = url.partition("://")
    place, mark, _ = partition_any(rest, "?#")
    host, slash, path = place.partition("/")
    user, at, server = host.rpartition("@")
    protocol = scheme.rpartition("::")[2].lower()
    shown_user = user if protocol in AZURE and ":" not in user else HIDDEN
    port = server.rpartition(":")[2] if ":" in server else ""
    if not at and "@" in rest and not (port.isdigit() or port == "" or server.endswith("]")):
        return f"{scheme}://{HIDDEN}"  # a password with a slash in it
    if at:
        host = f"{shown_user}@{server}"
    outer, inside, inner = path.partition("://")  # an address within the address
    if inside:
        path = (
            f"{outer}{inside}" + (f"{HIDDEN}@" if "@" in inner else "") + inner.rpartition("@")[2]
        )
        path = _SECRET_IN_TEXT.sub(rf"\1={HIDDEN}", path)
    return f"{scheme}://{host}{slash}{path}" + (f"?{HIDDEN}" if mark else "")


def redacted_argument(argument: str) -> str:
    """A command's argument with the URL that it is, or ends with, redacted.

    >>> redacted_argument("--root=http://u:p'w x@h/a?k")
    '--root=http://***@h/a?***'
    """
    match = _URL_IN_ARGUMENT.search(argument)
    if match is None:
        return redacted_text(argument)
    return argument[: match.start()] + redacted(match.group())


def redacted_text(text: str) -> str:
    """A message with every URL in it redacted, and every `token=…`.

    >>> redacted_text("cannot open https://h/a?sig=1 (x-amz-signature=77)")
    'cannot open https://h/a?*** (x-amz-signature=***)'
    >>> redacted_text("http:/me:pw@h/a: no such file")
    'http://***@h/a: no such file'
    """
    text = _URL_AS_PATH.sub(_with_two_slashes, text)
    text = _URL_IN_TEXT.sub(lambda url: url[1] + redacted(url[2]), text)
    return _SECRET_IN_TEXT.sub(rf"\1={HIDDEN}", text)


def _with_two_slashes(match: re.Match[str]) -> str:
    before, scheme, rest = match.groups()
    hides = "@" in rest[3:] or "?" in rest[3:]
    return f"{before}{scheme}{re.sub(':/(?!/)', '://', rest) if hides else rest}"


def partition_any(text: str, marks: str) -> tuple[str, str, str]:
    mark = re.search(f"[{re.escape(marks)}]", text)
    if mark is None:
        return text, "", ""
    return text[: mark.start()], mark.group(), text[mark.end() :]
