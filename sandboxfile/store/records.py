"""The values the index holds, and their JSON forms on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from sandboxfile.core.digest import Digest, digest_bytes, is_digest
from sandboxfile.core.layer import LAYER_TAG, Definition, LayerKey, layer_key, preimage
from sandboxfile.declared import dataclass


@dataclass(frozen=True)
class LayerRecord:
    """A built layer.

    preimage: the canonical document that was hashed for `key`; empty when it is not known
    size:     bytes of its files; entries: their number
    parents:  keys of the layers its definition builds on
    unreproducible: paths no rule can make equal between two builds
    boot:     the boot of the machine (see `durability`) in which it was made, for as long as its content
              may not have reached the disk; None once it has
    Times are seconds since the epoch.
    """

    key: LayerKey
    kind: str
    name: str
    preimage: str
    diff_id: Digest | None
    size: int
    entries: int
    parents: tuple[LayerKey, ...]
    created: float
    last_used: float
    unreproducible: tuple[str, ...] = ()
    boot: str | None = None

    @property
    def definition(self) -> Mapping[str, Any] | None:
        """The record that was hashed, `{"kind": …, "definition": …}`; None when it is not known."""
        if not self.preimage:
            return None
        record: Mapping[str, Any] = json.loads(self.preimage)[1]
        return record


def layer_record(
    definition: Definition,
    *,
    name: str,
    diff_id: Digest | None,
    size: int,
    entries: int,
    now: float,
    unreproducible: Sequence[str] = (),
    boot: str | None = None,
) -> LayerRecord:
    """The record of a layer that was just built from a definition."""
    return LayerRecord(
        key=layer_key(definition),
        kind=definition.kind,
        name=name,
        preimage=preimage(definition).decode("ascii"),
        diff_id=diff_id,
        size=size,
        entries=entries,
        parents=definition.parents,
        created=now,
        last_used=now,
        unreproducible=tuple(unreproducible),
        boot=boot,
    )


def layer_document(record: LayerRecord) -> dict[str, Any]:
    """What `layer.json` says of a layer, so that the index can be made anew from the directories."""
    return {
        "key": record.key,
        "kind": record.kind,
        "name": record.name,
        "preimage": record.preimage,
        "diff_id": record.diff_id,
        "size": record.size,
        "entries": record.entries,
        "parents": list(record.parents),
        "created": record.created,
        "unreproducible": list(record.unreproducible),
        "boot": record.boot,
    }


def layer_of_document(document: Any, key: LayerKey, when: float) -> LayerRecord | None:
    """The record that a `layer.json` under a key describes; None when it describes another layer or none.

    Only what is there is taken: a document without a preimage gives a layer that can be used, but not
    explained.
    """
    if not isinstance(document, dict) or document.get("key", key) != key:
        return None
    text = _preimage(document, key)
    hashed = json.loads(text)[1] if text else {}
    inner = hashed.get("definition", {})
    parents = document.get("parents", inner.get("parents", ()))
    if not isinstance(parents, list | tuple) or not all(map(_is_key, parents)):
        return None
    diff_id = document.get("diff_id")
    kind = str(document.get("kind") or hashed.get("kind") or "layer")
    created = _number(document.get("created"), when)
    return LayerRecord(
        key=key,
        kind=kind,
        name=str(document.get("name") or kind),
        preimage=text,
        diff_id=Digest(diff_id) if isinstance(diff_id, str) and is_digest(diff_id) else None,
        size=int(_number(document.get("size"), 0)),
        entries=int(_number(document.get("entries"), 0)),
        parents=tuple(LayerKey(Digest(parent)) for parent in parents),
        created=created,
        last_used=created,
        unreproducible=tuple(map(str, document.get("unreproducible") or ())),
        boot=str(document["boot"]) if document.get("boot") else None,
    )


@dataclass(frozen=True)
class SnapshotRecord:
    """A published snapshot. `layers` lowest first; `config` is the configuration's JSON form."""

    slug: str
    key: Digest
    name: str
    layers: tuple[LayerKey, ...]
    config: Mapping[str, Any]
    created: float
    last_used: float


def snapshot_document(record: SnapshotRecord) -> dict[str, Any]:
    """What `snapshots/<slug>.json` says."""
    return {
        "slug": record.slug,
        "key": record.key,
        "name": record.name,
        "layers": list(record.layers),
        "config": dict(record.config),
        "created": record.created,
    }


def snapshot_of_document(document: Any) -> SnapshotRecord | None:
    """The record that a snapshot's file describes; None when it describes none."""
    if not isinstance(document, dict):
        return None
    slug, key, name = (document.get(field) for field in ("slug", "key", "name"))
    layers, config = document.get("layers"), document.get("config")
    if not (isinstance(slug, str) and isinstance(name, str) and _is_key(key)):
        return None
    if not (isinstance(layers, list) and all(map(_is_key, layers)) and isinstance(config, dict)):
        return None
    created = _number(document.get("created"), 0)
    keys = tuple(LayerKey(Digest(layer)) for layer in layers)
    return SnapshotRecord(slug, Digest(str(key)), name, keys, config, created, created)


@dataclass(frozen=True)
class Head:
    """What an environment's last build was made of.

    environment: what tells one environment from another (a digest of its file's place, say)
    layers:      the plan's layer names and their keys
    definitions: the definition records by layer name, for the comparison with the next plan
    """

    environment: str
    slug: str | None
    layers: Mapping[str, LayerKey]
    definitions: Mapping[str, Any]
    updated: float = 0.0


@dataclass(frozen=True)
class Done:
    """What a build did with one node of its plan, and why: an action with its reason, as data."""

    node: str
    action: str
    code: str
    text: str
    changes: tuple[str, ...] = ()

    def record(self) -> list[Any]:
        """Its JSON form."""
        return [self.node, self.action, self.code, self.text, list(self.changes)]

    @classmethod
    def of(cls, record: Sequence[Any]) -> Done:
        """From its JSON form."""
        node, action, code, text, changes = record
        return cls(node, action, code, text, tuple(changes))


@dataclass(frozen=True)
class PastBuild:
    """A build of an environment that is remembered.

    number:      counts the builds of the environment
    layers:      the plan's layer names and their keys
    definitions: the definition records by node name
    actions:     what was done with each node
    built:       when it was published, in seconds since the epoch
    """

    environment: str
    number: int
    slug: str
    layers: Mapping[str, LayerKey]
    definitions: Mapping[str, Any]
    actions: tuple[Done, ...]
    built: float


@dataclass(frozen=True)
class Failure:
    """A step that failed and the kept workspace that shows its state. `command` is the JSON form of what
    ran: argv, env, cwd, user."""

    environment: str
    workspace: str
    layer: str
    command: Mapping[str, Any] = field(default_factory=dict)
    created: float = 0.0


def _preimage(document: Mapping[str, Any], key: LayerKey) -> str:
    """The text that was hashed, from any of the forms a document may hold it in, proven by the key."""
    hashed = document.get("preimage")
    forms: list[Any] = [hashed]
    if "definition" in document:
        inner = document["definition"]
        forms += [[LAYER_TAG, inner], [LAYER_TAG, {"kind": document.get("kind"), "definition": inner}]]
    for form in forms:
        text = form if isinstance(form, str) else json.dumps(form, sort_keys=True, separators=(",", ":"))
        if digest_bytes(text.encode()) == key:
            return text
    return ""


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and is_digest(value)


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default
