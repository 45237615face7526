"""Names of licences as people write them."""

import pytest

from kdmesh.licences.names import NAMES, SAID, alternatives, named
from kdmesh.licences.table import TERMS


@pytest.mark.parametrize(
    ("written", "expression"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("apache 2", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("MIT License", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("mit", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("Creative Commons Attribution 4.0 International", "CC-BY-4.0"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("llama3.2", "LicenseRef-llama3.2"),
        ("Llama 3.2 Community License Agreement", "LicenseRef-llama3.2"),
        ("gemma", "LicenseRef-gemma"),
        ("CreativeML Open RAIL++-M License", "LicenseRef-openrailpp-m"),
        ("DeepSeek License Agreement", "LicenseRef-deepseek-1.0"),
        ("LicenseRef-Acme", "LicenseRef-Acme"),
        ("mit or (apache-2.0 and LicenseRef-Acme)", "MIT OR (Apache-2.0 AND LicenseRef-Acme)"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
    ],
)
def test_a_name_that_means_one_licence(written, expression):
    found = named(written)
    assert (found.expression, found.why) == (expression, "")
    assert named(found.expression).expression == expression


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "none is stated"),
        ("other", "'other' names none"),
        ("unknown", "'unknown' names none"),
        ("apache", "'apache' may be several"),
        ("apache 3", "'apache 3' is not on SPDX's list"),
        ("cc by", "'cc by' may be several"),
        ("cc by 3.0", "'cc by 3.0' is not on SPDX's list"),
        ("bsd", "'bsd' may be several"),
        ("deepseek", "'deepseek' may be several"),
        ("openrail", "'openrail' may be several"),
        ("MIT AND", "'MIT AND' is no SPDX expression"),
        ("(MIT", "'(MIT' is no SPDX expression"),
        ("MIT WITH luck", "'luck' is not on SPDX's list"),
        ("MIT/Apache-2.0", "'MIT/Apache-2.0' is no SPDX expression"),
        ("licenseref-acme", "'licenseref-acme' is not on SPDX's list"),
    ],
)
def test_what_is_not_known_is_not_guessed(written, why):
    found = named(written)
    assert found.expression == "" and found.why.startswith(why)


def test_names_in_the_lists_mean_licences_that_there_are():
    """Each is SPDX's, or one of which clauses were read."""
    for meant in {*NAMES.values(), *SAID.values()}:
        assert named(meant).expression == meant
        assert not meant.startswith("LicenseRef-") or meant in TERMS


def test_ways_to_meet_an_expression():
    assert alternatives("MIT OR (Apache-2.0 AND (CC-BY-4.0 OR LicenseRef-x))") == [
        ["MIT"],
        ["Apache-2.0", "CC-BY-4.0"],
        ["Apache-2.0", "LicenseRef-x"],
    ]
