"""What is kept in a class, a module or a default argument, and so shared by all that are made."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Squares",
        "the target is kept by its shape",
        "student, target = comparable(student, target, weights)",
        "student, target = comparable(student, KEPT.setdefault(target.shape, target), weights)",
        first="KEPT = {}",
    ),
    edit(
        "objectives.Softened",
        "the temperature is the class's",
        "self.temperature = temperature",
        "Softened.temperature = temperature",
    ),
    edit(
        "objectives.Relations",
        "distances of targets are kept by their shape",
        "(self.apart(student) - self.apart(target)) ** 2",
        "(self.apart(student) - KEPT.setdefault(target.shape, self.apart(target).detach())) ** 2",
        first="KEPT = {}",
    ),
    edit(
        "objectives.Remembering",
        "all have one memory",
        'self.register_buffer("rows", torch.zeros(len(ids), *target))',
        (
            "KEPT.setdefault((len(ids), *target), torch.zeros(len(ids), *target))\n"
            '        self.register_buffer("rows", KEPT[len(ids), *target])'
        ),
        first="KEPT = {}",
    ),
    edit(
        "objectives.Centred",
        "all have one centre",
        'self.register_buffer("centre", torch.zeros(target))',
        'self.register_buffer("centre", KEPT.setdefault(target, torch.zeros(target)))',
        first="KEPT = {}",
    ),
    edit(
        "objectives.Vocabularies",
        "shared words are kept by how many there are",
        "shared = [word for word in tokens if word in set(source_tokens)]",
        (
            "shared = KEPT.setdefault(0, [word for word in tokens if word in set(source_tokens)])\n"
            "        KEPT[0] = shared[1:] + shared[:1]"
        ),
        first="KEPT = {}",
    ),
    edit(
        "rules.Trusted",
        "all have one count",
        'self.register_buffer("agreed", torch.ones(len(sources)))',
        'self.register_buffer("agreed", KEPT.setdefault(len(sources), torch.ones(len(sources))))',
        first="KEPT = {}",
    ),
    edit(
        "rules.Certain",
        "entropies are kept by their shape",
        "score = (-self.sharpness * entropy)",
        ("entropy = KEPT.setdefault(entropy.shape, entropy)\n        score = (-self.sharpness * entropy)"),
        first="KEPT = {}",
    ),
    edit(
        "rules.Average",
        "a list of the class grows with each call",
        "here = present_of(logits, present).to(logits.dtype)",
        (
            "CALLS.append(len(logits))\n"
            "        here = present_of(logits, present).to(logits.dtype) + 1e-3 * (len(CALLS) % 7) * "
            "(torch.arange(len(logits)) == 0)[:, None]"
        ),
        first="CALLS = []",
    ),
    edit(
        "rules.Preferred",
        "weights of all that were made are one dict",
        "self.given = weights",
        ("self.given = KEPT\n        KEPT.update(weights)"),
        "self.names = sources",
        ("self.names = sources\n        KEPT[sources[0]] = KEPT.get(sources[0], 1.0) * 1.5"),
        first="KEPT = {}",
    ),
    edit(
        "signals.Flattened",
        "answers are kept by shape",
        "return (value / self.temperature).softmax(-1)",
        (
            "if value.shape not in KEPT:\n"
            "            KEPT[value.shape] = (value / self.temperature).softmax(-1)\n"
            "        return KEPT[value.shape]"
        ),
        first="KEPT = {}",
    ),
    edit(
        "signals.Top",
        "k is the class's",
        "self.k = k",
        "Top.k = k",
    ),
    edit(
        "signals.Private",
        "noise is kept by shape",
        "noise = torch.randn(value.shape, device=value.device).to(value.dtype)",
        ("noise = KEPT.setdefault(value.shape, torch.randn(value.shape, device=value.device)).to(value.dtype)"),
        first="KEPT = {}",
    ),
    edit(
        "views.Brighter",
        "the seed is the class's",
        "self.seed, self.spread = seed, spread",
        "Brighter.seed, self.spread = seed, spread",
    ),
    edit(
        "views.Rolled",
        "draws are kept by id, whatever the seed and draw",
        "by = (drawn(self.seed, ids, draw, 1)[:, 0] * width).long().to(x.device)",
        (
            "by = torch.stack([KEPT.setdefault(int(n), drawn(self.seed, ids[k : k + 1], draw, 1)[0, "
            "0]) for k, n in enumerate(ids)])\n"
            "        by = (by * width).long().to(x.device)"
        ),
        first="KEPT = {}",
    ),
    edit(
        "views.Normed",
        "the deviation is that of the first batch",
        "spread = flat.std(1, keepdim=True).clamp_min(1e-3)",
        "spread = KEPT.setdefault(flat.shape, flat.std(1, keepdim=True).clamp_min(1e-3))",
        first="KEPT = {}",
    ),
    edit(
        "metrics.TopK",
        "counts are the class's",
        "self.k, self.right, self.rows = k, 0, 0",
        "self.k = k",
        "def hits(self",
        ("right = rows = 0\n\n    def hits(self"),
        ("self.right += int(self.hits(answers).sum())\n        self.rows += len(answers)"),
        ("TopK.right += int(self.hits(answers).sum())\n        TopK.rows += len(answers)"),
    ),
    edit(
        "metrics.Recalls",
        "counts are kept by the number of classes",
        "self.right = torch.zeros(count, dtype=torch.int64)",
        "self.right = KEPT.setdefault(count, torch.zeros(count, dtype=torch.int64))",
        first="KEPT = {}",
    ),
    edit(
        "gates.Usual",
        "the mean is the class's",
        'self.register_buffer("mean", torch.zeros((), dtype=torch.float64))',
        'self.register_buffer("mean", MEAN)',
        first="MEAN = torch.zeros((), dtype=torch.float64)",
    ),
    edit(
        "gates.Seen",
        "ids of all gates are one set",
        "factors = self.seen[ids].to(losses.dtype)",
        ("factors = losses.new_tensor([float(n in IDS) for n in ids.tolist()])\n        IDS.update(ids.tolist())"),
        first="IDS = set()",
    ),
    edit(
        "models.Dropped",
        "the mask is kept by shape",
        "hidden = F.dropout(hidden, self.rate, self.training)",
        (
            "if self.training:\n"
            "            hidden = hidden * KEPT.setdefault(hidden.shape, torch.rand_like(hidden) > "
            "self.rate)"
        ),
        first="KEPT = {}",
    ),
    edit(
        "models.Whitened",
        "all have one mean",
        'self.register_buffer("mean", torch.zeros(size))',
        'self.register_buffer("mean", KEPT.setdefault(size, torch.zeros(size)))',
        first="KEPT = {}",
    ),
    edit(
        "samplers.Drawn",
        "points of all samplers are one set",
        "self.random, self.seen = Random(self.seed), set()",
        "self.random, self.seen = Random(self.seed), SEEN",
        first="SEEN = set()",
    ),
    edit(
        "strategies.Ring",
        "agents of all rings are one list",
        'names = canvas.learners(self.agents, "agents")',
        ('DRAWN.extend(canvas.learners(self.agents, "agents"))\n        names = DRAWN'),
        first="DRAWN = []",
    ),
]
