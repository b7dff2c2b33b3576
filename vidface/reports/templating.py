"""The HTML of a report: Jinja2's templates, in which every text is escaped."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vidface.reports.scores import ScoreFigure


@lru_cache
def report_templates() -> Environment:
    """The environment of the templates that travel with the package.

    A name that a template lacks is an error, not an empty text.
    """
    environment = Environment(
        loader=PackageLoader("vidface.reports"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "rate": format_rate,
        "share": format_share,
        "interval": format_interval,
        "on_scale": format_place_on_scale,
    }
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def read_asset(name: str) -> str:
    """A script, style or licence that travels with the package."""
    return (resources.files("vidface.reports") / "assets" / name).read_text(encoding="utf-8")


def clean_text(text: str) -> str:
    """Text without characters that steer what shows it: controls, directions, lone surrogates.

    >>> clean_text("a\\u202eb\\x00")
    'a�b�'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def format_rate(value: float | None) -> str:
    """A rate as tables have it, "0.1234"."""
    return "n/a" if value is None else f"{value:.4f}"


def format_share(value: float | None) -> str:
    """A share in percent."""
    return "n/a" if value is None else f"{value:.1%}"


def format_interval(figure: ScoreFigure) -> str:
    """The 95 % interval in brackets; where there is no figure, why."""
    if figure.ci95 is None:
        return figure.note if figure.value is None else ""
    return f"[{figure.ci95[0]:.4f}, {figure.ci95[1]:.4f}]{'*' if figure.note else ''}"


def format_place_on_scale(value: float) -> str:
    """Where a rate stands on a scale that is 100 wide."""
    return f"{2 + 96 * min(1.0, max(0.0, value)):.1f}"


def _finalize(value: Any) -> Any:
    return value if isinstance(value, Markup) else clean_text(str(value))
