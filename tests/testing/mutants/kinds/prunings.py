"""Rules of pruning that are wrong in ways of their own."""

from __future__ import annotations

from ..mutant import edit

SMALLEST, CHANCE, SHALLOW = "prunings.Smallest", "prunings.Chance", "prunings.Shallow"
DRAWN = "torch.randperm(one.numel(), device=one.device)"
MUTANTS = [
    edit(SMALLEST, "gives weights in place of masks", "return kept.reshape(",
         "return (weight.flatten() * kept).reshape("),
    edit(SMALLEST, "gives masks without a shape", "return kept.reshape(weight.shape)", "return kept"),
    edit(SMALLEST, "says what goes, not what is left", "return kept.reshape(", "return (~kept).reshape("),
    edit(SMALLEST, "leaves all of it", "] = False", "] = True"),
    edit(SMALLEST, "leaves nothing", "torch.ones_like(flat", "torch.zeros_like(flat"),
    edit(SMALLEST, "forgets a weight", "in weights.items()}", "in list(weights.items())[1:]}"),
    edit(SMALLEST, "rounds down what it says, and not what it does", "sum(round(", "sum(int("),
    edit(SMALLEST, "says what is left", "sum(round(self.share", "sum(round((1 - self.share)"),
    edit(SMALLEST, "counts all weights as one", "sum(round(self.share * size) for size in sizes)",
         "round(self.share * sum(sizes))"),
    edit(SMALLEST, "changes the weights", "        flat = ",
         "        weight.mul_(weight.abs() > 0.1)\n        flat = "),
    edit(SMALLEST, "takes names out", "return {name: self.mask(one)",
         "found = {name: self.mask(one) for name, one in weights.items()}\n"
         "        weights.popitem()\n        return found or {name: one"),
    edit(SMALLEST, "needs values where there are shapes alone", "[: round(self.share * len(flat))]",
         "[: round(self.share * len(flat)) if flat.max().item() else 0]"),
    edit(SMALLEST, "takes more each time that it is made", "self.share = share",
         "type(self).made = getattr(type(self), 'made', 0) + 1\n"
         "        self.share = min(share + 0.1 * self.made, 0.9)"),
    edit(CHANCE, "draws from numpy", DRAWN, "torch.from_numpy(numpy.random.permutation(one.numel()))",
         first="import numpy"),
    edit(CHANCE, "draws from Python", DRAWN, "torch.tensor(random.sample(range(one.numel()), one.numel()))",
         first="import random"),
    edit(CHANCE, "draws from a generator that nobody seeds", DRAWN,
         "torch.randperm(one.numel(), generator=drawn)", "found = {}",
         "found, drawn = {}, torch.Generator()\n        drawn.seed()"),
    edit(SHALLOW, "leaves its configuration as it was", "net.config.num_hidden_layers -= 1", "pass"),
    edit(SHALLOW, "takes nothing out", "layers[:-1]", "layers", "net.config.num_hidden_layers -= 1", "pass"),
    edit(SHALLOW, "gives the inner model", "return net", "return net.model"),
    edit(SHALLOW, "spoils what is left", "return net",
         "net.model.norm.weight.data.fill_(float('nan'))\n        return net"),
    edit(SHALLOW, "draws a layer from Python", "net.model.layers[:-1]",
         "net.model.layers[: 1 + random.randrange(1)]", first="import random"),
    edit(SHALLOW, "decides by values where there are shapes alone", "layers[:-1]",
         "layers[: -1 if net.lm_head.weight.sum().item() else 0]"),
]  # fmt: skip
