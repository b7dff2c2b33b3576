"""Several processes that train one network, each on its slice of the batch; one is the usual case.

Started by `torchrun`, which tells each process its rank by environment variables. Every process
gathers the embeddings of the whole batch and computes the same loss on them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vidface.core.errors import VidfaceError

Value = TypeVar("Value")

CPU = torch.device("cpu")

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among all that train together. With one process nothing is communicated.

    Attributes:
        rank: this process's number, in [0, size).
        size: how many processes there are.
        device: where this process computes.

    >>> one = Processes()
    >>> print(one)
    Processes(rank 0 of 1, cpu)
    >>> one.share(128)
    (0, 128)
    >>> Processes(rank=1, size=4).share(128)
    (32, 64)
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise VidfaceError(f"{self}: want a rank from 0 to {self.size - 1}")

    def __str__(self) -> str:
        return f"Processes(rank {self.rank} of {self.size}, {self.device})"

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share(self, n: int) -> tuple[int, int]:
        """The places [start, stop) of a batch of n samples that are this process's.

        Raises:
            VidfaceError: n is not a multiple of the number of processes.
        """
        if n % self.size:
            raise VidfaceError(
                f"a batch of {n} can't be shared evenly by {self.size} processes; take a multiple "
                f"of {self.size}"
            )
        each = n // self.size
        return self.rank * each, (self.rank + 1) * each

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, one after the other in the order of their ranks.

        Differentiable, once. Every process must call it at the same point with the same shape.

        Args:
            tensor: (n, …), this process's slice of the batch.

        Returns:
            (n · size, …). `backward` gives the gradient of this process's slice, times `size`.
        """
        return tensor if self.size == 1 else _Gathered.apply(tensor, self.rank, self.size)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def broadcast_object(self, value: Value) -> Value:
        """The first process's value, on every process. It travels pickled."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def broadcast_tensor(self, tensor: Tensor) -> None:
        """Overwrite a tensor, in place, by the first process's.

        On a GPU sums may round differently at each process; called now and then on what every
        process updates by itself (class centres), this keeps them from drifting apart.
        """
        if self.size > 1:
            dist.broadcast(tensor.detach(), src=0)

    def check_same_everywhere(self, value: object, what: str = "settings") -> None:
        """Check that all processes have the same value (compared by its `repr`).

        Raises:
            VidfaceError: at every process, if one has another value than the first.
        """
        if self.size == 1:
            return
        digest = hashlib.sha256(repr(value).encode()).digest()
        digests = self.gather(
            torch.tensor([list(digest)], dtype=torch.uint8, device=self.device)
        ).cpu()
        others = [rank for rank in range(self.size) if not digests[rank].equal(digests[0])]
        if others:
            raise VidfaceError(
                f"{what}: of {self.size} processes, rank {', '.join(map(str, others))} has another "
                "value than rank 0; start all with the same files and settings"
            )


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.size, ctx.rows = rank, size, len(tensor)
        whole = tensor.new_empty((size * len(tensor), *tensor.shape[1:]))
        dist.all_gather(list(whole.chunk(size)), tensor.contiguous())
        return whole

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # All processes compute the same loss L of the whole batch, so `gradient` is dL/d(whole) at
        # each. Through its own slice, process r adds J_r' · dL/d(slice r) to a parameter, and the
        # gradient of L is the sum of these over r. DistributedDataParallel takes their mean, the
        # sum over `size`; times `size` that mean is the gradient of L. Nothing is communicated.
        first = ctx.rank * ctx.rows
        return gradient[first : first + ctx.rows] * ctx.size, None, None


@contextmanager
def start_processes(device: str = "cpu", *, timeout_s: float = 86_400.0) -> Iterator[Processes]:
    """Join the other processes that `torchrun` started, if it did; leave them at the end.

    Once in the life of a process: torch can't be relied on to join at the same address again.

    Args:
        device: "cpu" (processes talk by gloo) or "cuda" (by NCCL; each takes the GPU of its local
            rank).
        timeout_s: seconds after which a process that waits for another gives up.

    Yields:
        This process; alone, where `torchrun`'s environment variables are not set.

    Raises:
        VidfaceError: a device that is not there, a variable missing or no number, no connection.

    >>> with start_processes("cpu") as processes:
    ...     processes.size
    1
    """
    rank, size = _read_rank_and_size(os.environ)
    torch_device = _open_device(device, os.environ, size)
    if size == 1:
        yield Processes(0, 1, torch_device)
        return
    try:
        # NCCL is told its GPU here, or it guesses one at the first barrier.
        dist.init_process_group(
            "nccl" if torch_device.type == "cuda" else "gloo",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout_s),
            device_id=torch_device if torch_device.type == "cuda" else None,
        )
    except (RuntimeError, ValueError) as error:
        raise VidfaceError(
            f"process {rank} of {size} can't join the others at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {error}"
        ) from error
    try:
        yield Processes(rank, size, torch_device)
    finally:
        dist.destroy_process_group()


def _read_rank_and_size(environment: Mapping[str, str]) -> tuple[int, int]:
    """Rank and number of processes; (0, 1) where torchrun has not started this process."""
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return 0, 1
    missing = [name for name in _VARIABLES if name not in environment]
    if missing:
        raise VidfaceError(
            f"several processes: {', '.join(missing)} not set in the environment; start them with "
            "torchrun, or unset RANK and WORLD_SIZE for a single process"
        )
    rank, size = _read_integer(environment, "RANK"), _read_integer(environment, "WORLD_SIZE")
    if not 0 <= rank < size:
        raise VidfaceError(f"RANK is {rank} and WORLD_SIZE {size}: want a rank from 0 to size - 1")
    return rank, size


def _open_device(device: str, environment: Mapping[str, str], size: int) -> torch.device:
    if device == "cpu":
        return CPU
    if device != "cuda":
        raise VidfaceError(f"device '{device}' is not known (known: cpu, cuda)")
    gpus = torch.cuda.device_count()
    gpu = _read_integer(environment, "LOCAL_RANK") if size > 1 else 0
    if not 0 <= gpu < gpus:
        raise VidfaceError(
            f"GPU {gpu} was asked for, this machine has {gpus}; use device cpu, or start at most "
            "one process a GPU"
        )
    torch_device = torch.device("cuda", gpu)
    torch.cuda.set_device(torch_device)
    return torch_device


def _read_integer(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError as error:
        raise VidfaceError(
            f"{name} is '{environment[name]}' in the environment: want an integer"
        ) from error
