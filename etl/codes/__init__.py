"""The registry of finding codes, reject reasons and ledger rules: their meanings and cures.

The makers of findings, rejects and ledger rows refuse a name that is not registered here.
"""

from __future__ import annotations

from etl.codes.entry import SEVERITIES, FindingCode, LedgerRule, RejectReason, Severity
from etl.codes.findings import FINDINGS
from etl.codes.ledger import RULES, check_rule
from etl.codes.rejects import REASONS, check_reason

__all__ = [
    "FINDINGS",
    "REASONS",
    "RULES",
    "SEVERITIES",
    "FindingCode",
    "LedgerRule",
    "RejectReason",
    "Severity",
    "check_reason",
    "check_rule",
]
