"""Right objectives, of which wrong ones are made."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdmesh.objectives import Objective, at_least_float32, batchmean, comparable, kept


class Squares(Objective):
    """Squared distances of logits."""

    def forward(self, student, target, *, form="logits", weights=None):
        student, target = comparable(student, target, weights)
        return batchmean((student - target) ** 2, weights)


class Softened(Objective):
    """T² KL(p || q), of logits or of probabilities at T."""

    def __init__(self, temperature=2.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, student, target, *, form="logits", weights=None):
        student, target = comparable(student, target, weights)
        log_q = (student / self.temperature).log_softmax(-1)
        p = target if form == "probs" else (target / self.temperature).softmax(-1)
        elements = torch.xlogy(p, p) - p * log_q
        return self.temperature**2 * batchmean(elements, weights)


class Cosine(Objective):
    """1 - the cosine of logits about their mean."""

    def __init__(self):
        super().__init__()
        self.register_buffer("floor", torch.tensor(1e-8), persistent=False)

    def forward(self, student, target, *, form="logits", weights=None):
        student, target = comparable(student, target, weights)
        own = student - student.mean(-1, keepdim=True)
        other = target - target.mean(-1, keepdim=True)
        scale = own.norm(dim=-1) * other.norm(dim=-1)
        angle = (own * other).sum(-1) / scale.clamp_min(self.floor.to(scale.dtype))
        return batchmean(1 - angle, weights)


class Adapted(Objective):
    """A hidden layer, mapped by trained weights, against another's: mean over elements."""

    def setup(self, student, target, **facts):
        self.first = nn.Conv2d(student[0], target[0], 1)
        self.second = nn.Conv2d(target[0], target[0], 1)

    def forward(self, student, target, *, form="hidden", weights=None):
        student = kept(at_least_float32(student), weights)
        mapped = self.first(student)
        mapped = mapped + self.second(torch.tanh(mapped))
        mapped, target = comparable(mapped, target, weights)
        return batchmean(((mapped - target) ** 2).flatten(1).mean(1), weights)


class Centred(Objective):
    """Cross-entropy to the target about a running centre, which moves in training alone."""

    def setup(self, student, target, **facts):
        self.register_buffer("centre", torch.zeros(target))

    def forward(self, student, target, *, form="logits", weights=None):
        student, target = comparable(student, target, weights)
        p = ((target - self.centre.to(target.dtype)) / 0.5).softmax(-1)
        loss = batchmean(-(p * student.log_softmax(-1)), weights)
        if self.training:
            with torch.no_grad():
                self.centre.mul_(0.9).add_(target.mean(0).to(self.centre.dtype), alpha=0.1)
        return loss


class Decoupled(Objective):
    """The label's class against all others, and the others among themselves; it needs labels."""

    def __init__(self, others=2.0):
        super().__init__()
        self.others = others

    def forward(self, student, target, *, labels, form="logits", weights=None):
        student, target = comparable(student, target, weights)
        own = F.one_hot(labels, student.shape[-1]).bool()
        two = self.both(student, own), self.both(target, own)
        first = F.kl_div(two[0], two[1], reduction="none", log_target=True)
        rest = [side.masked_fill(own, -1e4).log_softmax(-1) for side in (student, target)]
        second = F.kl_div(rest[0], rest[1], reduction="none", log_target=True)
        return batchmean(first.sum(-1) + self.others * second.sum(-1), weights)

    def both(self, side, own):
        log_p = side.log_softmax(-1)
        label = log_p.masked_fill(~own, -torch.inf).logsumexp(-1)
        others = log_p.masked_fill(own, -torch.inf).logsumexp(-1)
        return torch.stack([label, others], -1)


class Relations(Objective):
    """Distances of samples to each other, of students and targets."""

    def forward(self, student, target, *, form="logits", weights=None):
        student, target = comparable(student, target, weights)
        pairs = (self.apart(student) - self.apart(target)) ** 2
        if weights is not None:
            weights = weights.to(pairs.dtype)
            pairs = pairs * weights[:, None] * (weights != 0)[None]
        return pairs.sum() / (len(student) or 1) ** 2

    def apart(self, side):
        squares = ((side[:, None] - side[None]) ** 2).sum(-1)
        return (squares + 1e-6).sqrt()


class Noisy(Objective):
    """Squared distance to a target with noise from the step's generator."""

    def __init__(self, std=0.1):
        super().__init__()
        self.std = std

    def forward(self, student, target, *, form="logits", weights=None):
        student, target = comparable(student, target, weights)
        noise = torch.randn(target.shape, device=target.device).to(target.dtype)
        return batchmean((student - target - self.std * noise) ** 2, weights)


class Remembering(Objective):
    """Squared distance to a running mean of each sample's targets, by its id."""

    rows: Tensor

    def setup(self, student, target, *, ids):
        self.register_buffer("known", ids.sort().values)
        self.register_buffer("rows", torch.zeros(len(ids), *target))

    def forward(self, student, target, *, ids, form="logits", weights=None):
        student, target = comparable(student, target, weights)
        place = torch.searchsorted(self.known, ids)
        mean = 0.5 * self.rows[place].to(target.dtype) + 0.5 * target
        loss = batchmean((student - mean) ** 2, weights)
        with torch.no_grad():
            self.rows[place] = mean.to(self.rows.dtype)
        return loss


class Vocabularies(Objective):
    """Squared distances of the columns that two vocabularies share."""

    def setup(self, student, target, *, tokens, source_tokens, **facts):
        shared = [word for word in tokens if word in set(source_tokens)]
        steps = torch.linspace(1, 2, len(shared))
        self.register_buffer("own", torch.tensor([tokens.index(word) for word in shared]))
        self.register_buffer("other", torch.tensor([source_tokens.index(word) for word in shared]))
        self.register_buffer("steps", steps)

    def forward(self, student, target, *, form="logits", weights=None, **facts):
        student, target = comparable(student, target, weights)
        apart = student[:, self.own] - target[:, self.other]
        return batchmean(self.steps.to(apart.dtype) * apart**2, weights)
