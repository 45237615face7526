"""Right consensus rules, of which wrong ones are made."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from kdmesh.consensus import Abstaining, Rule, present_of, silenced, weighted_sum


class Average(Rule):
    """Equal weights of who is present."""

    def weights(self, logits, *, labels=None, present=None):
        here = present_of(logits, present).to(logits.dtype)
        return here / here.sum(0).clamp(min=1)


class Certain(Rule):
    """Weights by certainty: a softmax of negative entropies over the sources."""

    def __init__(self, sharpness=1.0):
        super().__init__()
        self.sharpness = sharpness

    def weights(self, logits, *, labels=None, present=None):
        here = present_of(logits, present)
        log_p = silenced(logits, present).log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        score = (-self.sharpness * entropy).masked_fill(~here, -torch.inf)
        score = torch.where(here.any(0), score, 0.0)
        return score.softmax(0) * here


class Experts(Rule):
    """A product of experts: the softmax of mean logits at the rule's temperature."""

    def forward(self, values, *, logits, labels=None, present=None):
        here = present_of(logits, present)
        count = here.sum(0).clamp(min=1)[:, None]
        mean = silenced(logits, present).sum(0) / count
        return mean if self.space == "logits" else (mean / self.temperature).softmax(-1)


class Surest(Rule):
    """Each row is that of the source with the largest probability."""

    def weights(self, logits, *, labels=None, present=None):
        here = present_of(logits, present)
        peak = silenced(logits, present).softmax(-1).amax(-1)
        best = peak.masked_fill(~here, -1.0).argmax(0)
        return F.one_hot(best, len(logits)).T.to(logits.dtype) * here

    def forward(self, values, *, logits, labels=None, present=None):
        weights = self.weights(logits, labels=labels, present=present)
        return weighted_sum(values, weights)


class Trusted(Rule):
    """Weights by how often a source agreed with the mean, over what was taught so far."""

    def setup(self, sources, classes, inputs):
        self.register_buffer("agreed", torch.ones(len(sources)))
        self.register_buffer("asked", torch.ones(len(sources)))

    def weights(self, logits, *, labels=None, present=None):
        here = present_of(logits, present)
        trust = (self.agreed / self.asked)[: len(logits), None].to(logits.dtype)
        mass = trust * here
        return mass / mass.sum(0).clamp_min(1e-6)

    def forward(self, values, *, logits, labels=None, present=None):
        combined = super().forward(values, logits=logits, labels=labels, present=present)
        if self.training:
            here = present_of(logits, present)
            same = (silenced(values, present).argmax(-1) == combined.argmax(-1)) & here
            with torch.no_grad():
                count = len(logits)
                self.agreed[:count] += same.sum(1)
                self.asked[:count] += here.sum(1)
        return combined


class Learned(Rule):
    """A trained weight for each source, sized as the mesh is."""

    def setup(self, sources, classes, inputs):
        self.scores = nn.Parameter(torch.zeros(len(sources)))
        self.slope = nn.Parameter(torch.ones(()))

    def weights(self, logits, *, labels=None, present=None):
        here = present_of(logits, present)
        peak = silenced(logits, present).softmax(-1).amax(-1)
        score = self.scores[: len(logits), None].to(logits.dtype) + self.slope.to(logits.dtype) * peak
        score = score.masked_fill(~here, -torch.inf)
        return torch.where(here.any(0), score, 0.0).softmax(0) * here


class Skilled(Rule):
    """Weights by the loss on labels, which it needs."""

    def weights(self, logits, *, labels=None, present=None):
        here = present_of(logits, present)
        log_p = silenced(logits, present).log_softmax(-1)
        own = log_p.gather(-1, labels.expand(len(logits), -1)[..., None])[..., 0]
        score = own.masked_fill(~here, -torch.inf)
        return torch.where(here.any(0), score, 0.0).softmax(0) * here


class Sampled(Rule):
    """Each row is that of a source that is drawn."""

    def weights(self, logits, *, labels=None, present=None):
        here = present_of(logits, present)
        draws = torch.rand(here.shape, device=here.device).masked_fill(~here, -1.0)
        return F.one_hot(draws.argmax(0), len(logits)).T.to(logits.dtype) * here


class Unanimous(Abstaining):
    """An answer where everyone who is present has the same likeliest class."""

    def forward(self, values, *, logits, labels=None, present=None):
        here = present_of(values, present)
        vote = silenced(logits, present).argmax(-1)
        first = vote.gather(0, here.int().argmax(0)[None])
        agree = ((vote == first) | ~here).all(0) & here.any(0)
        count = here.sum(0).clamp(min=1)[:, None]
        return silenced(values, present).sum(0) / count, agree


class Preferred(Rule):
    """Fixed weights by the names of sources, from the settings: others have 1."""

    def __init__(self, weights):
        super().__init__()
        self.given = weights

    def setup(self, sources, classes, inputs):
        self.names = sources

    def weights(self, logits, *, labels=None, present=None):
        share = [self.given.get(name, 1.0) for name in self.names[: len(logits)]]
        mass = logits.new_tensor(share)[:, None] * present_of(logits, present)
        return mass / mass.sum(0).clamp_min(1e-6)
