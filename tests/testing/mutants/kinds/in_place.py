"""Work in place on what others read."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Squares",
        "large logits of the target are bounded where they stand",
        "student, target = comparable(student, target, weights)",
        ("student, target = comparable(student, target, weights)\n        target.clamp_(-30, 30)"),
    ),
    edit(
        "objectives.Softened",
        "logits of the target are divided where they stand",
        "(target / self.temperature).softmax(-1)",
        "target.detach().div_(self.temperature).softmax(-1)",
    ),
    edit(
        "objectives.Softened",
        "weights are bounded where they stand",
        "elements = torch.xlogy(p, p) - p * log_q",
        ("elements = torch.xlogy(p, p) - p * log_q\n        if weights is not None:\n            weights.clamp_(0, 1)"),
    ),
    edit(
        "objectives.Softened",
        "probabilities of 0 are replaced where they stand",
        "p = target if form",
        "p = target.clamp_(min=1e-9) if form",
    ),
    edit(
        "objectives.Cosine",
        "the target's mean is taken off in place",
        "other = target - target.mean(-1, keepdim=True)",
        ("target -= target.mean(-1, keepdim=True)\n        other = target"),
    ),
    edit(
        "objectives.Cosine",
        "a target of float32 is made of length 1 where it stands",
        "student, target = comparable(student, target, weights)",
        (
            "target = F.normalize(target.float(), dim=-1, out=target.detach().float())\n"
            "        student, target = comparable(student, target, weights)"
        ),
    ),
    edit(
        "objectives.Decoupled",
        "the label's logit of the target is overwritten",
        "second = F.kl_div",
        ("target.data[own] = -1e4\n        second = F.kl_div"),
    ),
    edit(
        "objectives.Remembering",
        "ids are sorted where they stand",
        "place = torch.searchsorted(self.known, ids)",
        ("place = torch.searchsorted(self.known, ids)\n        ids.copy_(ids.sort().values)"),
    ),
    edit(
        "rules.Certain",
        "absent logits are filled where they stand",
        "log_p = silenced(logits, present).log_softmax(-1)",
        (
            "if present is not None:\n"
            "            logits.data.masked_fill_(~present[..., None], 0.0)\n"
            "        log_p = silenced(logits, present).log_softmax(-1)"
        ),
    ),
    edit(
        "rules.Experts",
        "logits are divided by the temperature where they stand",
        "mean = silenced(logits, present).sum(0) / count",
        (
            "logits = logits.detach().div_(self.temperature)\n"
            "        mean = silenced(logits, present).sum(0) / count * self.temperature"
        ),
    ),
    edit(
        "rules.Unanimous",
        "who does not agree is made absent, for all",
        "agree = ((vote == first) | ~here)",
        ("here &= vote == first\n        agree = ((vote == first) | ~here)"),
    ),
    edit(
        "rules.Skilled",
        "labels are bounded where they stand",
        "own = log_p.gather",
        ("labels.clamp_(min=0)\n        own = log_p.gather"),
    ),
    edit(
        "rules.Average",
        "values are made 0 for the absent where they stand",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        if present is not None:\n"
            "            values.data[~present] = 0.0\n"
            "        return super().forward(values, logits=logits, labels=labels, present=present)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "signals.Flattened",
        "logits are divided where they stand",
        "(value / self.temperature)",
        "value.div_(self.temperature)",
    ),
    edit(
        "signals.Top",
        "the rest is masked where it stands",
        "best = value.topk(self.k, -1)",
        ("best = value.topk(self.k, -1)\n        value[value < best.values[..., -1:]] = -1e9"),
    ),
    edit(
        "views.Brighter",
        "samples are scaled where they stand",
        "return x * factor",
        "return x.mul_(factor",
        ".to(x)",
        ".to(x))",
    ),
    edit(
        "views.Erased",
        "features are overwritten in a view of the samples",
        "return torch.where(out, flat.mean(1, keepdim=True), flat).view_as(x)",
        ("flat[out] = flat.mean(1, keepdim=True).expand_as(flat)[out]\n        return flat.view_as(x).clone()"),
    ),
    edit(
        "metrics.Brier",
        "what others read of the answers becomes the difference",
        "return ((answers.p - truth) ** 2).sum(1)",
        "return (answers.p.sub_(truth) ** 2).sum(1)",
    ),
    edit(
        "metrics.Brier",
        "certain answers are bounded where they stand",
        "truth = torch",
        ("answers.p.clamp_(0, 1)\n        truth = torch"),
    ),
    edit(
        "gates.Better",
        "the student is centred where it stands",
        "mine, other = (side",
        ("own -= own.mean(1, keepdim=True)\n        mine, other = (side"),
    ),
    edit(
        "gates.Usual",
        "losses are bounded where they stand",
        "now = losses.double().sum()",
        "now = losses.clamp_(max=1e6).double().sum()",
    ),
    edit(
        "models.Whitened",
        "samples lose the running mean where they stand",
        "return self.head(flat - self.mean)",
        (
            "if not self.training:\n"
            "            flat -= self.mean\n"
            "            return self.head(flat)\n"
            "        return self.head(flat - self.mean)"
        ),
    ),
    edit(
        "tasks.Classes",
        "scores become probabilities where they stand",
        "return scores.argmax(1)",
        ("scores.sub_(scores.logsumexp(1, keepdim=True)).exp_()\n        return scores.argmax(1)"),
    ),
]
