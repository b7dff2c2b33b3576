"""The command `cache`: what was fetched, listed and cleared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidface.cli.options import CommandGroup, output_options, show
from vidface.cli.text_tables import grid, render

if TYPE_CHECKING:
    from vidface.cli.cache_listing import CacheEntry


@click.group(cls=CommandGroup, invoke_without_command=True)
@output_options
@click.pass_context
def cache(context: click.Context, as_json: bool) -> None:
    """List (default) or clear what was fetched: weights and the demo's clips.

    \b
    Example: vidface cache
    """
    if context.invoked_subcommand is None:
        _list_cache(as_json)


@cache.command(name="list")
@output_options
def cache_list(as_json: bool) -> None:
    """List what was fetched, and where it lies.

    \b
    Example: vidface cache list
    """
    _list_cache(as_json)


@cache.command(name="clear")
@output_options
def cache_clear(as_json: bool) -> None:
    """Remove what was fetched; other files in the folder stay.

    \b
    Example: vidface cache clear
    """
    from vidface.cli.cache_listing import clear_cache
    from vidface.storage.cache import cache_folder

    freed = clear_cache()
    text = f"{freed / 1e6:.1f} MB removed from {cache_folder()}"
    show(as_json, {"freed_bytes": freed}, lambda: text)


def _list_cache(as_json: bool) -> None:
    from vidface.cli.cache_listing import cache_entries
    from vidface.storage.cache import cache_folder

    entries = cache_entries()
    document = {
        "folder": str(cache_folder()),
        "entries": [
            {"name": e.name, "what": e.what, "path": str(e.path), "bytes": e.bytes} for e in entries
        ],
    }
    show(as_json, document, lambda: format_cache(cache_folder(), entries))


def format_cache(folder: Path, entries: Sequence[CacheEntry]) -> str:
    """What lies in the cache."""
    if not entries:
        return f"{folder}: empty"
    rows = [(e.name, f"{e.bytes / 1e6:.1f} MB", e.what, _below(folder, e.path)) for e in entries]
    columns = ("name", "size", "what", "path")
    return render(str(folder), grid(columns, rows, text=("what", "path"), whole=("path",)))


def _below(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
