"""Cards of recognisers: TOML files that say once what a file of weights is and is fed.

A card is named by its path, or by its name where it lies in the folder that VIDFACE_CARDS names.
Its contents that change figures stand in the provenance as if they had been given by flags.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidface.backbones.graphs import onnx_sha256
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.core.files import absolute_path, read_toml
from vidface.core.settings import build_settings, check_settings, file_setting, settings_of
from vidface.core.values import check
from vidface.storage.cache import sha256_of

FOLDER_VARIABLE = "VIDFACE_CARDS"


@dataclass(frozen=True)
class Card:
    """A recogniser as its card says it."""

    weights: str = file_setting(help="The file of weights; its path starts at the card's folder.")
    sha256: str = file_setting(help="Of that file; another one is refused.")
    preprocessing: Mapping[str, Any] = file_setting(
        help="What it is fed: color, mean, std; size (a side, or height and width) and template."
    )
    output: str | None = file_setting(None, help="The embedding's name, where outputs are several.")
    architecture: str | None = file_setting(None, help="Of a file of bare parameters.")
    licence: str = file_setting("", help="Of the weights.")
    training_data: str = file_setting("", help="What it was trained on.")
    source: str = file_setting("", help="Where the weights come from.")

    def __post_init__(self) -> None:
        check_settings(self, "key")
        check(isinstance(self.preprocessing, Mapping), "preprocessing", "must be a table")
        _ = self.fed

    @property
    def fed(self) -> Preprocessing:
        """What it is fed.

        Raises:
            VidfaceError: the card doesn't say it, or in a form of no use.
        """
        return Preprocessing.from_dict(self.preprocessing, "preprocessing")

    def check_file(self) -> Path:
        """The file of weights.

        Raises:
            VidfaceError: there is none, or it isn't the one that the card is of.
        """
        path = Path(self.weights)
        if not path.is_file():
            raise VidfaceError(f"weights {path} of a card: no such file")
        sha256 = hash_weights(path)
        if sha256 != self.sha256.lower():
            raise VidfaceError(
                f"weights {path} are another file than their card is of: their sha256 is {sha256}, "
                f"not {self.sha256}"
            )
        return path


def find_card(weights: str) -> Card | None:
    """The card that a recogniser is named by; None where it is named otherwise.

    Raises:
        VidfaceError: unreadable, an unknown key, a value of the wrong kind.
    """
    path = known_cards().get(weights, Path(weights))
    if path.suffix.lower() != ".toml" or not path.is_file():
        return None
    document = read_toml(path, "card")
    missing = [key for key in ("weights", "sha256", "preprocessing") if key not in document]
    if missing:
        raise VidfaceError(f"card {path}: does not say '{missing[0]}'")
    try:
        card: Card = build_settings(Card, document, "it")
    except VidfaceError as error:
        raise VidfaceError(f"card {path}: {error}") from None
    return replace(card, weights=str(absolute_path(card.weights, path.absolute().parent)))


def known_cards() -> dict[str, Path]:
    """The cards in the folder that VIDFACE_CARDS names, by their names."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return {path.stem: path for path in sorted(Path(folder).glob("*.toml"))} if folder else {}


def hash_weights(path: Path) -> str:
    """The hash by which artefacts know a file of weights."""
    return onnx_sha256(path) if path.suffix.lower() == ".onnx" else sha256_of(path)


def write_card(path: Path, fed: Preprocessing, known: Card | None = None) -> str:
    """The text of a card of a file to start from, with what is `known` of it."""
    said = {"weights": str(path.absolute()), "sha256": hash_weights(path)}
    lines = []
    for setting in settings_of(Card):
        if setting.name != "preprocessing":
            value = said.get(setting.name) or getattr(known, setting.name, None)
            line = f"{setting.name} = {json.dumps(value or '', ensure_ascii=False)}"
            lines += [f"# {setting.help}", line if value or setting.default == "" else f"# {line}"]
    keys = {**fed.to_dict(), "template": fed.template}
    lines += ["", "[preprocessing]", *(f"{key} = {json.dumps(keys[key])}" for key in keys)]
    return "\n".join(lines)
