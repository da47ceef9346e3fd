"""A step or check that failed, as it is kept for `debug`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Command
from sandboxfile.errors import StepFailed


@dataclass(frozen=True)
class FailedStep:
    """What opens the state a step failed in: the layers below, the kept workspace (empty for a check, whose
    writes were thrown away), and the command."""

    error: StepFailed
    command: Command
    stack: tuple[LayerKey, ...]
    workspace: str

    def record(self) -> dict[str, Any]:
        """The JSON form of the command and the stack. Secrets are not part of it."""
        return {
            "argv": list(self.command.argv),
            "env": dict(self.command.env),
            "cwd": self.command.cwd,
            "user": self.command.user,
            "network": self.command.network,
            "stack": list(self.stack),
            "message": self.error.message,
        }


def command_of_record(record: Mapping[str, Any]) -> tuple[Command, tuple[LayerKey, ...]]:
    """The command and the stack of a record. KeyError when it is none."""
    command = Command(
        tuple(record["argv"]),
        env=dict(record["env"]),
        cwd=record["cwd"],
        user=record["user"],
        network=record["network"],
    )
    return command, tuple(LayerKey(Digest(key)) for key in record["stack"])
