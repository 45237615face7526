"""Differential privacy of what a party releases: mechanisms, noise from its secret, and the account of what was spent.

A library: it knows files and errors alone. :mod:`~kdmesh.privacy.accounting` says what answers cost,
:mod:`~kdmesh.privacy.mechanisms` what may be released, and how. A mechanism's noise comes from the party's secret
(:mod:`~kdmesh.privacy.keys`, :mod:`~kdmesh.privacy.gaussian`), and :mod:`~kdmesh.privacy.releasing` writes each charge
into the party's ledger (:mod:`~kdmesh.privacy.ledger`) before it gives an answer out.
"""
