"""The result in plain words: who won against what, by how much, whether that can be trusted, and what it cost."""

from __future__ import annotations

from typing import Any

from kdmesh.report import latency
from kdmesh.report.latency import NEVER
from kdmesh.report.page.blocks import Judged, Value, Words, count, given, number, probability, share, signed, span
from kdmesh.report.page.known import Known, row
from kdmesh.statistics import BETTER, EQUAL, NO_VERDICT, NOT_SHOWN, SAME, WORSE, than

FEW = 5  # seeds: with fewer only large differences show
ALONE = {"alone": "the same model trained alone", "best_teacher": "the same model taught by its best teacher only"}
CONTROLS = {"alone": "alone", "best_teacher": "its best teacher only"}  # the same in few words
TONES = {BETTER: "good", WORSE: "bad"}
MOST = 12  # students with a card of their own


def judged(known: Known) -> list[Judged]:
    """A verdict for each student, of at most `MOST`; the table of all stands below."""
    students = known.students
    if len(students) > MOST:
        means = {name: number(known.figure(name).get("mean")) for name in students}
        worth = {name: known.by.worth(mean) for name, mean in means.items() if mean is not None}
        students = sorted(worth, key=worth.__getitem__, reverse=True)[:MOST]
    return [_student(known, name) for name in students]


def short(known: Known) -> Words:
    """Who is ahead on test, in a sentence or two."""
    by = known.by
    figures = {name: known.figure(name) for name in known.nodes}
    ranked = {name: number(one.get("mean")) for name, one in figures.items()}
    best = _best(known, {name: value for name, value in ranked.items() if value is not None})
    if best is None:
        return ["Nothing has been measured on test yet."]
    words: list[str | Value] = [f"Best {by.title} on test: {best} ({known.nodes[best].get('role')}) with "]
    words += [given(share(ranked[best])), _over(figures[best].get("n"))]
    students = {name: value for name in known.students if (value := ranked.get(name)) is not None}
    first = _best(known, students)
    if first is not None and first != best:
        words += [f" Best student: {first} with ", given(share(students[first])), "."]
    told = [one for one in known.over.get("verdicts") or [] if one.get("verdict")]
    if told:
        words.append(" " + _counted(told))
    return words


def general(known: Known) -> list[Words]:
    """What holds of all figures alike."""
    if not known.over:
        return []
    said: list[Words] = [["The test split chose nothing: best teachers are chosen on validation. "]]
    if len(known.summaries) > 1:
        said[0] = [
            *said[0], "All seeds share one split: intervals say how training varies, not which samples the test set "
            "happens to hold. No difference shown is not the same as equal."
        ]  # fmt: skip
    against = {str(one.get("against")) for one in known.over.get("verdicts") or []}
    if against & set(ALONE):
        said.append([
            "A student's controls, alone and taught by its best teacher only, have its initial weights, samples, order "
            "of batches and number of updates; alone, it learns from labels only."
        ])  # fmt: skip
    if len(known.students) > MOST:
        said.append([f"The best {MOST} of {len(known.students)} students have a card; all stand in Results."])
    return said


def _counted(told: list[dict[str, Any]]) -> str:
    """How many comparisons with controls came out how."""
    found = []
    for word in (BETTER, WORSE, EQUAL, SAME, NOT_SHOWN):
        if number_ := sum(one["verdict"] == word for one in told):
            found.append(f"{number_} {word}")
    of = "comparison" if len(told) == 1 else "comparisons"
    return f"{len(told)} {of} of students with their controls: {', '.join(found)}."


def _best(known: Known, values: dict[str, float]) -> str | None:
    worth = {name: known.by.worth(value) for name, value in values.items()}
    return max(worth, key=worth.__getitem__, default=None)


def _student(known: Known, name: str) -> Judged:
    told = [one for one in known.over.get("verdicts") or [] if one.get("agent") == name]
    shown: dict[str, list[str]] = {}
    for one in told:
        if one.get("verdict"):
            shown.setdefault(one["verdict"], []).append(CONTROLS.get(one["against"], str(one["against"])))
    word = "; ".join(f"{verdict} {than(verdict)} {' and '.join(of)}" for verdict, of in shown.items()) or NO_VERDICT
    tone = TONES.get(next(iter(shown)), "open") if len(shown) == 1 else "open"
    said: list[tuple[str, Words]] = [("Result", _result(known, name))]
    said += [("Against", _against(known, one)) for one in told]
    said += [("Beside", beside) for beside in _beside(known, name)]
    said += [("Trust", _trust(known, name, told)), ("Cost", _cost(known, name))]
    return Judged(name, word, tone, said)


def _result(known: Known, name: str) -> Words:
    one = known.figure(name)
    if not one:
        return ["was not measured on test."]
    words: list[str | Value] = [f"{known.by.title} on test ", given(share(one.get("mean")))]
    half = share(one.get("half_width"))
    if half is not None:
        words += [" ± ", half, f" (95% interval of the mean over {one.get('n')} seeds)."]
    else:
        words.append(", one seed: how much another would differ is not known.")
    return words


