"""Who writes what a student learns from: sums of whole numbers, by language models that are trained here.

Run ``python benchmarks/sums_claims.py [--seeds N]``: ``kdmesh compare`` of the meshes in ``benchmarks/claims/sums``,
each with the same student of 22k parameters and 360 updates. *supervised*: the data's answers; *off-policy*: what a
teacher says of these; *sequence-level*: the teacher's own answers; *on-policy*: the student's own, of which the teacher
says what it thinks; *half-on-policy*: half the batches of either; *privileged-self*: the student, told the answer in
its prompt, teaches itself on what it writes. Pairs of numbers below 20, a fifth of them for testing; the figure is the
share of test prompts whose greedy answer is right (exact match).

What was expected before the first comparison was run: on-policy above off-policy and above supervised, and
privileged-self above supervised, by intervals above 0. One seed of supervised, on-policy and privileged-self was run
before, to see how long they take. In that of on-policy the teacher still learned beside the student, which was a
mistake in the file and mended; nothing else was changed by what they printed.
"""

from __future__ import annotations

import sys

from contenders import compare

NAMES = ("supervised", "off-policy", "sequence-level", "on-policy", "half-on-policy", "privileged-self")

if __name__ == "__main__":
    sys.exit(compare(__doc__, "sums", NAMES))
