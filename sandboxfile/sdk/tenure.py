"""What keeps a sandbox for the client that uses it, and who gives that back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.engine.base import Limits, SandboxOptions
from sandboxfile.sdk.origin import Origin
from sandboxfile.store.sandboxes import Entry, SandboxInfo, read

if TYPE_CHECKING:
    from sandboxfile.sdk.attachment import Attachment
    from sandboxfile.store.uses import Hold


class Tenure(Protocol):
    """What is said of a sandbox in the store, and what it holds there."""

    @property
    def info(self) -> SandboxInfo:
        """What is said of it now."""
        ...

    def note(self, info: SandboxInfo) -> None:
        """Say something new of it."""
        ...

    def release(self) -> None:
        """Give back what this client holds for it. May be called twice."""
        ...


class Own:
    """A sandbox that ends with this client, which holds everything for it."""

    def __init__(self, entry: Entry, held: Hold, attachments: tuple[Attachment, ...]) -> None:
        self._entry = entry
        self._held = held
        self._attachments = attachments

    @property
    def info(self) -> SandboxInfo:
        """What is said of it."""
        return self._entry.info

    def note(self, info: SandboxInfo) -> None:
        """Say something new of it."""
        self._entry.write(info)

    def release(self) -> None:
        """Give back its volumes and layers, and its file."""
        for attachment in self._attachments:
            attachment.release()
        self._held.release()
        self._entry.remove()


class Kept:
    """A detached sandbox: its keeper holds everything, and says what is said of it."""

    def __init__(self, directory: Path, info: SandboxInfo) -> None:
        self._directory = directory
        self._last = info

    @property
    def info(self) -> SandboxInfo:
        """What its keeper says of it now, or said last."""
        self._last = read(self._directory, self._last.id) or self._last
        return self._last

    def note(self, info: SandboxInfo) -> None:
        """Nothing: its keeper knows."""

    def release(self) -> None:
        """Nothing: its keeper does."""


def about(origin: Origin) -> dict[str, Any]:
    """What other clients have to know of a detached sandbox to use it, as JSON."""
    return {**asdict(origin), "stack": list(origin.stack), "options": asdict(origin.options)}


def origin_of(said: Mapping[str, Any]) -> Origin:
    """What `about` said."""
    options = said["options"]
    return Origin(
        **{
            **said,
            "stack": tuple(LayerKey(Digest(key)) for key in said["stack"]),
            "options": SandboxOptions(**{**options, "limits": Limits(**options["limits"])}),
        }
    )
