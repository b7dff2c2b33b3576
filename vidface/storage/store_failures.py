"""Why a request failed: the many errors of the libraries as OSErrors in few words, no secrets."""

from __future__ import annotations

import errno
import re
from typing import Any

from vidface.core.redaction import redacted_text


class ShortTroubleError(Exception):
    """What may go well when tried again; the message is the reason."""


class RefusedError(OSError):
    """What vidface itself won't do, said as it is; none of the system's or a server's refusals."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EPROTO, reason)

    def __reduce__(self) -> tuple[Any, ...]:
        return RefusedError, (self.strerror,)


class StatusError(Exception):
    """An answer over http other than was hoped for."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


# What the libraries call troubles that pass; by name, so that none of them need be installed.
_PASSING = frozenset(
    ("TimeoutError", "FSTimeoutError", "ConnectionError", "ClientConnectionError",
     "ClientPayloadError", "IncompleteRead", "IncompleteReadError", "HTTPClientError",
     "ReadTimeoutError", "ConnectTimeoutError", "EndpointConnectionError",
     "ConnectionClosedError", "ResponseStreamingError", "ServiceRequestError",
     "ServiceResponseError")
)  # fmt: skip
_PASSING_ERRNOS = frozenset(
    (errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE)
)
_NO_CREDENTIALS = frozenset(
    ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
     "TokenRetrievalError", "ProfileNotFound", "ClientAuthenticationError")
)  # fmt: skip


def translate_failure(error: Exception) -> tuple[OSError, bool]:
    """An error of any of the libraries as an OSError that says no secret; whether it may pass."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = _status(error)
    refusal = error if isinstance(error, RefusedError) else error.__cause__
    if isinstance(refusal, RefusedError):
        return refusal, False
    if isinstance(error, ShortTroubleError):
        return OSError(errno.EIO, str(error)), True
    if names & _PASSING:
        return OSError(errno.EIO, f"no answer, or one broken off ({type(error).__name__})"), True
    if names & _NO_CREDENTIALS:
        reason = (
            "no credentials, or wrong ones; set them in the environment "
            "(s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true)"
        )
        return PermissionError(errno.EACCES, reason), False
    if isinstance(error, FileExistsError) or status == 412:
        return FileExistsError(errno.EEXIST, "is there already"), False
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        bucket = " (no such bucket)" if "NoSuchBucket" in repr(error.__cause__) else ""
        return FileNotFoundError(errno.ENOENT, f"no such file or folder{bucket}"), False
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(errno.EACCES, "access denied by the server"), False
    if status is not None and status >= 400:
        passing = status in (408, 409, 425, 429) or status >= 500
        return OSError(errno.EIO, f"the server answers with status {status}"), passing
    if isinstance(error, OSError) and error.errno in _PASSING_ERRNOS:
        return OSError(errno.EIO, f"no answer, or one broken off ({error.strerror})"), True
    code, reason = errno.EIO, f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.strerror:
        code, reason = error.errno or code, error.strerror
    return OSError(code, redacted_text(" ".join(str(reason).split()))[:200]), False


def _status(error: BaseException) -> int | None:
    """The http status behind an error, if one can be found."""
    for source in (error, error.__cause__):
        response = getattr(source, "response", None)
        if isinstance(response, dict):  # botocore's
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                return status
        for name in ("status", "status_code", "code"):
            value = getattr(source, name, None)
            if isinstance(value, int | str) and re.fullmatch(r"[1-5]\d\d", str(value)):
                return int(value)
    return None


def too_large_error(size_bytes: int | None, limit_bytes: int) -> OSError:
    """The refusal of an object that would fill the memory."""
    size = "more" if size_bytes is None else f"{size_bytes} bytes"
    return OSError(errno.EFBIG, f"{size}, where at most {limit_bytes} bytes are read")


def check_length(length: int, wanted: int) -> None:
    if length < wanted:
        raise ShortTroubleError(f"ends after {length} of {wanted} bytes")
    if length > wanted:
        raise OSError(errno.EIO, f"the server gives {length} bytes where {wanted} are right")
