"""Hints: the student's maps follow a teacher's, at several depths (FitNets, Romero et al., 2015).

    H = Σ_l mean((A_l s_l − (t_l − μ_l) / σ_l)²)

s_l is the student's map (n, c, h, w) at a part l of its network, t_l the teacher's (n, C, h, w),
A_l an adapter, a 1x1 convolution from c to C channels that is learned and thrown away. μ_l and σ_l
are the teacher's, a channel each: 1 − H_l is the share of the teacher's variance that l explains.
An embedding says of a face d numbers; its maps say some ten thousand, of edges, eyes and noses that
all people share, so that few people teach a network much more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vidface.backbones.architectures import Architecture
from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE

_LEAST_SHARE = 0.05  # of the mean σ: a channel that is nearly always silent must not shout
MapShape = tuple[int, int, int]  # c, h, w


class Adapters(nn.Module):
    """A_l, μ_l and σ_l of every hint; the parameters start at 0, so that H starts at about 1 each.

    Args:
        channels: part → (c of the student, C of the teacher).
        statistics: part → (μ, σ), each (C,) float32, σ > 0.
    """

    def __init__(
        self,
        channels: Mapping[str, tuple[int, int]],
        statistics: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        super().__init__()
        self.parts = tuple(channels)
        self.convolutions = nn.ModuleList()
        for number, (part, (narrow, wide)) in enumerate(channels.items()):
            layer = nn.utils.skip_init(nn.Conv2d, narrow, wide, 1)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            self.convolutions.append(layer)
            for kind, values in zip(("mean", "std"), statistics[part], strict=True):
                per_channel = torch.from_numpy(np.asarray(values, np.float32))
                self.register_buffer(f"{kind}{number}", per_channel.reshape(1, -1, 1, 1))

    def forward(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> list[Tensor]:
        """H_l of every hint, in order, from maps by part."""
        losses = []
        for number, (part, layer) in enumerate(zip(self.parts, self.convolutions, strict=True)):
            mean, std = self.get_buffer(f"mean{number}"), self.get_buffer(f"std{number}")
            wanted = (teacher[part] - mean) / std
            losses.append((layer(student[part].float()) - wanted).square().mean())
        return losses


def channel_statistics(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(μ, σ), each (C,) float32, of maps (n, C, h, w); σ is at least a twentieth of its mean.

    >>> channel_statistics(np.array([[[[0.0, 2.0]], [[5.0, 5.0]]]]))
    (array([1., 5.], dtype=float32), array([1.   , 0.025], dtype=float32))
    """
    mean = maps.mean(axis=(0, 2, 3), dtype=np.float64)
    std = maps.std(axis=(0, 2, 3), dtype=np.float64)
    least = max(_LEAST_SHARE * float(std.mean()), 1e-6)
    return mean.astype(np.float32), np.maximum(std, least).astype(np.float32)


class WatchedParts:
    """Keeps what parts of a network give at its next call; `close` takes the hooks off again."""

    def __init__(self, network: nn.Module, parts: Sequence[str]) -> None:
        self.maps: dict[str, Tensor] = {}
        modules = dict(network.named_modules())
        self._handles = [modules[part].register_forward_hook(self._keeper(part)) for part in parts]

    def _keeper(self, part: str) -> Callable[[nn.Module, object, Tensor], None]:
        def keep(_: nn.Module, __: object, output: Tensor) -> None:
            self.maps[part] = output

        return keep

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def student_map_shapes(architecture: Architecture, parts: Sequence[str]) -> dict[str, MapShape]:
    """(c, h, w) of what parts of a network give, by a call without numbers.

    Raises:
        VidfaceError: a part that it has not (those of its first level are listed), or whose output
            is no map.
    """
    network = architecture.build_empty().eval()
    known = {name for name, _ in network.named_modules() if name}
    for part in parts:
        if part not in known:
            some = sorted(name for name in known if "." not in name)
            some += sorted(n for n in known if n.count(".") == 1 and n.rpartition(".")[2].isdigit())
            raise VidfaceError(
                f"[teacher] hints: '{architecture.name}' has no part '{part}' "
                f"(it has {', '.join(some)}, and parts of these)"
            )
    watched = WatchedParts(network, parts)
    with torch.no_grad():
        network(torch.empty(2, 3, CROP_SIZE, CROP_SIZE, device="meta"))
    shapes: dict[str, MapShape] = {}
    for part in parts:
        shape = tuple(watched.maps[part].shape) if part in watched.maps else ()
        if len(shape) != 4:
            raise VidfaceError(f"[teacher] hints: '{part}' gives {shape or 'nothing'}, not a map")
        shapes[part] = (shape[1], shape[2], shape[3])
    return shapes


def check_map_sizes(
    hints: Mapping[str, str], student: Mapping[str, MapShape], teacher: Mapping[str, MapShape]
) -> None:
    """Raise where a part's map and its teacher's are not of one height and width."""
    for part, name in hints.items():
        (_, *size), (_, *wanted) = student[part], teacher[name]
        if size != wanted:
            raise VidfaceError(
                f"[teacher] hints: '{part}' is {size[0]}x{size[1]} and the teacher's '{name}' "
                f"{wanted[0]}x{wanted[1]}: name two of one size"
            )
