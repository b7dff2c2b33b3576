"""Denoisers: the ways to decide which faces of a clip are noise, each by its name.

A denoiser is one file here and one row in `DENOISERS`; its flags, its keys of a pipeline file and
its documentation come from its fields. `vidface.noise.removal.remove_noise` runs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.values import check_name
from vidface.noise.denoisers.base import Denoiser
from vidface.noise.denoisers.complete_linkage import CompleteLinkage
from vidface.noise.denoisers.dbscan import Dbscan
from vidface.noise.denoisers.hdbscan import Hdbscan
from vidface.noise.denoisers.none import KeepAll
from vidface.noise.denoisers.oracle import Oracle
from vidface.noise.denoisers.trim import Trim
from vidface.noise.denoisers.union_find import UnionFind

DENOISERS: dict[str, type[Denoiser]] = {
    "union-find": UnionFind,
    "none": KeepAll,
    "dbscan": Dbscan,
    "hdbscan": Hdbscan,
    "complete-linkage": CompleteLinkage,
    "trim": Trim,
    "oracle": Oracle,
}
"""Every denoiser by its name."""


def make_denoiser(name: str, settings: Mapping[str, Any]) -> Denoiser:
    """Make a denoiser by its name, with those of the settings that it has.

    Raises:
        VidfaceError: an unknown name, or a setting out of its range.

    >>> make_denoiser("trim", {"trim_share": 0.5, "threshold": 0.4})
    Trim(trim_share=0.5)
    """
    check_name("denoiser", name, DENOISERS)
    kind = DENOISERS[name]
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in settings.items() if key in known})


def name_of_denoiser(denoiser: Denoiser) -> str:
    """Look up the name under which a denoiser is registered."""
    for name, kind in DENOISERS.items():
        if kind is type(denoiser):
            return name
    raise VidfaceError(f"{denoiser}: not in DENOISERS (known: {', '.join(DENOISERS)})")


def denoiser_record(denoiser: Denoiser) -> dict[str, Any]:
    """A denoiser's name and settings, as artefacts record them.

    >>> denoiser_record(Trim())
    {'method': 'trim', 'trim_share': 0.25}
    """
    return {"method": name_of_denoiser(denoiser), **denoiser.to_record()}
