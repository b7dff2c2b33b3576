"""The networks that vidface can build, as tables; no torch is needed to read them.

`find_architecture("paper")` gives the paper's Table 1; "paper-x0.5" is the same with half of the
channels, "paper-x0.5-d0.25" with a quarter of the blocks as well. An architecture is not weights:
it can be shown, counted, exported and trained, but what extracts is a file of weights that fits it.
"""

from __future__ import annotations

import math
import pkgutil
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vidface.core.errors import UsageError, VidfaceError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class StageRow:
    """A line of the paper's Table 1: n blocks of c output channels, the first with stride s.

    `t` is the number of channels of the depthwise convolution; None is no bottleneck at all but
    one plain 3x3 depthwise convolution (the first stage of MobileFaceNet and y1).
    """

    t: int | None
    c: int
    n: int
    s: int


@dataclass(frozen=True)
class LayerRow:
    """A line of the paper's Table 1, as a module itself is built; `t` is None where it has none.

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
        size = "*".join(str(side) for side in self.input_shape)
        t = "-" if self.t is None else str(self.t)
        return (size, self.operator, t, str(self.c), str(self.n), str(self.s))


@dataclass(frozen=True)
class PublishedCost:
    """What a paper prints of a network's cost, as it prints it."""

    flops: str
    size: str
    note: str = ""


@dataclass(frozen=True)
class Architecture:
    """A network from (n, 3, 112, 112) to (n, dimension), by its module and its own table."""

    name: str
    dimension: int
    source: str
    builder: str  # "module:callable", called with the architecture
    stem: int = 64  # channels after the first convolution, 3x3 with stride 2
    rows: tuple[StageRow, ...] = ()
    last: int = 512  # channels of the 1x1 convolution before the global depthwise one
    se_reduction: int | None = None  # squeeze-and-excitation to c/r channels; None: there is none
    head: Literal["convolution", "linear"] = "convolution"
    norm_eps: float = 1e-5
    embedding_norm_eps: float = 1e-5
    published: PublishedCost | None = None

    @property
    def has_layer_table(self) -> bool:
        """Whether the module can print itself as the paper's Table 1, by its `layer_table`."""
        return self.builder == _BOTTLENECKS

    def build(self, *, seed: int = 0) -> nn.Module:
        """The module, with weights drawn from `seed`; the caller's random state is kept."""
        import torch

        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not CUDA's, which the fork leaves out
            return pkgutil.resolve_name(self.builder)(self)

    def build_empty(self) -> nn.Module:
        """The module on torch's meta device: shapes without numbers, built at once."""
        import torch

        with torch.device("meta"):
            return pkgutil.resolve_name(self.builder)(self)


_Stage = tuple[int, int, int]  # (t, c, n) of a stage


def _stage_rows(
    conv2: StageRow, conv3: _Stage, conv4: _Stage, conv5: tuple[int, int]
) -> tuple[StageRow, ...]:
    """Rows as the paper's family has them: of each stage a block that halves it, then n others.

    Args:
        conv5: (c, n); the t of all these networks are 512, then 256.
    """
    rows = [conv2]
    for t, c, n in (conv3, conv4):
        rows += [StageRow(t, c, 1, 2), StageRow(t, c, n, 1)]
    c, n = conv5
    return (*rows, StageRow(512, c, 1, 2), StageRow(256, c, n, 1))


_BOTTLENECKS = "vidface.backbones.bottlenecks:BottleneckNetwork"
_PAPER = "Chai et al., A Progressive Learning Framework for Unconstrained Face Recognition (2019)"


