"""Wrong in float64, or in half precision."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Squares",
        "computed in float32, whatever it is given",
        "student, target = comparable(student, target, weights)",
        (
            "student, target = comparable(student, target, weights)\n"
            "        student, target = student.float(), target.float()"
        ),
    ),
    edit(
        "objectives.Squares",
        "half precision stays half until the end",
        "student, target = comparable(student, target, weights)",
        "student, target = kept(student, weights), kept(target.to(student.dtype), weights)",
        "return batchmean((student - target) ** 2, weights)",
        ("loss = batchmean((student - target) ** 2, weights)\n        return at_least_float32(loss)"),
    ),
    edit(
        "objectives.Softened",
        "the student's softmax is in its own precision",
        "student, target = comparable(student, target, weights)",
        ("given = student\n        student, target = comparable(student, target, weights)"),
        "log_q = (student / self.temperature).log_softmax(-1)",
        "log_q = (kept(given, weights) / self.temperature).log_softmax(-1).to(student.dtype)",
    ),
    edit(
        "objectives.Softened",
        "the target's probabilities are rounded to half",
        "elements = torch.xlogy",
        ("p = p.half().to(log_q.dtype)\n        elements = torch.xlogy"),
    ),
    edit(
        "objectives.Cosine",
        "the loss is float32 where float64 is due",
        "return batchmean(1 - angle, weights)",
        "return batchmean(1 - angle, weights).float()",
    ),
    edit(
        "objectives.Centred",
        "the loss is float64 always",
        "return loss",
        "return loss.double()",
    ),
    edit(
        "objectives.Adapted",
        "half precision reaches the adapter",
        "student = kept(at_least_float32(student), weights)",
        "student = kept(student, weights)",
    ),
    edit(
        "objectives.Decoupled",
        "the mask is beyond half precision, in the student's own",
        "student, target = comparable(student, target, weights)",
        "student, target = kept(student, weights), kept(target.to(student.dtype), weights)",
        "return batchmean(first.sum(-1) + self.others * second.sum(-1), weights)",
        ("return at_least_float32(batchmean(first.sum(-1) + self.others * second.sum(-1), weights))"),
    ),
    edit(
        "objectives.Remembering",
        "the memory is of half precision",
        "torch.zeros(len(ids), *target))",
        "torch.zeros(len(ids), *target, dtype=torch.float16))",
    ),
    edit(
        "rules.Certain",
        "entropies are made in half precision",
        "log_p = silenced(logits, present).log_softmax(-1)",
        "log_p = silenced(logits, present).bfloat16().log_softmax(-1).to(logits.dtype)",
    ),
    edit(
        "rules.Certain",
        "weights are float32 always",
        "return score.softmax(0) * here",
        "return (score.softmax(0) * here).float()",
    ),
    edit(
        "rules.Average",
        "presence is float32, so that half becomes float32",
        "present_of(logits, present).to(logits.dtype)",
        "present_of(logits, present).float()",
    ),
    edit(
        "rules.Trusted",
        "trust is float32, whatever the values are",
        "[: len(logits), None].to(logits.dtype)",
        "[: len(logits), None]",
    ),
    edit(
        "rules.Preferred",
        "weights are float64 always",
        "logits.new_tensor(share)",
        "torch.tensor(share, dtype=torch.float64, device=logits.device)",
    ),
    edit(
        "rules.Experts",
        "float64 is combined in float32",
        "mean = silenced(logits, present).sum(0) / count",
        "mean = silenced(logits, present).float().sum(0) / count",
    ),
    edit(
        "signals.Flattened",
        "float32 always",
        "(value / self.temperature).softmax(-1)",
        "(value / self.temperature).float().softmax(-1)",
    ),
    edit(
        "signals.Ranks",
        "steps of float32 meet other logits",
        ", dtype=value.dtype",
        "",
    ),
    edit(
        "views.Brighter",
        "factors of float32 change the type of half",
        ".to(x)",
        ".to(x.device)",
    ),
    edit(
        "views.Normed",
        "computed and given in float32",
        "flat = x.flatten(1)",
        "flat = x.flatten(1).float()",
    ),
    edit(
        "metrics.Brier",
        "added up in float32",
        "self.total, self.rows = 0.0, 0",
        "self.total, self.rows = torch.zeros(()), 0",
        ".double().sum().item()",
        ".sum().float()",
        "return self.total / self.rows if",
        "return float(self.total) / self.rows if",
    ),
    edit(
        "metrics.Spread",
        "squares are made in half precision",
        "apart = (answers.labels - answers.scores).double().flatten()",
        "apart = (answers.labels - answers.scores).half().double().flatten()",
    ),
    edit(
        "gates.Usual",
        "the mean is kept in half precision",
        "now = losses.double().sum()",
        "now = losses.half().sum().double()",
        "torch.zeros((), dtype=torch.float64)",
        "torch.zeros((), dtype=torch.float16)",
    ),
    edit(
        "gates.Better",
        "probabilities are compared in bfloat16",
        "side.softmax(-1)",
        "side.bfloat16().softmax(-1)",
    ),
    edit(
        "models.Patches",
        "positions stay float32",
        'self.register_buffer("positions", steps[:, None] * torch.ones(width))',
        "self.positions = steps[:, None] * torch.ones(width)",
    ),
    edit(
        "models.Residual",
        "the head is given float32",
        "return self.head(self.block(self.stem(x)).mean((2, 3)))",
        "return self.head(self.block(self.stem(x)).float().mean((2, 3)))",
    ),
]
