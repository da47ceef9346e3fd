"""Digests: the hash of a document you could print.

A record is encoded as canonical JSON `[tag, record]`: UTF-8 bytes of ASCII-escaped text, object keys
sorted, no white space, no floats, so that the preimage can be decoded and two records never share one
(docs/dev/hashing.md has worked examples). Each dataclass field that takes part is declared `identity()`,
each one that does not `metadata()`; a record is derived from the declarations, never listed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from enum import Enum
from typing import Any, NewType

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits, as in the OCI image specification."""

Record = Mapping[str, Any]
"""What is hashed: JSON objects, arrays, strings, integers, booleans and null."""

_ROLE = "sandboxfile.role"
_SCALARS = frozenset({str, int, bool, type(None)})
_identities: dict[type[Any], tuple[str, ...]] = {}


def identity(*, default: Any = MISSING, default_factory: Any = MISSING) -> Any:
    """A dataclass field that is part of what is hashed."""
    return _declared("identity", default, default_factory)


def metadata(*, default: Any = MISSING, default_factory: Any = MISSING) -> Any:
    """A dataclass field that never moves a key; it does not take part in comparisons either."""
    return _declared("metadata", default, default_factory)


def _declared(role: str, default: Any, factory: Any) -> Any:
    options: dict[str, Any] = {"metadata": {_ROLE: role}, "compare": role == "identity"}
    if default is not MISSING:
        options["default"] = default
    if factory is not MISSING:
        options["default_factory"] = factory
    return field(**options)


def role(of: Field[Any]) -> str | None:
    """`identity`, `metadata`, or None for a field that was declared as neither."""
    return of.metadata.get(_ROLE)


def record_of(value: Any) -> Any:
    """The identity of a value as a JSON tree.

    Raises TypeError for a dataclass with an undeclared field, for a float, and for any type that has no
    JSON form: a key must never depend on something that was not thought about.
    """
    if type(value) in _SCALARS or isinstance(value, int):
        return value
    if isinstance(value, Enum):
        return record_of(value.value)
    if isinstance(value, str):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {name: record_of(getattr(value, name)) for name in _identity_of(type(value))}
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError("a record's keys are strings")
        return {name: record_of(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [record_of(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no place in a record")


def _identity_of(cls: type[Any]) -> tuple[str, ...]:
    """The names of a dataclass's identity fields, looked up once for each class."""
    names = _identities.get(cls)
    if names is None:
        for each in fields(cls):
            if role(each) is None:
                raise TypeError(f"{cls.__name__}.{each.name} is neither identity nor metadata")
        names = tuple(each.name for each in fields(cls) if role(each) == "identity")
        _identities[cls] = names
    return names


def canonical(tag: str, record: Any) -> bytes:
    """The preimage of a digest: canonical JSON of `[tag, record]`."""
    text = json.dumps(
        [tag, record_of(record)], sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def digest_of(tag: str, record: Any) -> Digest:
    """The digest of a record under a tag such as `sandboxfile.layer/v1`."""
    return digest_bytes(canonical(tag, record))


def digest_bytes(content: bytes) -> Digest:
    """The digest of bytes as they are."""
    import hashlib  # loads OpenSSL

    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def is_digest(text: str) -> bool:
    """Whether a text has the form of a Digest."""
    algorithm, _, value = text.partition(":")
    return algorithm == "sha256" and len(value) == 64 and set(value) <= set("0123456789abcdef")


def hexadecimal(digest: Digest) -> str:
    """The 64 digits of a digest, as used in file names."""
    return digest.partition(":")[2]
