"""The contract of a recogniser of personal data."""

from __future__ import annotations

from typing import Any, ClassVar

from kdmesh.contracts.recogniser import Entity, Recogniser
from kdmesh.offers import RecogniserOffer
from kdmesh.personal.entities import checked
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here
from kdmesh.testing.run_mesh import MeshRun

AROUND = ("", "Tell me: ", "«", "é漢 ")
NONE = ("", " ", "Nothing is personal in this one.", "漢字", "a\nb\tc", "0", "=" * 200)


class RecogniserContract(Alike):
    """Checks that a recogniser finds ``texts`` wherever they stand, as entities of the kinds that its offer names.

    - ``texts``: such as it finds whole; where it needs words around them, what it finds is marked: `{{92}} years old`.
    - ``others``: such as it finds nothing in.
    """

    __test__ = False
    kind = "recognisers"
    device = False  # there are no tensors
    texts: ClassVar[tuple[str, ...]] = ()
    others: ClassVar[tuple[str, ...]] = ()

    def made(self, offer: RecogniserOffer, settings: dict[str, Any]) -> Recogniser:
        """One, as a mesh makes it."""
        made: Recogniser = offer.make(settings)
        return made

    def small_mesh(self, offer: RecogniserOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """One agent learns the classes of texts, of which some hold what it finds, and that is replaced."""
        data = small.texts()
        samples = list(data.texts)
        plain = self._plain() or [""]
        for number in range(0, len(samples), 2):
            said = plain[number % len(plain)]
            samples[number] = Sample(f"{samples[number].text} {said}", at=samples[number].at)
        fields = small.mesh(("a",), small.model(head="sequence"))
        fields["data"] = {**fields.get("data", {"dataset": "python:given"}), "personal": {
            "action": "redact", "find": [{offer.name: settings}]}}  # fmt: skip
        return fields, Table(Texts(samples), data.y, data.classes, labels=data.labels)

    def reported(self, run: MeshRun) -> Any:
        """How much it found."""
        told = run.summary["personal"]
        assert told["parts"], f"of what it is for it finds nothing in a mesh: {told}"
        return told

    def asked(self, offer: RecogniserOffer, thing: Any, number: int, at: At = here) -> Any:
        """What it finds in some texts; ``number`` tells one set from another."""
        texts = self._plain()
        return self.found(thing, [*texts, *self.others, *NONE, *(f"{number} {one}." for one in texts)])

    def _plain(self) -> list[str]:
        """Its texts, without marks."""
        return [one.replace("{{", "").replace("}}", "") for one in self.texts]

    def found(self, thing: Recogniser, texts: list[str]) -> list[list[Entity]]:
        """What it finds, as entities of these texts."""
        given = list(texts)
        found = checked(thing.find(given), texts, type(thing).__name__)
        assert given == texts, "it changed the texts"
        return [sorted(one) for one in found]

    def test_it_finds_what_it_is_for(self, offer: RecogniserOffer, settings: dict[str, Any]) -> None:
        """Whole, at the start of a text, in it, and at its end."""
        assert self.texts, "`texts` of the contract: some that it finds whole"
        made = self.made(offer, settings)
        for one in self.texts:
            first, mark, rest = one.partition("{{")
            meant, _, last = rest.partition("}}") if mark else (one, "", "")
            first = first if mark else ""
            for before in AROUND:
                for after in ("", " and so on", ", then"):
                    text = f"{before}{first}{meant}{last}{after}"
                    (found,) = self.found(made, [text])
                    at = len(before + first), len(before + first + meant)
                    whole = [entity for entity in found if (entity.start, entity.end) == at]
                    assert whole, f"{text!r}: {found}"
                    assert not offer.finds or whole[0].kind in offer.finds, f"{whole[0].kind} is none of {offer.finds}"

    def test_it_finds_nothing_else(self, offer: RecogniserOffer, settings: dict[str, Any]) -> None:
        """In texts without."""
        texts = [*self.others, *NONE]
        for one, found in zip(texts, self.found(self.made(offer, settings), texts), strict=True):
            assert not found, f"{one!r}: {found}"

    def test_a_text_is_all_that_counts(self, offer: RecogniserOffer, settings: dict[str, Any]) -> None:
        """Not those beside it, and not how often it was asked."""
        made, texts = self.made(offer, settings), [*self.texts, *NONE, *self.others, "{{}}"]
        together = self.found(made, texts)
        assert together == [self.found(made, [one])[0] for one in texts]
        assert together[::-1] == self.found(made, texts[::-1]), "it looks at the order"
        assert self.found(made, []) == []
