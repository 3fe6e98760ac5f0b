"""Sealed JSON files: canonical JSON with a digest over the other fields, so that any changed byte shows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from etl import json_text
from etl.storage import store

DIGEST = "digest"


def seal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with the SHA-256 of their canonical JSON as `digest`; an earlier digest is replaced."""
    own = remove_seal(fields)
    return {**own, DIGEST: hashlib.sha256(store.to_json(own)).hexdigest()}


def remove_seal(value: Any) -> Any:
    """Return a document without its digest, and any other value as it is."""
    return {key: part for key, part in value.items() if key != DIGEST} if isinstance(value, Mapping) else value


def damage(content: bytes, *, must_be_sealed: bool) -> str | None:
    """Return what is wrong with the bytes of a sealed file, else None; older files without a digest can be allowed."""
    try:
        document = json_text.parse(content)
        canonical = store.to_json(document)
    except ValueError as error:
        return f"not a valid JSON file: {error}"
    if not isinstance(document, dict):
        return "not a JSON object"
    if DIGEST not in document:
        return "it has no digest" if must_be_sealed else None
    if document[DIGEST] != seal(document)[DIGEST]:
        return "its content does not match its digest"
    return None if canonical == content else "it is not the canonical JSON of its content"
