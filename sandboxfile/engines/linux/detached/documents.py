"""What goes through a keeper's socket, as JSON: commands, how they ended, options, errors."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandboxfile import errors
from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey, VolumeLayer
from sandboxfile.engine.base import Command, Committed, Completed, Limits, Mount, SandboxOptions
from sandboxfile.errors import EngineError, SandboxfileError

PROTOCOL = 1
"""Raised when an older keeper would misunderstand a newer client, or the other way about."""

Document = dict[str, Any]


def of_command(command: Command) -> Document:
    """A command."""
    return {
        "argv": list(command.argv),
        "env": dict(command.env),
        "cwd": command.cwd,
        "user": command.user,
        "network": command.network,
        "mounts": [[str(mount.origin.absolute()), mount.target] for mount in command.mounts],
        "secrets": {name: base64.b64encode(value).decode() for name, value in command.secrets.items()},
        "timeout": command.timeout,
    }


def to_command(document: Document) -> Command:
    """The command that a document says."""
    return Command(
        argv=tuple(document["argv"]),
        env=document["env"],
        cwd=document["cwd"],
        user=document["user"],
        network=document["network"],
        mounts=tuple(Mount(Path(origin), target) for origin, target in document["mounts"]),
        secrets={name: base64.b64decode(value) for name, value in document["secrets"].items()},
        timeout=document["timeout"],
    )


def of_options(options: SandboxOptions) -> Document:
    """How a sandbox is started."""
    return asdict(options)


def to_options(document: Mapping[str, Any]) -> SandboxOptions:
    """The options that a document says."""
    return SandboxOptions(**{**document, "limits": Limits(**document["limits"])})


def of_completed(completed: Completed) -> Document:
    """How a command ended."""
    return asdict(completed)


def to_completed(document: Document) -> Completed:
    """The end that a document says."""
    return Completed(**document)


def of_committed(committed: Committed) -> Document:
    """A committed layer."""
    return asdict(committed)


def to_committed(document: Document) -> Committed:
    """The committed layer that a document says."""
    diff_id = Digest(document["diff_id"]) if document["diff_id"] is not None else None
    return Committed(
        key(document["key"]),
        diff_id,
        document["size"],
        document["entries"],
        tuple(document["unreproducible"]),
    )


def of_definition(definition: object) -> Document:
    """The definition of a layer made of what a sandbox holds; there is no other kind here."""
    if not isinstance(definition, VolumeLayer):
        raise EngineError("of a running sandbox no other layer can be made")
    return {"parents": list(definition.parents), "id": definition.id}


def to_definition(document: Document) -> VolumeLayer:
    """The definition that a document says."""
    return VolumeLayer(tuple(map(key, document["parents"])), document["id"])


def key(text: str) -> LayerKey:
    """A layer's key."""
    return LayerKey(Digest(text))


def of_error(error: BaseException) -> Document:
    """An error: its kind is the nearest class of `errors`, or that of the operating system."""
    if isinstance(error, OSError) and error.errno is not None:
        return {"kind": "OSError", "errno": error.errno, "strerror": error.strerror}
    if not isinstance(error, SandboxfileError):
        return {"kind": "EngineError", "message": f"the keeper failed: {type(error).__name__}: {error}"}
    kind = next(each for each in type(error).__mro__ if each.__module__ == errors.__name__)
    said = {"capability": getattr(error, "capability", None), "limit": getattr(error, "limit", None)}
    return {
        "kind": kind.__name__,
        "message": error.message,
        "hint": error.hint,
        "details": list(error.details),
        **{name: str(value) for name, value in said.items() if value is not None},
    }


def to_error(document: Document) -> Exception:
    """The error that a document says."""
    if document["kind"] == "OSError":
        return OSError(document["errno"], document["strerror"])
    kind: Any = getattr(errors, document["kind"], EngineError)
    message, hint = document["message"], document.get("hint")
    details = tuple(document.get("details", ()))
    if issubclass(kind, errors.MissingCapability):
        return errors.MissingCapability(message, document["capability"], hint=hint)
    if issubclass(kind, errors.LimitNotEnforceable):
        return errors.LimitNotEnforceable(message, document["limit"], hint=hint)
    made: SandboxfileError = kind(message, hint=hint, details=details)
    return made
