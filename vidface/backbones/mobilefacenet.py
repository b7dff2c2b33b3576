"""MobileFaceNet as foamliu trained it, with the parameter names of those weights.

Chen et al., MobileFaceNets (2018), but with ReLU6 for PReLU, a separable second convolution and a
bias in the last one. Names of attributes are those of the published state dict, which loads as it
is.
"""

from __future__ import annotations

from torch import Tensor, nn

from vidface.backbones.architectures import Architecture


def _conv_norm(
    channels: int, out: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )


class Separable(nn.Module):
    """3x3 depthwise and 1x1 convolution, each with batch norm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.depthwise(x)))
        return self.relu(self.bn2(self.pointwise(x)))


class InvertedResidual(nn.Module):
    """1x1 to t channels → 3x3 depthwise → 1x1 to c, linear; identity where it fits."""

    def __init__(self, channels: int, t: int, c: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv_norm(channels, t, 1),
            _conv_norm(t, t, 3, stride, 1, t),
            nn.Conv2d(t, c, 1, bias=False),
            nn.BatchNorm2d(c),
        )
        self.residual = stride == 1 and channels == c

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y if self.residual else y


class GlobalDepthwise(nn.Module):
    """7x7 depthwise convolution over the whole picture, linear, with batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.depthwise(x))


class MobileFaceNet(nn.Module):
    """Faces (n, 3, 112, 112) → (n, 128), not normalised."""

    def __init__(self, table: Architecture) -> None:
        super().__init__()
        self.conv1 = _conv_norm(3, table.stem, 3, 2, 1)
        self.dw_conv = Separable(table.stem)
        channels, blocks = table.stem, []
        for row in table.rows:
            for number in range(row.n):
                stride = row.s if number == 0 else 1
                blocks.append(InvertedResidual(channels, row.t or channels, row.c, stride))
                channels = row.c
        self.features = nn.Sequential(*blocks)
        self.conv2 = _conv_norm(channels, table.last, 1)
        self.gdconv = GlobalDepthwise(table.last)
        self.conv3 = nn.Conv2d(table.last, table.dimension, 1)
        self.bn = nn.BatchNorm2d(table.dimension)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        return self.bn(self.conv3(self.gdconv(x))).flatten(1)
