"""Loops over sets of texts, whose order differs from process to process."""

from ..mutant import edit

MUTANTS = [
    edit(
        "strategies.Ring",
        "who teaches whom follows a set",
        'canvas.learners(self.agents, "agents")',
        'list({*canvas.learners(self.agents, "agents")})',
    ),
    edit(
        "strategies.Council",
        "teachers of a set flow into the mean",
        'canvas.names(self.teachers, "teachers")',
        'list(set(canvas.names(self.teachers, "teachers")))',
    ),
    edit(
        "strategies.Council",
        "flows are drawn in the order of a set",
        "for teacher in teachers:",
        "for teacher in frozenset(teachers):",
    ),
    edit(
        "datasets.rows",
        "classes are numbered as a set has them",
        'labels = sorted({row["label"] for row in found})',
        'labels = list({row["label"] for row in found})',
    ),
    edit(
        "datasets.rows",
        "columns stand as a set has them",
        'numbers = [name for name in found[0] if name.startswith("x")]',
        'numbers = list({name for name in found[0] if name.startswith("x")})',
    ),
    edit(
        "datasets.rows",
        "rows of equal texts are left out by a set",
        "labels = sorted",
        ("found = [dict(zip(found[0], row)) for row in {tuple(row.values()) for row in found}]\n    labels = sorted"),
    ),
    edit(
        "datasets.rows",
        "cities are named by their number in a set",
        'columns = {"city": [row["city"] for row in found]}',
        (
            'cities = list({row["city"] for row in found})\n'
            '    columns = {"city": [str(cities.index(row["city"])) for row in found]}'
        ),
    ),
    edit(
        "rules.Preferred",
        "names stand as a set has them",
        "self.names = sources",
        "self.names = tuple({*sources})",
    ),
    edit(
        "rules.Trusted",
        "the first in a set of sources is trusted more",
        'self.register_buffer("agreed", torch.ones(len(sources)))',
        (
            'self.register_buffer("agreed", torch.ones(len(sources)))\n'
            "        self.agreed[sources.index(next(iter({*sources})))] = 2"
        ),
    ),
    edit(
        "rules.Average",
        "sources are added up in the order of a set",
        "def weights(",
        (
            "def setup(self, sources, classes, inputs):\n"
            "        self.order = [sources.index(name) for name in {*sources}]\n"
            "\n"
            "    def forward(self, values, *, logits, labels=None, present=None):\n"
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        order = [place for place in self.order if place < len(values)]\n"
            "        return weighted_sum(values[order], weights[order])\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "objectives.Vocabularies",
        "shared words stand as a set has them",
        "shared = [word for word in tokens if word in set(source_tokens)]",
        "shared = list(set(tokens) & set(source_tokens))",
    ),
    edit(
        "objectives.Vocabularies",
        "the longest word is that of a set",
        "steps = torch.linspace(1, 2, len(shared))",
        ("steps = torch.linspace(1, 2, len(shared))\n        steps[shared.index(max({*shared}, key=len))] = 3"),
    ),
    edit(
        "signals.Pooled",
        "layers stand as a set has them",
        "for name in sorted(taps)",
        "for name in {*taps}",
    ),
    edit(
        "signals.Pooled",
        "the first layer of a set has a say of its own",
        "return torch.cat(parts, -1)",
        "return torch.cat([*parts, 2 * taps[next(iter(set(taps)))].flatten(1)], -1)",
    ),
    edit(
        "models.Patches",
        "layers are made in the order of a set",
        "self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))",
        ('for name in {"query", "key", "value"}:\n            setattr(self, name, nn.Linear(width, width))'),
    ),
    edit(
        "samplers.Drawn",
        "axes are drawn in the order of a set",
        "point = {axis.path: self.value(axis) for axis in self.axes}",
        (
            "by = {axis.path: axis for axis in self.axes}\n"
            "            point = {path: self.value(by[path]) for path in {*by}}"
        ),
    ),
    edit(
        "gates.Late",
        "the figure is the first of a set",
        'good = [metrics[name] for name in sorted(metrics) if name == "accuracy"]',
        "good = [metrics[name] for name in [*{*metrics}][:1]]",
    ),
]
