"""Redaction takes the time and stack that a message's length is worth, whatever is in it."""

from __future__ import annotations

import time

import pytest

from vidface.core.redaction import is_url, redacted, redacted_text


@pytest.mark.parametrize(
    "text",
    ["x" * 50_000, "token" * 10_000, "ab:/" * 20_000, "http://h/x" * 3000, "::" * 20_000],
)
def test_a_long_text_takes_no_long_time(text: str) -> None:
    start = time.perf_counter()
    assert redacted_text(text).replace("://", ":/") == text.replace("://", ":/")
    redacted(text), is_url(text)
    assert time.perf_counter() - start < 1


def test_an_address_within_an_address_hides_its_user_too() -> None:
    assert redacted("http://h/s3://k:p@b/http://u:p@h/a?q") == "http://h/s3://***@h/a?***"
    assert redacted_text("at 1https://u:p/w@h/a") == "at 1https://***"
    assert redacted_text("xsig=1,my-token=2&key=3") == "xsig=***&key=***"