def _step(
    number: int, conv1: int, conv2: int, blocks: tuple[int, int, int], published: PublishedCost
) -> Architecture:
    """A step of the paper's Table 2 by the rule that its unprinted expansions are taken from.

    The widths of conv3, conv4 and conv5 are those of steps 1 to 3, 128, 256 and 512; step 4 narrows
    conv3 to 124. In the table a stage's C is the width that it hands on, so conv2's blocks keep
    conv1's width.
    """
    conv3 = 124 if number == 4 else 128
    conv4, conv5 = 256, 512
    return Architecture(
        name=f"paper-step{number}",
        dimension=256,
        source=f"{_PAPER}, Table 2, step {number}; expansions by a rule, the paper prints none",
        builder=_BOTTLENECKS,
        stem=conv1,
        rows=_stage_rows(
            StageRow(conv2, conv1, 2, 1),
            (2 * conv2, conv2, blocks[0]),
            (2 * conv3, conv3, blocks[1]),
            (conv4, blocks[2]),
        ),
        last=conv5,
        se_reduction=16,
        published=published,
    )


_ALL = (
    Architecture(
        name="paper",
        dimension=282,
        source=f"{_PAPER}, Table 1 (= Table 2, step 5)",
        builder=_BOTTLENECKS,
        stem=24,
        rows=_stage_rows(StageRow(56, 24, 2, 1), (116, 56, 6), (248, 124, 15), (256, 24)),
        se_reduction=16,
        published=PublishedCost(
            "976.6M", "20M", "it prints 7*7*256 as GDC's input; the row above gives 7*7*512"
        ),
    ),
    Architecture(
        name="y2",
        dimension=256,
        source=f"{_PAPER}, Table 2, step 0; the challenge's baseline network",
        builder=_BOTTLENECKS,
        rows=_stage_rows(StageRow(64, 64, 2, 1), (128, 64, 8), (256, 128, 16), (128, 4)),
        published=PublishedCost(
            "933.3M", "18M", "the size can't be reproduced: float32 parameters take 7.76 MiB"
        ),
    ),
    _step(1, 30, 62, (8, 18, 16), PublishedCost("1G", "18M", "the rule gives more than it prints")),
    _step(2, 28, 60, (8, 16, 19), PublishedCost("1G", "18M", "the rule gives more than it prints")),
    _step(3, 26, 58, (6, 16, 21), PublishedCost("1G", "19M")),
    _step(4, 24, 56, (6, 16, 23), PublishedCost("998.4M", "20M", "the rule gives less")),
    Architecture(
        name="y1",
        dimension=128,
        source="InsightFace's MobileFaceNet (blocks 1, 4, 6, 2; fully connected embedding)",
        builder=_BOTTLENECKS,
        rows=_stage_rows(StageRow(None, 64, 1, 1), (128, 64, 4), (256, 128, 6), (128, 2)),
        head="linear",
        norm_eps=1e-3,  # MXNet's default, and what its weights were trained with
        embedding_norm_eps=2e-5,
        published=PublishedCost("439.8M", ""),
    ),
    Architecture(
        name="mobilefacenet",
        dimension=128,
        source="foamliu/MobileFaceNet (ReLU6; a separable second convolution), Apache-2.0",
        builder="vidface.backbones.mobilefacenet:MobileFaceNet",
        rows=(StageRow(128, 64, 5, 2), StageRow(256, 128, 1, 2), StageRow(256, 128, 6, 1),
              StageRow(512, 128, 1, 2), StageRow(256, 128, 2, 1)),
    ),
)  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {each.name: each for each in _ALL}
ALIASES = {"paper-step5": "paper", "paper-step0": "y2"}

_NUMBER = r"[0-9]*\.?[0-9]+"
_SCALED = re.compile(
    rf"(?P<name>.+?)(?:-x(?P<width>{_NUMBER}))?(?:-d(?P<depth>{_NUMBER}))?(?:-e(?P<out>[0-9]+))?"
)
MAX_DIMENSION = 4096


