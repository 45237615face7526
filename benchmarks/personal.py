"""How fast personal data is taken out of texts, by all recognisers of the profile `hipaa`, on one core.

Run ``python benchmarks/personal.py``: 100,000 made-up letters, half of which hold an address or a number. Seconds are
CPU time of the process.
"""

from __future__ import annotations

import time

from kdmesh.hosts.personal import without_personal
from kdmesh.spec.personal import PersonalSpec
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts

COUNT = 100_000
BODY = "Dear colleague, the parcel came on time, and we thank you for number {} of your letters."
HELD = ("Write to ann{}@mail.example.org.", "Call +1 202-555-{:04}.", "It was sent on 2024-03-{:02}.", "", "", "")


def main() -> None:
    """Make the texts, take personal data out of them, and print how long that took."""
    texts = [f"{BODY.format(one)} {HELD[one % len(HELD)].format(one % 28 + 1)}" for one in range(COUNT)]
    table = Table(Texts([Sample(one) for one in texts]), None, 0)
    spec = PersonalSpec.model_validate({"action": "redact", "profile": "hipaa"})
    started = time.process_time()
    found = without_personal(table, spec)
    seconds = time.process_time() - started
    assert found.personal is not None
    size = sum(map(len, texts)) / COUNT
    print(f"{COUNT:,} texts of {size:.0f} characters: {seconds:.1f} s, {COUNT / seconds:,.0f} a second")
    print(f"{found.personal.counts()['parts']}")


if __name__ == "__main__":
    main()
