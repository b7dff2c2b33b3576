"""The recognisers that vidface knows, what they cost, and what a file of weights is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.backbones.architectures import ARCHITECTURES, Architecture, architecture
from vidface.backbones.budget import (
    MAX_DIMENSION,
    MAX_FLOPS,
    MAX_MIB,
    Budget,
    count_graph,
    count_module,
)
from vidface.backbones.export import OPSET, export_onnx, write_onnx
from vidface.backbones.files import read_network
from vidface.backbones.loading import declared_preprocessing
from vidface.backbones.weights import WEIGHTS
from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE
from vidface.storage.cache import sha256_of

if TYPE_CHECKING:
    from torch import nn

    from vidface.backbones.files import Network
    from vidface.backbones.preprocessing import Preprocessing
    from vidface.backbones.weights import WeightsRecord


@dataclass(frozen=True)
class Limits:
    """What a recogniser may cost; the challenge's light tracks by default. Equal is inside."""

    max_flops: float = MAX_FLOPS  # by the challenge's counter
    max_mib: float = MAX_MIB
    max_dimension: int = MAX_DIMENSION

    def __str__(self) -> str:
        return f"{self.max_flops / 1e9:g} GFLOPs, {self.max_mib:g} MiB, {self.max_dimension}-d"

    def admit(self, budget: Budget) -> bool | None:
        """Whether all limits hold; None where that can't be told."""
        return budget.fits(self.max_flops, self.max_mib, self.max_dimension)


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
        return {
            "name": self.name,
            "kind": self.kind,
            **self.budget.to_dict(),
            "fits": self.fits,
            "licence": self.licence,
            "sha256": self.sha256,
            "lfw_accuracy": self.lfw_accuracy,
            "published_flops": self.published_flops,
            "published_size": self.published_size,
        }


def list_models(limits: Limits | None = None) -> list[Model]:
    """All recognisers that have a name: weights first, then architectures."""

    limits = limits or Limits()
    records = [record for record in WEIGHTS.values() if record.kind == "recogniser"]
    return [
        *(_weights_model(record, limits) for record in records),
        *(_architecture_model(each, limits) for each in ARCHITECTURES.values()),
    ]


def _weights_model(record: WeightsRecord, limits: Limits) -> Model:
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


def _architecture_model(each: Architecture, limits: Limits) -> Model:

    budget = count_module(each.build())  # on the CPU faster than on torch's meta device
    published = each.published
    return Model(
        each.name,
        "architecture",
        budget,
        limits.admit(budget),
        published_flops=published.flops if published else None,
        published_size=published.size or None if published else None,
    )


def count_file(path: Path) -> Budget:
    """What a file of weights costs, read from its graph or its network.

    Raises:
        VidfaceError: no such file, damaged, or no recogniser.
    """

    if not path.is_file():
        raise VidfaceError(f"{path}: no such file")
    network = read_network(path, path.name)
    if network.model is not None:
        return count_graph(network.model, path.name)
    if network.module is None:
        raise VidfaceError(f"{path}: neither a graph nor a network")
    return count_module(network.module)


@dataclass(frozen=True)
class TableRow:
    """A line of the paper's Table 1, as the module itself is built; `t` is None where it has none.

    `input_shape` is (height, width, channels), as the paper writes it.
    """

    input_shape: tuple[int, int, int]
    operator: str
    t: int | None
    c: int
    n: int
    s: int

    def cells(self) -> tuple[str, ...]:
        """The row as the paper prints it."""
        size = "*".join(str(each) for each in self.input_shape)
        t = "-" if self.t is None else str(self.t)
        return (size, self.operator, t, str(self.c), str(self.n), str(self.s))


