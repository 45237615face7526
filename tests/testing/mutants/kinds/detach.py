"""Gradients that do not arrive, arrive in part, or keep a graph alive."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Squares",
        "one factor of the square is a constant",
        "(student - target) ** 2",
        "(student - target) * (student - target).detach()",
    ),
    edit(
        "objectives.Softened",
        "the normaliser has no gradient",
        "log_q = (student / self.temperature).log_softmax(-1)",
        ("z = student / self.temperature\n        log_q = z - z.logsumexp(-1, keepdim=True).detach()"),
    ),
    edit(
        "objectives.Softened",
        "the target is detached, whatever the flow says",
        "student, target = comparable(student, target, weights)",
        "student, target = comparable(student, target.detach(), weights)",
    ),
    edit(
        "objectives.Cosine",
        "the lengths are constants",
        "scale = own.norm(dim=-1) * other.norm(dim=-1)",
        "scale = own.norm(dim=-1).detach() * other.norm(dim=-1)",
    ),
    edit(
        "objectives.Adapted",
        "the second part of the adapter teaches the first nothing",
        "self.second(torch.tanh(mapped))",
        "self.second(torch.tanh(mapped.detach()))",
    ),
    edit(
        "objectives.Adapted",
        "the second part of the adapter is never trained",
        "mapped = mapped + self.second(torch.tanh(mapped))",
        ("with torch.no_grad():\n            more = self.second(torch.tanh(mapped))\n        mapped = mapped + more"),
    ),
    edit(
        "objectives.Centred",
        "the centre keeps the graph of every step",
        (
            "with torch.no_grad():\n"
            "                self.centre.mul_(0.9).add_(target.mean(0).to(self.centre.dtype), "
            "alpha=0.1)"
        ),
        "self.centre = 0.9 * self.centre + 0.1 * target.mean(0).to(self.centre.dtype)",
    ),
    edit(
        "objectives.Remembering",
        "the memory keeps the graph of every step",
        ("with torch.no_grad():\n            self.rows[place] = mean.to(self.rows.dtype)"),
        "self.rows = self.rows.index_copy(0, place, mean.to(self.rows.dtype))",
    ),
    edit(
        "objectives.Relations",
        "each pair moves one of its samples only",
        "side[:, None] - side[None]",
        "side[:, None] - side[None].detach()",
    ),
    edit(
        "objectives.Decoupled",
        "the second term has no gradient",
        "self.others * second.sum(-1)",
        "self.others * second.sum(-1).detach()",
    ),
    edit(
        "rules.Surest",
        "the sources' values are constants",
        "weighted_sum(values, weights)",
        "weighted_sum(values.detach(), weights)",
    ),
    edit(
        "rules.Learned",
        "the slope is never trained",
        "self.slope.to(logits.dtype) * peak",
        "self.slope.detach().to(logits.dtype) * peak",
    ),
    edit(
        "rules.Learned",
        "the weights are read off, so nothing is trained",
        "torch.where(here.any(0), score, 0.0).softmax(0) * here",
        "(torch.where(here.any(0), score, 0.0).softmax(0) * here).detach()",
    ),
    edit(
        "rules.Unanimous",
        "the mean is made without gradient",
        "return silenced(values, present).sum(0) / count, agree",
        "return silenced(values, present).data.sum(0) / count, agree",
    ),
    edit(
        "signals.Salient",
        "the reader's own has no gradient",
        "create_graph=True",
        "create_graph=False",
    ),
    edit(
        "models.Residual",
        "the block's first half is never trained",
        "self.block(self.stem(x))",
        "self.block(self.stem(x).detach())",
    ),
    edit(
        "models.Patches",
        "queries do not teach the embedding",
        "self.query(tokens)",
        "self.query(tokens.detach())",
    ),
]
