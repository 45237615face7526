"""How far an answer moves between adjacent data: who is protected, and against what.

The **unit** is whose presence or content is hidden: a `sample`, one row of a party's data, or a `party`, all rows of
one. The **adjacency** is what may differ: `replace`, one unit stands where another stood, `add_remove`, one unit is
there or is not, or `zero_out`, nothing of one unit is used, and its place stays. (Kifer and Machanavajjhala, "No Free
Lunch in Data Privacy", 2011, name the first two; what is private by one at epsilon is so by another at another.)

Votes of teachers that were trained on disjoint parts, summed to a histogram over classes:

| unit | adjacency | what changes, at most | L2 | largest count |
|---|---|---|---|---|
| sample | replace | the one teacher that saw it votes for another class: -1 and +1 | sqrt 2 | 1 |
| sample | add_remove | the same, if samples are assigned to teachers one by one: see below | sqrt 2 | 1 |
| sample | zero_out | the same: the teacher that would have seen it learns without | sqrt 2 | 1 |
| party | replace | the party's only teacher votes for another class | sqrt 2 | 1 |
| party | add_remove, zero_out | the party's only teacher votes, or there is no such vote | 1 | 1 |

The last two hold where each party has one teacher and one vote. With `sample` and `add_remove` the parts must not
depend on how many samples there are: a shuffle by a seed deals all of them anew when one is gone, and then every vote
may change. With `replace` and `zero_out` the others keep their places, and their number may be known. That a teacher
does not vote at all is within these bounds. `zero_out` is what DP-SGD is counted by (Kairouz et al., "Practical and
Private (Deep) Learning Without Sampling or Shuffling", 2021, Definition 1.1): one sample moves a sum of clipped
gradients by one of these, where by `replace` it moves two.

A row of probabilities of one model, which was trained on all of a party's data: with one sample another the model may
be any other, and its row any other point of the simplex. Two of these are at most sqrt 2 apart, so that is the L2
sensitivity of each answered row, by either adjacency of samples, and by `replace` of the party; whether a party takes
part is not hidden by what it says, so `party` with another adjacency is refused. Nothing smaller holds without a
clipping that is stronger; of logits, which have no bound, there is no sensitivity at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from kdmesh.errors import MeshError

SAMPLE, PARTY = UNITS = ("sample", "party")
REPLACE, ADD_REMOVE, ZERO_OUT = ADJACENCIES = ("replace", "add_remove", "zero_out")

OF_VOTES = {
    (SAMPLE, REPLACE): math.sqrt(2),
    (SAMPLE, ADD_REMOVE): math.sqrt(2),
    (SAMPLE, ZERO_OUT): math.sqrt(2),
    (PARTY, REPLACE): math.sqrt(2),
    (PARTY, ADD_REMOVE): 1.0,
    (PARTY, ZERO_OUT): 1.0,
}
"""L2 sensitivity of a histogram of votes, by unit and adjacency."""
OF_LARGEST_COUNT = dict.fromkeys(OF_VOTES, 1.0)
"""Of the number of votes for the class that has most: each count moves by 1, and so does their maximum."""
OF_ROW = {one: math.sqrt(2) for one in OF_VOTES if one[0] == SAMPLE or one[1] == REPLACE}
"""Of a row of probabilities."""


def sensitivity(table: Mapping[tuple[str, str], float], unit: str, adjacency: str) -> float:
    """Look up a sensitivity. MeshError for a unit or adjacency that it is not known for."""
    if (unit, adjacency) in table:
        return table[unit, adjacency]
    known = "; ".join(f"unit: {one}, adjacency: {two}" for one, two in table)
    raise MeshError(f"unit: {unit}, adjacency: {adjacency} is not protected here", instead=known)