def layer_table(module: nn.Module) -> list[TableRow]:
    """Table 1 of the paper, read off a network of its family by sending a face through.

    Raises:
        VidfaceError: another kind of network.
    """
    import torch

    from vidface.backbones.bottlenecks import Bottleneck, BottleneckNetwork

    if not isinstance(module, BottleneckNetwork):
        raise VidfaceError(f"{type(module).__name__}: has no table of stages")
    shapes: dict[str, tuple[int, int, int]] = {}

    def note(name: str) -> Any:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            channels, height, width = inputs[0].shape[1:]
            shapes[name] = (height, width, channels)

        return hook

    parts: dict[str, nn.Module] = {"stem": module.stem, "last": module.last, "gdc": module.gdc}
    stages: list[Any] = list(module.stages)
    parts |= {str(number): stage for number, stage in enumerate(stages)}
    handles = [part.register_forward_hook(note(name)) for name, part in parts.items()]
    training = module.training
    device = next(module.parameters()).device
    try:
        with torch.inference_mode():
            embedding = module.eval()(torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=device))
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    rows = [_plain_row(shapes["stem"], "Conv", module.stem)]
    for number, stage in enumerate(stages):
        first: Any = stage[0]
        t: int | None = None
        if isinstance(first, Bottleneck):
            depthwise: Any
            project: Any
            depthwise, project = first.depthwise.conv, first.project.conv
            operator, t = "Block", int(depthwise.in_channels)
            c, s = project.out_channels, depthwise.stride[0]
        else:
            operator = "Depthwise"
            c, s = first.conv.out_channels, first.conv.stride[0]
        rows.append(TableRow(shapes[str(number)], operator, t, c, len(stage), s))
    rows.append(_plain_row(shapes["last"], "Conv", module.last))
    gdc = TableRow(shapes["gdc"], "GDC", None, embedding.shape[1], 1, 1)
    return [*rows, gdc]


def _plain_row(shape: tuple[int, int, int], operator: str, layer: Any) -> TableRow:
    return TableRow(shape, operator, None, layer.conv.out_channels, 1, layer.conv.stride[0])


@dataclass(frozen=True)
class Description:
    """One recogniser in full."""

    model: Model
    source: str
    note: str
    rows: tuple[TableRow, ...]
    facts: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        rows = [asdict(row) for row in self.rows]
        return {**self.model.to_dict(), "source": self.source, "note": self.note, **self.facts,
                "table": rows}  # fmt: skip


def describe(name: str, limits: Limits | None = None) -> Description:
    """A recogniser by name, with its table of layers where it is an architecture of the family.

    Raises:
        VidfaceError: unknown name; the message lists the known ones.
    """
    from vidface.backbones.bottlenecks import BottleneckNetwork

    limits = limits or Limits()
    if name in WEIGHTS and WEIGHTS[name].kind == "recogniser":
        record = WEIGHTS[name]
        fed = f"{record.color} (x − {record.mean:g}) / {record.std:g}"
        facts = {
            "file": record.file,
            "fed": f"{record.input_size}x{record.input_size} {fed}",
            "template": record.template or "",
            "homepage": record.homepage,
        }
        return Description(_weights_model(record, limits), record.homepage, "", (), facts)
    found = architecture(name)
    built = found.build()
    rows = tuple(layer_table(built)) if isinstance(built, BottleneckNetwork) else ()
    note = found.published.note if found.published else ""
    return Description(_architecture_model(found, limits), found.source, note, rows, {})


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


def export(
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
    found = architecture(name)
    fed = preprocessing
    declaration: dict[str, Any] = {}
    if weights is None:
        module: nn.Module | None = found.build(seed=seed).eval()
        declaration["untrained_seed"] = seed
    else:
        path = Path(weights)
        if not path.is_file():
            raise VidfaceError(f"weights {path}: no such file")
        if path.suffix.lower() == ".onnx":
            raise VidfaceError(f"weights {path}: are ONNX already")
        network: Network = read_network(path, path.name, found.name)
        module, fed = network.module, declared_preprocessing(weights, preprocessing)
        declaration |= {**network.declaration, "made_from_sha256": network.sha256}
    if module is None:
        raise VidfaceError(f"weights {weights}: neither a graph nor a network")
    declaration["architecture"] = found.name
    declaration.pop("preprocessing", None)
    if fed is not None:
        declaration["preprocessing"] = fed.to_dict()
    write_onnx(export_onnx(module, declaration, found.name), out)
    return Exported(
        out,
        sha256_of(out),
        OPSET,
        found.name,
        seed if weights is None else None,
        out.stat().st_size,
    )
