"""Reward alone, distillation alone, both: sums of whole numbers, by language models that are trained here.

Run ``python benchmarks/reward_claims.py [--seeds N]``, with the package `kdmesh-rl` installed: ``kdmesh compare`` of
the meshes in ``benchmarks/claims/reward``. A student of 22k parameters begins with the weights of one that has learned
the data's answers for 180 updates. It goes on for as many, at a tenth of the rate: not at all (*begun*), with the
data's answers (*supervised*), with four answers of its own to each of 32 prompts in every step, by how right they are
(*reward*, group-normalised policy gradient), by what a teacher says of each token (*distillation*, reverse KL), or by
both, weighed alike (*both*). The teacher, of 84k, learns the data's answers for 720 updates, anew with each seed. Pairs
of numbers below 20, a fifth of them for testing; the figure is the share of test prompts whose greedy answer is right
(exact match).

What was expected before the first comparison was run: reward above begun, distillation above begun, and both above
either. That comparison was another: the student went on at the same rate (3e-3), with eight prompts in every step, and
forgot nearly all that it had learned (docs/text-claims.md). Rate and prompts are those of above since then: they were
chosen once, before the second comparison was run and after the first one's figures on test had been seen. That the mean
reward fell while it trained was looked at in seed 0 alone.
"""

from __future__ import annotations

import sys

from contenders import compare

NAMES = ("begun", "supervised", "reward", "distillation", "both")

if __name__ == "__main__":
    sys.exit(compare(__doc__, "reward", NAMES))
