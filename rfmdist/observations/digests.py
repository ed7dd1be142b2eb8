"""A digest that every zarr.json carries of itself, so that a changed one is noticed. Knows JSON; not what it means."""

from __future__ import annotations

import hashlib
import json
from typing import Any

DIGEST = "rfmdist-digest"
"""Attribute of what rfmdist writes. What bears none is of an earlier version or another program's, and is taken as it
is; removing the attribute makes it so."""
SHARED = {"column-order"}
"""Attributes that other programs change in place, as they add columns: the digest leaves them out."""


def with_digest(document: bytes) -> bytes:
    """Return a zarr.json with the digest of what it holds, in place of an earlier one."""
    found = json.loads(document)
    attributes = found.setdefault("attributes", {})
    attributes.pop(DIGEST, None)
    names = sorted(attributes.keys() - SHARED)
    attributes[DIGEST] = {"attributes": names, "blake2b": _digest(found, names)}
    return json.dumps(found, indent=2).encode()


def check_digest(document: bytes) -> None:
    """Refuse a zarr.json that is none, or whose digest does not fit.

    The digest names the attributes that it covers: one that another program adds later does no harm.

    Raises
    ------
    ValueError
    """
    found = json.loads(document)
    if DIGEST.encode() not in document:
        return
    told = found.get("attributes", {}).get(DIGEST) if isinstance(found, dict) else None
    if not isinstance(told, dict) or told.get("blake2b") != _digest(found, told.get("attributes")):
        raise ValueError("it does not fit its digest: another program or a fault has changed it")


def _digest(document: dict[str, Any], names: Any) -> str:
    """Hash of a document, of whose attributes only the named ones count; its layout as text does not."""
    attributes = document["attributes"]
    covered = {name: attributes[name] for name in names if name in attributes} if isinstance(names, list) else names
    # What Zarr writes beside a node for speed is not the node.
    kept = {name: part for name, part in document.items() if name not in ("attributes", "consolidated_metadata")}
    text = json.dumps([kept, names, covered], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
