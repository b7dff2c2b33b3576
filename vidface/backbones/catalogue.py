"""The recognisers that vidface knows, what they cost, and what a file of weights is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.backbones.architectures import ARCHITECTURES, Architecture, LayerRow, find_architecture
from vidface.backbones.budget import Budget, BudgetLimits, count_graph, count_module
from vidface.backbones.cards import Card, find_card, write_card
from vidface.backbones.export import OPSET, export_onnx, write_onnx
from vidface.backbones.feeding import decide_feed
from vidface.backbones.files import read_network
from vidface.backbones.loading import load_network
from vidface.backbones.weights import WEIGHTS, weights_path
from vidface.core.errors import VidfaceError
from vidface.storage.cache import sha256_of

if TYPE_CHECKING:
    from vidface.backbones.preprocessing import Preprocessing
    from vidface.backbones.weights import WeightsRecord


@dataclass(frozen=True)
class Model:
    """A recogniser by name: an architecture, or weights that can be fetched."""

    name: str
    kind: str  # "architecture" or "weights"
    budget: Budget
    fits: bool | None
    licence: str | None = None
    sha256: str | None = None
    lfw_accuracy: float | None = None  # a fraction, as measured here (README)
    published_flops: str | None = None
    published_size: str | None = None

    def to_dict(self) -> dict[str, Any]:
        name, kind, _, *rest = asdict(self).items()
        return dict([name, kind, *self.budget.to_dict().items(), *rest])


def list_models(limits: BudgetLimits | None = None) -> list[Model]:
    """All recognisers that have a name: weights first, then architectures."""

    limits = limits or BudgetLimits()
    records = [record for record in WEIGHTS.values() if record.kind == "recogniser"]
    return [
        *(_weights_model(record, limits) for record in records),
        *(_architecture_model(each, limits) for each in ARCHITECTURES.values()),
    ]


def _weights_model(record: WeightsRecord, limits: BudgetLimits) -> Model:
    if record.budget is None:
        raise VidfaceError(f"weights '{record.name}': their record has no budget")
    return Model(
        record.name,
        "weights",
        record.budget,
        limits.admit(record.budget),
        record.licence,
        record.sha256,
        record.lfw_accuracy,
    )


def _architecture_model(named: Architecture, limits: BudgetLimits) -> Model:
    budget = count_module(named.build())  # on the CPU faster than on torch's meta device
    model = Model(named.name, "architecture", budget, limits.admit(budget))
    if named.published is None:
        return model
    flops, size = named.published.flops, named.published.size
    return replace(model, published_flops=flops, published_size=size or None)


def count_file(path: Path) -> Budget:
    """What a file of weights costs, read from its graph or its network.

    Raises:
        VidfaceError: no such file, damaged, or no recogniser.
    """

    if not path.is_file():
        raise VidfaceError(f"{path}: no such file")
    network = read_network(path, path.name)
    if network.model is not None:
        budget: Budget = network.place.call(count_graph, network.model, path.name)
        return budget
    return count_module(network.require_module())


@dataclass(frozen=True)
class Description:
    """One recogniser in full."""

    model: Model
    source: str
    note: str
    rows: tuple[LayerRow, ...]
    facts: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        rows = [asdict(row) for row in self.rows]
        return {**self.model.to_dict(), "source": self.source, "note": self.note, **self.facts,
                "table": rows}  # fmt: skip


def describe(name: str, limits: BudgetLimits | None = None) -> Description:
    """A recogniser by name, with its table of layers where it is an architecture of the family.

    Raises:
        VidfaceError: unknown name; the message lists the known ones.
    """
    limits = limits or BudgetLimits()
    record = WEIGHTS.get(name)
    fed = record.preprocessing if record else None
    if record is not None and fed is not None:
        facts = {
            "file": record.file,
            "fed": f"{fed.size_text} {fed}",
            "template": fed.template or "",
            "homepage": record.homepage,
        }
        return Description(_weights_model(record, limits), record.homepage, "", (), facts)
    named = find_architecture(name)
    network: Any = named.build()
    rows = tuple(network.layer_table()) if named.has_layer_table else ()
    note = named.published.note if named.published else ""
    return Description(_architecture_model(named, limits), named.source, note, rows, {})


def draft_card(weights: str) -> str:
    """The text of a card of a recogniser, by name or file, for whoever completes it.

    Raises:
        VidfaceError: no such recogniser, or a file that vidface can't feed.
    """
    record, card = WEIGHTS.get(weights), find_card(weights)
    path = card.check_file() if card is not None else Path(weights)
    if record is not None and record.preprocessing is not None:
        path = weights_path(weights)
        card = Card("", "", {}, licence=record.licence, source=record.homepage)
    elif not path.is_file():
        load_network(weights)  # raises, and says what is known
    feed = decide_feed(weights)
    head = "# A recogniser's card: vidface extract --weights THIS.toml\n"
    if feed.assumed:  # a card is taken at its word: nobody would hear of it again
        head += "# Nobody says what the file is fed: color, mean and std are assumed, check them.\n"
    return head + write_card(path, feed.preprocessing, card)


@dataclass(frozen=True)
class Exported:
    """An ONNX file that was written."""

    path: Path
    sha256: str
    opset: int
    architecture: str | None
    seed: int | None  # of the weights, where none were given
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def export_architecture(
    name: str,
    out: Path,
    *,
    weights: str | None = None,
    preprocessing: Preprocessing | None = None,
    seed: int = 0,
) -> Exported:
    """Write a network as ONNX: batch norm folded, batch free, what it is fed in its metadata.

    Args:
        name: an architecture.
        weights: a file of its parameters; None: untrained ones, drawn from `seed`.
        preprocessing: what it is fed, where the file of weights does not say.

    Raises:
        VidfaceError: unknown architecture, parameters that do not fit, or a file that is ONNX
            already.
    """
    if out.suffix.lower() != ".onnx":
        raise VidfaceError(f"{out}: an exported network's file ends in .onnx")
    named = find_architecture(name)
    if weights is None:
        module, fed = named.build(seed=seed).eval(), preprocessing
        declaration: dict[str, Any] = {"untrained_seed": seed}
    else:
        path = Path(weights)
        if not path.is_file():
            raise VidfaceError(f"weights {path}: no such file")
        if path.suffix.lower() == ".onnx":
            raise VidfaceError(f"weights {path}: are ONNX already")
        network = read_network(path, path.name, named.name)
        feed = decide_feed(weights, preprocessing)
        module, fed = network.require_module(), None if feed.assumed else feed.preprocessing
        declaration = {**network.declaration, "made_from_sha256": network.sha256}
    declaration["architecture"] = named.name
    declaration.pop("preprocessing", None)
    if fed is not None:
        declaration["preprocessing"] = fed.to_dict()
    write_onnx(export_onnx(module, declaration, named.name), out)
    return Exported(
        out,
        sha256_of(out),
        OPSET,
        named.name,
        seed if weights is None else None,
        out.stat().st_size,
    )
