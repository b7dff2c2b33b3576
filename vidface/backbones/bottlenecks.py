"""The paper's family of networks: linear bottlenecks, with or without squeeze-and-excitation.

Section 3.1 and Table 1 of the paper; MobileFaceNet's blocks with squeeze-and-excitation on the
linear output, before the identity is added. One module builds all of them from an `Architecture`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from vidface.backbones.architectures import Architecture, LayerRow, StageRow
from vidface.core.values import CROP_SIZE

GLOBAL_KERNEL = 7  # pixels: what four strides of 2 leave of 112


def conv_norm(
    channels: int,
    out: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    activation: bool = True,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution without bias → batch norm → PReLU (a slope a channel), the last if asked for."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False),
        norm=nn.BatchNorm2d(out, eps=eps),
    )
    if activation:
        layers["activation"] = nn.PReLU(out)
    return nn.Sequential(layers)


class SqueezeExcite(nn.Module):
    """Scales every channel by what a small network says of all channels' means; (n, c, h, w).

    Source: Hu et al., Squeeze-and-Excitation Networks (2018), with PReLU in the middle and biases.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.activation = nn.PReLU(squeezed)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.excite(self.activation(self.squeeze(mean))))


class Bottleneck(nn.Module):
    """1x1 to t channels → 3x3 depthwise → 1x1 to c (linear) → SE → identity where it fits.

    Figure 2, (c) for stride 1 and (d) for stride 2; (a) and (b) without SE.
    """

    def __init__(
        self, channels: int, t: int, c: int, stride: int, se_reduction: int | None, eps: float
    ) -> None:
        super().__init__()
        self.expand = conv_norm(channels, t, 1, eps=eps)
        self.depthwise = conv_norm(t, t, 3, stride=stride, padding=1, groups=t, eps=eps)
        self.project = conv_norm(t, c, 1, activation=False, eps=eps)
        self.se = SqueezeExcite(c, se_reduction) if se_reduction else nn.Identity()
        self.residual = stride == 1 and channels == c

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.project(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class BottleneckNetwork(nn.Module):
    """Faces (n, 3, 112, 112) float32, as their preprocessing gives them → (n, d), not normalised.

    `stages` has one entry a row of the table; `last`, `gdc` (the global depthwise convolution,
    linear) and `embedding` follow. The linear head is y1's: fully connected with bias, then batch
    norm.
    """

    def __init__(self, table: Architecture) -> None:
        super().__init__()
        eps = table.norm_eps
        self.stem = conv_norm(3, table.stem, 3, stride=2, padding=1, eps=eps)
        channels, stages = table.stem, []
        for row in table.rows:
            stages.append(_stage(channels, row, table))
            channels = row.c
        self.stages = nn.Sequential(*stages)
        self.last = conv_norm(channels, table.last, 1, eps=eps)
        self.gdc = conv_norm(
            table.last, table.last, GLOBAL_KERNEL, groups=table.last, activation=False, eps=eps
        )
        embedding: OrderedDict[str, nn.Module] = OrderedDict()
        if table.head == "linear":
            embedding["flatten"] = nn.Flatten()
            embedding["linear"] = nn.Linear(table.last, table.dimension)
            embedding["norm"] = nn.BatchNorm1d(table.dimension, eps=table.embedding_norm_eps)
        else:
            embedding["conv"] = nn.Conv2d(table.last, table.dimension, 1, bias=False)
            embedding["norm"] = nn.BatchNorm2d(table.dimension, eps=table.embedding_norm_eps)
            embedding["flatten"] = nn.Flatten()
        self.embedding = nn.Sequential(embedding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(self.gdc(self.last(self.stages(self.stem(x)))))

    def layer_table(self) -> list[LayerRow]:
        """Table 1 of the paper, read off the network by sending a face through."""
        shapes: dict[nn.Module, tuple[int, int, int]] = {}

        def note_shape(part: nn.Module, inputs: Any, _: Any) -> None:
            channels, height, width = inputs[0].shape[1:]
            shapes[part] = (height, width, channels)

        stages: list[Any] = list(self.stages)
        parts = (self.stem, *stages, self.last, self.gdc)
        handles = [part.register_forward_hook(note_shape) for part in parts]
        training = self.training
        device = next(self.parameters()).device
        try:
            with torch.inference_mode():
                embedding = self.eval()(torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=device))
        finally:
            self.train(training)
            for handle in handles:
                handle.remove()

        def plain_row(operator: str, part: Any, layer: Any, n: int = 1) -> LayerRow:
            return LayerRow(shapes[part], operator, None, layer.out_channels, n, layer.stride[0])

        rows = [plain_row("Conv", self.stem, self.stem.conv)]
        for stage in stages:
            block = stage[0]
            if isinstance(block, Bottleneck):
                depthwise: Any = block.depthwise.conv
                project: Any = block.project.conv
                t, c, s = depthwise.in_channels, project.out_channels, depthwise.stride[0]
                rows.append(LayerRow(shapes[stage], "Block", t, c, len(stage), s))
            else:
                rows.append(plain_row("Depthwise", stage, block.conv, len(stage)))
        rows.append(plain_row("Conv", self.last, self.last.conv))
        rows.append(LayerRow(shapes[self.gdc], "GDC", None, embedding.shape[1], 1, 1))
        return rows


def _stage(channels: int, row: StageRow, table: Architecture) -> nn.Sequential:
    """The n blocks of a row; the first has the row's stride."""
    blocks = []
    for number in range(row.n):
        stride = row.s if number == 0 else 1
        if row.t is None:
            block: nn.Module = conv_norm(
                channels, row.c, 3, stride=stride, padding=1, groups=row.c, eps=table.norm_eps
            )
        else:
            block = Bottleneck(channels, row.t, row.c, stride, table.se_reduction, table.norm_eps)
        blocks.append(block)
        channels = row.c
    return nn.Sequential(*blocks)