def _against(known: Known, one: dict[str, Any]) -> Words:
    """A verdict against a control, as a sentence."""
    rival, mean, by = ALONE.get(one["against"], str(one["against"])), number(one.get("mean")), known.by
    if mean is None:
        return [f"{rival}: not measured."]
    low, high = signed(one.get("low")), signed(one.get("high"))
    if low is None or high is None:
        return [given(signed(mean)), f" {by.title} to {rival}, one seed: no verdict."]
    pair = row(
        row(row(known.over.get("differences")).get(one["agent"])).get(f"control {one['against'].replace('_', ' ')}")
    )
    words: list[str | Value] = [
        f"{str(one['verdict']).capitalize()} {than(one['verdict'])} {rival}: ",
        given(signed(mean)), f" {by.title}, 95% interval ", low, " to ", high,
        f", paired over {one.get('n')} seeds; better in {pair.get('wins')} of them",
    ]  # fmt: skip
    if (p := probability(one.get("p"))) is not None:
        words += ["; p ", p]
    return [*words, "."]


def _beside(known: Known, name: str) -> list[Words]:
    """How far the student is from its best teacher and from each consensus."""
    found: list[Words] = []
    pairs = row(row(known.over.get("differences")).get(name))
    for rival, pair in pairs.items():
        if rival.startswith("control ") or (mean := number(row(pair).get("mean"))) is None:
            continue
        what = "its best teacher (chosen on validation)" if rival == "best teacher" else rival
        words: list[str | Value] = [given(signed(mean)), f" {known.by.title} to {what}"]
        smaller = _smaller(known, name) if rival == "best teacher" else None
        words += [", with ", smaller, " parameters"] if smaller is not None else []
        found.append([*words, "."])
    return found


def _smaller(known: Known, name: str) -> Value | None:
    """The student's parameters as a share of its best teacher's."""
    best = known.nodes[name].get("best_teacher")
    own, other = known.mean(name, "parameters"), known.mean(str(best), "parameters")
    if not own or not other:
        return None
    return Value(own / other, f"{own / other:.1%} of its" if own < other else f"{own / other:.3g} times its")


def _trust(known: Known, name: str, told: list[dict[str, Any]]) -> Words:
    """What a figure is worth, in sentences."""
    words: list[str | Value] = []
    n = number(known.figure(name).get("n")) or 0
    if n < 2:
        words.append("One seed decides nothing: another may turn this around. kdmesh run --seeds 10 --controls tells. ")
    elif not told:
        words.append("There are no controls: a gain cannot be put down to the teachers. --controls trains them. ")
    elif n < FEW:
        words.append(f"{int(n)} seeds are few. ")
    pairs = row(row(known.over.get("differences")).get(name))
    for one in told:
        found = number(row(pairs.get(f"control {one['against'].replace('_', ' ')}")).get("detectable"))
        if found and one.get("verdict") == NOT_SHOWN:
            words += [
                f"Against {'alone' if one['against'] == 'alone' else 'best teacher only'}, a true difference below ",
                given(share(found)), " would often be missed. ",
            ]  # fmt: skip
    if notes := known.over.get("notes"):
        words.append(
            f"{len(notes)} {'note qualifies' if len(notes) == 1 else 'notes qualify'} the figures: see Notes. "
        )
    if known.nodes[name].get("dropped"):
        words.append("It was dropped during the run. ")
    if known.nodes[name].get("learned") is False:
        words.append("Its weights did not move: it learned nothing. ")
    return words or [f"Good as far as one split tells: {int(n)} seeds, with controls."]


def _cost(known: Known, name: str) -> Words:
    words: list[str | Value] = []
    for what in ("parameters", "updates"):
        if (said := count(known.mean(name, what))) is not None:
            words += [said, f" {what}, "]
    fresh = known.mean(name, "batches", "1", "p50_ms")
    if (each := known.mean(name, "latency_ms") if fresh is None else fresh) is not None:
        words += [Value(each, f"{each:.3g}"), " ms an answer, "]
    teachers = [one for one in known.nodes[name].get("teachers") or [] if isinstance(one, str)]
    made = [value for one in teachers if (value := known.mean(one, "forwards", "made")) is not None]
    if made:
        words += [
            given(count(sum(made))),
            f" batches answered by {len(teachers)} {'teacher' if len(teachers) == 1 else 'teachers'}, ",
        ]
    seconds = [value for one in known.summaries if (value := number(one.get("wall_s"))) is not None]
    if seconds:
        words += ["of a run of ", given(span(sum(seconds) / len(seconds))), " a seed"]
    return [*words, ".", *_repaid(known, name)] if words else ["was not recorded."]


def _repaid(known: Known, name: str) -> Words:
    """After how many requests of one sample a student has repaid its distillation, where that is known."""
    one = row(latency.repaid(known.run).get(name))
    batch = row(row(one.get("batches")).get(latency.SIZES[0]))
    value = number(batch.get("requests"))
    if value is not None:
        requests = Value(value, latency.requests(batch))
        return [" Repaid after ", requests, f" requests of one sample, against {one['replaces']}."]
    never = batch.get("word") == NEVER
    return [f" Against {one['replaces']} it never repays that: it is no faster."] if never else []


def _over(n: Any) -> str:
    known = number(n)
    return " (one seed)." if known is None or known < 2 else f" (mean of {int(known)} seeds)."
