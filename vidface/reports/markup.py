"""HTML from Python, with every text escaped: the few elements that reports are made of."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any


class Markup(str):
    """Text that is HTML already. Whatever is not of this class is escaped."""

    __slots__ = ()


def esc(value: object) -> Markup:
    """A text as HTML that shows as that text; control and direction characters become `�`.

    >>> str(esc("<img src=x onerror=alert(1)> & \\u202e'"))
    '&lt;img src=x onerror=alert(1)&gt; &amp; �&#x27;'
    """
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(clean(str(value))))


def clean(text: str) -> str:
    """Text without characters that steer what shows it: controls, directions, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element; attributes that are None or False are left out, `class_` is `class`.

    >>> str(tag("td", "a<b", class_="n", data_row=3))
    '<td class="n" data-row="3">a&lt;b</td>'
    """
    inside = "".join(esc(child) for child in children)
    return Markup(f"<{name}{_attributes(attributes)}>{inside}</{name}>")


def _attributes(attributes: dict[str, object]) -> str:
    found = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        found.append(f" {key}" if value is True else f' {key}="{esc(value)}"')
    return "".join(found)


def join(parts: Iterable[object]) -> Markup:
    return Markup("".join(esc(part) for part in parts))


def table(
    heads: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    numbers: Iterable[int] = (),
    id_: str | None = None,
) -> Markup:
    """A table below its caption, which scrolls by itself where it is too wide.

    The first cell of a row is its head.

    Args:
        numbers: columns that are set to the right.
    """
    right = set(numbers)

    def kind(column: int) -> str | None:
        return "n" if column in right else None

    head = join(tag("th", h, scope="col", class_=kind(i)) for i, h in enumerate(heads))
    body = join(
        tag("tr", *(
            tag("td" if i else "th", cell, class_=kind(i), scope=None if i else "row")
            for i, cell in enumerate(row)
        ))
        for row in rows
    )  # fmt: skip
    made = tag("table", tag("thead", tag("tr", head)), tag("tbody", body), id=id_)
    label = caption or ", ".join(str(h) for h in heads if h)
    region = tag("div", made, class_="scroll", tabindex=0, role="region", aria_label=label[:120])
    return join((tag("p", caption, class_="caption"), region)) if caption else region


def facts(rows: Iterable[tuple[object, object]]) -> Markup:
    """A list of names and values; rows without a value are left out."""
    return tag("dl", *(
        join((tag("dt", name), tag("dd", value))) for name, value in rows if value not in ("", None)
    ))  # fmt: skip


def json_block(document: Any) -> Markup:
    """A JSON document that can't end the script element it stands in, whatever its texts.

    >>> str(json_block({"a": "</script><!--"}))
    '{"a":"\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 too
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
