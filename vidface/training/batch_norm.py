"""Batch norm over the batches of all processes: n train as one would, but for rounding.

`torch.nn.SyncBatchNorm` does it on GPUs and refuses CPUs; `SyncedBatchNorm` does it anywhere.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from vidface.core.errors import VidfaceError


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """The module with every batch norm replaced by one over the batches of all processes.

    Parameters and buffers are the same objects under the same names, so a state dict fits both ways
    and an optimiser keeps its parameters. Children are replaced in place; use what is returned. A
    network on a GPU gets torch's own. Without other processes, and in evaluation, the numbers are
    the plain batch norm's.

    >>> network = synchronise_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    >>> type(network[1]).__name__
    'SyncedBatchNorm'
    """
    if any(parameter.is_cuda for parameter in module.parameters()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if isinstance(module, _BatchNorm):
        done = isinstance(module, SyncedBatchNorm | nn.SyncBatchNorm)
        return module if done else SyncedBatchNorm.like(module)
    for name, child in module.named_children():
        setattr(module, name, synchronise_batch_norm(child))
    return module


class SyncedBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d` or `2d` of the batches of all processes together; (n, c, …).

    Slices may differ in size. Every process must run its forward and its backward pass.
    """

    @classmethod
    def like(cls, plain: _BatchNorm) -> SyncedBatchNorm:
        """One that shares the parameters and buffers of a plain batch norm."""
        synced = cls(
            plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats
        )
        synced.weight, synced.bias = plain.weight, plain.bias
        synced.running_mean, synced.running_var = plain.running_mean, plain.running_var
        synced.num_batches_tracked = plain.num_batches_tracked
        return synced.train(plain.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2 or input.shape[1] != self.num_features:
            raise VidfaceError(
                f"batch norm of {self.num_features} channels: got {tuple(input.shape)}, want "
                f"(n, {self.num_features}, …)"
            )

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        mean, variance, count = global_moments(input)
        if self.track_running_stats:
            self._track(mean, variance * (count / (count - 1)))
        mean, variance = mean.to(_working_type(input)), variance.to(_working_type(input))
        return _Normalised.apply(input, self.weight, self.bias, mean, variance, count, self.eps)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running moments as `nn.BatchNorm2d` does; momentum None is their mean."""
        counted, means, variances = self.num_batches_tracked, self.running_mean, self.running_var
        if counted is None or means is None or variances is None:
            return
        counted.add_(1)
        part = 1 / int(counted) if self.momentum is None else self.momentum
        means.mul_(1 - part).add_(mean, alpha=part)
        variances.mul_(1 - part).add_(unbiased, alpha=part)


@torch.no_grad()
def global_moments(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and variance (by n) of each channel over all processes, (c,) float64, and the count n.

    In two passes: a mean of squares less a squared mean loses its digits where the mean is large.
    """
    dims, x = _all_but_channels(x), x.to(_working_type(x))
    count = torch.full((1,), x.numel() // x.shape[1], dtype=torch.float64, device=x.device)
    sums = torch.cat([x.sum(dims, dtype=torch.float64), count])
    dist.all_reduce(sums)
    n = float(sums[-1])
    if n < 2:
        raise VidfaceError(
            f"batch norm: {n:.0f} values a channel in all processes, want two or more"
        )
    mean = sums[:-1] / n
    squares = (x - _shaped(mean.to(x.dtype), x)).square_().sum(dims, dtype=torch.float64)
    dist.all_reduce(squares)
    return mean, squares / n, n


class _Normalised(torch.autograd.Function):
    """(x − mean) / √(variance + eps) · weight + bias, mean and variance being functions of x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: float,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        ctx.count = count
        return functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # With u = (x − mean) / std and g = dL/dy · weight:
        # dL/dx = (g − mean of g − u · mean of (g · u)) / std, means over all processes' values.
        # Parameters get this process's part; DistributedDataParallel brings the parts together.
        x, weight, mean, scale = ctx.saved_tensors
        dims = _all_but_channels(x)
        gradient = gradient.to(mean.dtype)
        u = (x.to(mean.dtype) - _shaped(mean, x)) * _shaped(scale, x)
        to_bias, to_weight = gradient.sum(dims), (gradient * u).sum(dims)
        sums = torch.cat([to_bias, to_weight])
        dist.all_reduce(sums)
        mean_g, mean_gu = (sums / ctx.count).chunk(2)
        to_x = gradient - _shaped(mean_g, x) - u * _shaped(mean_gu, x)
        to_x = to_x * _shaped(scale if weight is None else scale * weight, x)
        _, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        affine = (to_weight if wants_weight else None, to_bias if wants_bias else None)
        return to_x.to(x.dtype), *affine, None, None, None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.ndim) if dim != 1]


def _shaped(channels: Tensor, x: Tensor) -> Tensor:
    """(c,) → (1, c, 1, …), to stand beside x."""
    return channels.view(1, -1, *[1] * (x.ndim - 2))


def _working_type(x: Tensor) -> torch.dtype:
    """Moments of half precision are computed in float32."""
    return torch.promote_types(x.dtype, torch.float32)
