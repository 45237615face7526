"""Plain PyTorch loops, as anyone would write them: the other side of the comparison. Imports torch and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Data(NamedTuple):
    """``x [N, ...]``, ``y [N]``, the positions ``[N]`` of every epoch in order, and how many make a batch."""

    x: Tensor
    y: Tensor
    orders: Sequence[Tensor]
    size: int

    def batches(self) -> Iterable[Tensor]:
        """Positions of every batch of every epoch; an epoch's last batch is smaller."""
        for order in self.orders:
            yield from order.split(self.size)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One update."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def answer(teacher: nn.Module, x: Tensor, size: int) -> Tensor:
    """Logits of a teacher that does not train: in eval mode, a smaller batch filled up with its last sample."""
    teacher.eval()
    missing = size - len(x)
    return teacher(torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x)[: len(x)]


def kl(student: Tensor, probs: Tensor, temperature: float) -> Tensor:
    """Hinton's loss against a distribution that is at this temperature already."""
    return F.kl_div(F.log_softmax(student / temperature, -1), probs, reduction="batchmean") * temperature**2


def supervised(model: nn.Module, data: Data, make: MakeOptimizer) -> None:
    """Learn from labels."""
    optimizer = make(model.parameters())
    for at in data.batches():
        descend(optimizer, F.cross_entropy(model(data.x[at]), data.y[at]))


def distil(
    student: nn.Module,
    teachers: Sequence[nn.Module],
    data: Data,
    make: MakeOptimizer,
    *,
    temperature: float = 4.0,
    alpha: float = 0.5,
    space: str = "probs",
) -> None:
    """``alpha * CE + (1 - alpha) * T² KL(mean of the teachers, student)``."""
    optimizer = make(student.parameters())
    for at in data.batches():
        logits = [answer(teacher, data.x[at], data.size) for teacher in teachers]
        if space == "probs":
            target = sum((F.softmax(z / temperature, -1) for z in logits[1:]), F.softmax(logits[0] / temperature, -1))
            target = target / len(logits)
        else:
            target = F.softmax(sum(logits[1:], logits[0]) / len(logits) / temperature, -1)
        out = student(data.x[at])
        loss = alpha * F.cross_entropy(out, data.y[at]) + (1 - alpha) * kl(out, target, temperature)
        descend(optimizer, loss)


def mutual(peers: Sequence[nn.Module], data: Data, make: MakeOptimizer, *, sequential: bool = False) -> None:
    """Deep mutual learning at T = 1: CE, and the mean KL from each other peer, in the order of the peers.

    ``sequential``: a peer meets those before it as they are after their update of this step.
    """
    optimizers = [make(peer.parameters()) for peer in peers]
    share = 1 / (len(peers) - 1)
    for at in data.batches():
        x, y = data.x[at], data.y[at]
        outs = [peer(x) for peer in peers]
        targets = [out.detach() for out in outs]
        losses = []
        for i, out in enumerate(outs):
            loss = F.cross_entropy(out, y)
            for j, other in enumerate(targets):
                if j != i:
                    loss = loss + share * kl(out, F.softmax(other, -1), 1.0)
            losses.append(loss)
            if sequential:
                descend(optimizers[i], loss)
                with torch.no_grad():
                    targets[i] = peers[i](x)
        if not sequential:
            for optimizer, loss in zip(optimizers, losses, strict=True):
                descend(optimizer, loss)


def mean_teacher(
    student: nn.Module, average: nn.Module, data: Data, make: MakeOptimizer, *, decay: float = 0.99
) -> None:
    """CE, and KL at T = 1 from an average of the student's weights, which follows after each update."""
    optimizer = make(student.parameters())
    for at in data.batches():
        target = answer(average, data.x[at], data.size)
        out = student(data.x[at])
        descend(optimizer, F.cross_entropy(out, data.y[at]) + kl(out, F.softmax(target, -1), 1.0))
        with torch.no_grad():
            for own, other in zip(average.parameters(), student.parameters(), strict=True):
                own.mul_(decay).add_(other, alpha=1 - decay)


def switched(
    teacher: nn.Module, student: nn.Module, data: Data, make: MakeOptimizer, *, temperature: float = 1.0
) -> int:
    """SwitOKD (Qian et al., 2022): mutual learning of two, whose teacher rests while its student is too far behind.

    Returns how many updates of the teacher were left out.
    """
    optimizers, rests = [make(teacher.parameters()), make(student.parameters())], 0
    for at in data.batches():
        x, y = data.x[at], data.y[at]
        outs = [teacher(x), student(x)]
        p_t, p_s = (F.softmax(out.detach() / temperature, -1) for out in outs)
        truth = F.one_hot(y, p_t.shape[-1]).to(p_t.dtype)
        gap, own, theirs = ((p - q).abs().sum(-1).mean() for p, q in ((p_s, p_t), (p_t, truth), (p_s, truth)))
        threshold = theirs - torch.exp(-own / (own + theirs)) * own
        targets = [F.softmax(out.detach(), -1) for out in reversed(outs)]
        losses = [F.cross_entropy(out, y) + kl(out, target, 1.0) for out, target in zip(outs, targets, strict=True)]
        if gap > threshold and own < theirs:
            rests += 1
        else:
            descend(optimizers[0], losses[0])
        descend(optimizers[1], losses[1])
    return rests


def co_teaching(
    pair: Sequence[nn.Module], data: Data, make: MakeOptimizer, *, forget: float = 0.2, epochs: int = 10
) -> None:
    """Co-teaching (Han et al., 2018): each learns from the rows whose loss is small for the other one."""
    optimizers = [make(one.parameters()) for one in pair]
    for epoch, order in enumerate(data.orders):
        rate = 1 - forget * min(epoch / epochs, 1)
        for at in order.split(data.size):
            outs, y, size = [one(data.x[at]) for one in pair], data.y[at], len(at)
            each = [F.cross_entropy(out, y, reduction="none") for out in outs]
            kept = max(1, int(rate * size))
            losses = []
            for own, other in (each, each[::-1]):
                factors = torch.zeros(size)
                factors[other.detach().argsort(stable=True)[:kept]] = size / kept
                losses.append((own * factors).sum() / size)
            for optimizer, loss in zip(optimizers, losses, strict=True):
                descend(optimizer, loss)
