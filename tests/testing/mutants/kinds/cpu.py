"""Constants made on the CPU, where the values are on another device."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Squares",
        "column weights made on the CPU",
        "(student - target) ** 2",
        "torch.ones(student.shape[-1]) * (student - target) ** 2",
    ),
    edit(
        "objectives.Softened",
        "the temperature as a tensor for each class",
        "log_q = (student / self.temperature)",
        "log_q = (student / torch.full((student.shape[-1],), self.temperature).to(student.dtype))",
    ),
    edit(
        "objectives.Centred",
        "the centre is no buffer",
        'self.register_buffer("centre", torch.zeros(target))',
        "self.centre = torch.zeros(target)",
    ),
    edit(
        "objectives.Relations",
        "the diagonal's mask is made on the CPU",
        "return pairs.sum()",
        ("pairs = pairs * (1 - torch.eye(len(pairs)))\n        return pairs.sum()"),
    ),
    edit(
        "objectives.Noisy",
        "noise is drawn on the CPU",
        "torch.randn(target.shape, device=target.device)",
        "torch.randn(target.shape)",
    ),
    edit(
        "objectives.Remembering",
        "the memory is read on the CPU",
        "mean = 0.5 * self.rows[place].to(target.dtype)",
        "mean = 0.5 * self.rows[place].cpu().to(target.dtype)",
    ),
    edit(
        "objectives.Vocabularies",
        "the steps are no buffer",
        'self.register_buffer("steps", steps)',
        "self.steps = steps",
    ),
    edit(
        "objectives.Decoupled",
        "the labels' mask is made on the CPU",
        "F.one_hot(labels, student.shape[-1]).bool()",
        "F.one_hot(labels.cpu(), student.shape[-1]).bool()",
    ),
    edit(
        "rules.Average",
        "everyone present, on the CPU",
        "here = present_of(logits, present).to(logits.dtype)",
        ("here = torch.ones(logits.shape[:2]) if present is None else present\n        here = here.to(logits.dtype)"),
    ),
    edit(
        "rules.Certain",
        "zeros for whom nobody answers, on the CPU",
        "torch.where(here.any(0), score, 0.0)",
        "torch.where(here.any(0), score, torch.zeros(score.shape, dtype=score.dtype))",
    ),
    edit(
        "rules.Preferred",
        "weights as a tensor on the CPU",
        "logits.new_tensor(share)",
        "torch.tensor(share, dtype=logits.dtype)",
    ),
    edit(
        "rules.Sampled",
        "draws on the CPU",
        "torch.rand(here.shape, device=here.device)",
        "torch.rand(here.shape)",
    ),
    edit(
        "rules.Trusted",
        "counts are no buffers",
        'self.register_buffer("agreed", torch.ones(len(sources)))',
        "self.agreed = torch.ones(len(sources))",
        'self.register_buffer("asked", torch.ones(len(sources)))',
        "self.asked = torch.ones(len(sources))",
    ),
    edit(
        "rules.Skilled",
        "labels as numbers of numpy",
        "own = log_p.gather",
        ("labels = torch.from_numpy(labels.numpy())\n        own = log_p.gather"),
    ),
    edit(
        "signals.Ranks",
        "steps on the CPU",
        ", device=value.device",
        "",
    ),
    edit(
        "signals.Private",
        "noise on the CPU",
        ", device=value.device",
        "",
    ),
    edit(
        "views.Rolled",
        "columns on the CPU",
        "torch.arange(width, device=x.device)",
        "torch.arange(width)",
    ),
    edit(
        "views.Erased",
        "the mask on the CPU",
        ".to(x.device) <",
        " <",
    ),
    edit(
        "views.Brighter",
        "factors on the CPU",
        ".to(x)",
        ".to(x.dtype)",
    ),
    edit(
        "metrics.Brier",
        "truth on the CPU",
        "torch.zeros_like(answers.p)",
        "torch.zeros(answers.p.shape, dtype=answers.p.dtype)",
    ),
    edit(
        "metrics.Recalls",
        "counts of another device are added on the CPU",
        "answers.labels.cpu().bincount",
        "answers.labels.bincount",
    ),
    edit(
        "gates.Lucky",
        "draws on the CPU",
        ", device=losses.device",
        "",
    ),
    edit(
        "gates.Seen",
        "who was seen is no buffer",
        'self.register_buffer("seen", torch.zeros(rows, dtype=torch.bool))',
        "self.seen = torch.zeros(rows, dtype=torch.bool)",
    ),
    edit(
        "models.Patches",
        "positions are no buffer",
        'self.register_buffer("positions", steps[:, None] * torch.ones(width))',
        "self.positions = steps[:, None] * torch.ones(width)",
    ),
    edit(
        "models.Dropped",
        "the mask of dropout on the CPU",
        "hidden = F.dropout(hidden, self.rate, self.training)",
        ("if self.training:\n            hidden = hidden * (torch.rand(hidden.shape) > self.rate)"),
    ),
]
