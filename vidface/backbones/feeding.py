"""What a recogniser is fed, and who says so: its record, its file, its graph, or whoever asks.

A graph that normalises its pictures itself is fed them raw. What contradicts a graph, or the record
of a file that vidface knows, stops: fed twice normalised, InsightFace's y1 fell from 99 to 60 % on
LFW without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidface.backbones.cards import find_card
from vidface.backbones.conforming import fit_to_graph
from vidface.backbones.declarations import graph_declaration
from vidface.backbones.files import read_bare_graph, read_declaration
from vidface.backbones.own_affine import OwnAffine, read_own_affine
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes.places import OwnProcess, Place
from vidface.backbones.weights import WEIGHTS, WeightsRecord
from vidface.core.errors import VidfaceError
from vidface.storage.cache import sha256_of

RAW = Preprocessing("rgb", mean=0.0, std=1.0)


@dataclass(frozen=True)
class Feed:
    """What a recogniser is fed.

    Attributes:
        assumed: nobody says so.
        known: vidface knows the file, and what it reaches when it is fed so.
        remark: a line for people on where it comes from; "" where nothing is to be said.
        forced: what was overridden as --force-recogniser asks; "" for nothing.
        force: whether it goes on where its trial fails, too.
    """

    preprocessing: Preprocessing
    assumed: bool = False
    known: bool = False
    remark: str = ""
    forced: str = ""
    force: bool = False


def decide_feed(
    weights: str,
    given: Preprocessing | None = None,
    *,
    force: bool = False,
    place: Place | None = None,
) -> Feed:
    """What a registered name or a file of weights is fed.

    Args:
        given: what whoever asks says, in whole or in part.
        force: go on with what is given where it contradicts a record or a graph.
        place: where a stranger's graph is worked on, if it has one already.

    Raises:
        VidfaceError: what is given, or what the file says of itself, contradicts that.
    """
    said = given or Preprocessing()
    path = Path(weights)
    if weights in WEIGHTS and given is not None and not force:
        raise VidfaceError(
            f"weights '{weights}' bring their own preprocessing; leave color, mean, std, size "
            "and template out (--force-recogniser goes on with them)"
        )
    if weights not in WEIGHTS and (card := find_card(weights)) is not None:
        if (fed := said.over(card.fed)) != card.fed:
            return _forced(weights, f"its card says {card.fed}, not {fed}", fed, force)
        path, said = Path(card.weights), card.fed
        weights = str(path)
    record = WEIGHTS.get(weights) or _find_record(path)
    if record is not None and record.preprocessing is not None:
        return _recorded(weights, record, record.preprocessing, said, force)
    if not path.is_file():
        return Feed(said, assumed=given is None)
    graph = read_bare_graph(path) if path.suffix.lower() == ".onnx" else None
    declaration = graph_declaration(graph, path.name) if graph else read_declaration(path)
    place = place or OwnProcess(path.name)
    affine = read_own_affine(graph, path.parent, place) if graph else None
    declared = None
    if "preprocessing" in declaration:
        declared = Preprocessing.from_dict(declaration["preprocessing"], f"weights {weights}")
    fed = said.over(declared) if declared else said
    if graph is not None:
        fed = fit_to_graph(fed, graph, path.name)
    if affine is not None and affine.fits_pixels:
        return _normalised_inside(path.name, affine, fed, force)
    if affine is not None and not affine.after(fed).fits_pixels:
        remark = (
            f"{path.name}: its graph begins with {affine}, which fits no pixels from 0 to 255; fed "
            f"{fed} before that (does it want pixels from 0 to 1? --mean 0 --std 255)"
        )
        return Feed(fed, assumed=fed.is_assumed, remark=remark)
    if declared and fed != declared:
        return Feed(fed, remark=f"{path.name}: its file says {declared}; fed {fed}, as was said")
    if not fed.is_assumed:
        return Feed(fed)
    remark = (
        f"{path.name}: nobody says what it is fed; assuming {fed.color}, mean {fed.mean}, "
        f"std {fed.std} (say it with --color, --mean, --std or in [backbone])"
    )
    return Feed(fed, assumed=True, remark=remark)


def _find_record(path: Path) -> WeightsRecord | None:
    """The record of a file that is one of those known by name, whatever it is called."""
    size = path.stat().st_size if path.is_file() else None
    alike = [record for record in WEIGHTS.values() if record.bytes == size]
    sha256 = sha256_of(path) if alike else None
    return next((record for record in alike if record.sha256 == sha256), None)


def _recorded(
    weights: str, record: WeightsRecord, right: Preprocessing, said: Preprocessing, force: bool
) -> Feed:
    fed = said.over(right)
    by_path = weights != record.name
    if fed == right:
        remark = f"{Path(weights).name}: the file of '{record.name}', fed {right}"
        return Feed(right, known=True, remark=remark if by_path else "")
    reason = f"it is the file of '{record.name}', which is fed {right}, not {fed}"
    return _forced(Path(weights).name, reason, fed, force)


def _normalised_inside(name: str, affine: OwnAffine, fed: Preprocessing, force: bool) -> Feed:
    """The feed of a graph that normalises raw pixels itself."""
    raw = fed.over(RAW)
    if affine.after(raw).fits_pixels:
        remark = f"{name}: its graph begins with {affine}, so it is fed raw pixels ({raw.color})"
        return Feed(raw, remark="" if raw == fed else remark)
    reason = f"its graph begins with {affine} on raw pixels, and {raw} would normalise them twice"
    return _forced(name, reason, raw, force)


def _forced(name: str, reason: str, fed: Preprocessing, force: bool) -> Feed:
    """What is fed against a record or a graph, or the error that says so."""
    if not force:
        raise VidfaceError(
            f"weights {name}: {reason}: leave color, mean, std, size and template out, or go "
            "on with them by --force-recogniser"
        )
    return Feed(fed, remark=f"{name}: {reason}; going on, as forced", forced=reason)
