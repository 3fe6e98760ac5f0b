"""Every change of a byte of a sealed file is noticed."""

from __future__ import annotations

import json

import pytest

from etl.storage import sealed, store

FIELDS = {"snapshot": "ab12", "sequence": 12, "shares": [0.5, 1e-7], "names": {"é": None, "10": 1, "9": True}}


def test_an_unchanged_sealed_file_is_not_damaged_and_gives_its_fields_back() -> None:
    content = store.to_json(sealed.seal(FIELDS))
    assert sealed.damage(content, must_be_sealed=True) is None
    assert sealed.remove_seal(json.loads(content)) == FIELDS
    assert sealed.seal(json.loads(content)) == json.loads(content)


def test_every_changed_byte_and_every_truncation_is_noticed() -> None:
    content = store.to_json(sealed.seal(FIELDS))
    for place, byte in enumerate(content):
        for other in {byte ^ (1 << bit) for bit in range(8)} | {*b" \t\n0"} - {byte}:
            changed = content[:place] + bytes([other]) + content[place + 1 :]
            assert sealed.damage(changed, must_be_sealed=True), (place, other)
        assert sealed.damage(content[:place], must_be_sealed=True), place
    assert sealed.damage(content + b"\n", must_be_sealed=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a valid JSON file"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "not a valid JSON file"),
        (b'"\\ud800"', "not a valid JSON file"),
        (b"{}", "it has no digest"),
        (b'{"digest": 5}', "its content does not match its digest"),
    ],
)
def test_other_content_is_damage_with_a_reason(content: bytes, reason: str) -> None:
    assert reason in str(sealed.damage(content, must_be_sealed=True))


def test_an_older_file_without_a_digest_can_be_allowed() -> None:
    assert sealed.damage(b'{"sequence": 1}', must_be_sealed=False) is None
