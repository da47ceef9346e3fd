"""What a sandbox was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import SandboxOptions


@dataclass(frozen=True)
class Origin:
    """What a sandbox was made from, so that another can be made like it.

    root:   slug of the volume or snapshot
    config: the configuration of that: its user, directory and variables
    """

    root: str
    stack: tuple[LayerKey, ...]
    config: Mapping[str, Any]
    options: SandboxOptions
    cwd: str
    user: str
    labels: Mapping[str, str] = field(default_factory=dict)