def find_architecture(name: str) -> Architecture:
    """The architecture of that name; `NAME-x0.5` has half of the channels, `NAME-d0.25` a quarter
    of the blocks, `NAME-e128` an embedding of 128 numbers; in this order they go together
    (see `scale_architecture`).

    >>> find_architecture("paper").rows[0], find_architecture("paper-step5").name
    (StageRow(t=56, c=24, n=2, s=1), 'paper')
    >>> find_architecture("paper-x0.5-d0.25").rows[4], find_architecture("paper").rows[4]
    (StageRow(t=124, c=62, n=4, s=1), StageRow(t=248, c=124, n=15, s=1))
    >>> find_architecture("paper-x0.5-e128").dimension
    128

    Raises:
        VidfaceError: unknown name (the message lists the known ones), or a scale that is no use.
    """
    named = ARCHITECTURES.get(ALIASES.get(name, name))
    if named is not None:
        return named
    match = _SCALED.fullmatch(name)
    if match and ALIASES.get(match["name"], match["name"]) in ARCHITECTURES:
        base = find_architecture(match["name"])
        dimension = int(match["out"]) if match["out"] else None
        return scale_architecture(
            base, float(match["width"] or 1), float(match["depth"] or 1), dimension
        )
    known = ", ".join((*ARCHITECTURES, *ALIASES))
    raise UsageError(
        f"no architecture named '{name}' (known: {known}; NAME-x0.5 for half of the channels, "
        "NAME-d0.5 for half of the blocks, NAME-e128 for an embedding of 128 numbers)"
    )


def is_architecture(name: str) -> bool:
    """Whether `find_architecture` knows the name."""
    match = _SCALED.fullmatch(name)
    base = match["name"] if match else name
    return any(ALIASES.get(each, each) in ARCHITECTURES for each in (name, base))


def scale_architecture(
    base: Architecture, width: float, depth: float = 1.0, dimension: int | None = None
) -> Architecture:
    """`base` with every number of channels times `width` and of repeated blocks times `depth`.

    Channels are rounded to an even number of at least 8; a row's blocks to a whole number of at
    least 1. `dimension` is the embedding's; None keeps it. Width 1 and depth 1 are `base` itself,
    to the digit.

    Raises:
        VidfaceError: a scale outside [0.1, 4], or an architecture that has no table of widths.
    """
    dimension = base.dimension if dimension is None else dimension
    if width == 1 and depth == 1 and dimension == base.dimension:
        return base
    if not 1 <= dimension <= MAX_DIMENSION:
        raise VidfaceError(f"{base.name}: dimension {dimension} must lie in [1, {MAX_DIMENSION}]")
    for what, value in (("width", width), ("depth", depth)):
        if not 0.1 <= value <= 4:
            raise VidfaceError(f"{base.name}: {what} {value:g} must lie in [0.1, 4]")
    if base.builder != _BOTTLENECKS:
        raise VidfaceError(f"{base.name}: has one size only; scale one of the paper's networks")

    def narrow(channels: int) -> int:
        return channels if width == 1 else max(8, 2 * math.floor(channels * width / 2 + 0.5))

    def suffix(letter: str, value: float) -> str:  # all digits: the name is read again
        return "" if value == 1 else f"-{letter}{str(float(value)).removesuffix('.0')}"

    changes = (
        [f"channels times {width:g}"] * (width != 1)
        + [f"blocks times {depth:g}"] * (depth != 1)
        + [f"embedding of {dimension}"] * (dimension != base.dimension)
    )
    out = "" if dimension == base.dimension else f"-e{dimension}"
    return replace(
        base,
        name=f"{base.name}{suffix('x', width)}{suffix('d', depth)}{out}",
        dimension=dimension,
        source=f"{base.source}, {', '.join(changes)}",
        stem=narrow(base.stem),
        rows=tuple(
            replace(
                row,
                t=None if row.t is None else narrow(row.t),
                c=narrow(row.c),
                n=max(1, math.floor(row.n * depth + 0.5)),
            )
            for row in base.rows
        ),
        last=narrow(base.last),
        published=None,
    )
