"""The tables of a pipeline file: which dataclass of settings each is, in the data's order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vidface.backbones.settings import BackboneSettings
from vidface.core.settings import check_settings, setting, table_settings
from vidface.faces.settings import FaceSettings
from vidface.frames.settings import FrameSettings
from vidface.metrics.settings import ScoreSettings
from vidface.noise.settings import ClusterSettings
from vidface.settings.run_settings import RunSettings
from vidface.storage.urls import Address
from vidface.vectors.settings import DescriptorSettings


@dataclass(frozen=True)
class ManifestSettings:
    """Which clips there are, and where they lie."""

    GROUP: ClassVar[str] = "Clips"

    path: Path | Address = setting(
        flag="--manifest",
        metavar="CSV",
        help="The table of clips: a CSV file (data_manifests/README.md) or its URL.",
    )
    root: Path | Address | None = setting(
        None,
        metavar="DIR|TAR",
        help="Where relative paths of the manifest start: a folder, a .tar (uncompressed) or URL.",
        default_text="the manifest's folder",
    )
    prepare: str | None = setting(
        None,  # a name of vidface.runs.run.PREPARERS, which stands above
        flag=None,
        help='What makes the manifest: "demo" makes it with its clips, "iqiyi" and "lfrc" from the '
        "challenge's files in the root.",
    )
    allow_missing: bool = setting(
        False, help="Run on without clips whose file is missing; they count as missing."
    )
    limit: int | None = setting(
        None,
        metavar="N",
        help="Work on N clips alone, spread over people and splits; in a run directory of their "
        "own, DIR-limit-N, unless --run names one.",
        bounds="[1, inf)",
        default_text="all clips",
    )
    allow_private: bool = setting(
        False,
        help="A manifest that lies at a public address may name addresses in a private network.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check_settings(self, "[manifest]")


TABLES: dict[str, type] = {
    "manifest": ManifestSettings,
    "frames": FrameSettings,
    "faces": FaceSettings,
    "backbone": BackboneSettings,
    "cluster": ClusterSettings,
    "descriptor": DescriptorSettings,
    "score": ScoreSettings,
    "run": RunSettings,
}


def flag_keys(tables: Mapping[str, type] = TABLES) -> dict[str, tuple[str, str]]:
    """The (table, key) that a flag replaces, by the name of its value: `stall_timeout`."""
    return {
        field.flag_name: (table, field.name)
        for table, kind in tables.items()
        for field in table_settings(kind)
        if field.flag_name is not None
    }
