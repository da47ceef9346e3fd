"""What commands see: the environment, the network and the configuration a Sandboxfile stands for."""

from __future__ import annotations

from collections.abc import Mapping

from sandboxfile.core.environment import DEFAULT_PATH
from sandboxfile.core.layer import SnapshotConfig, StartCommand
from sandboxfile.spec.model import Resources, Sandboxfile


def environment(spec: Sandboxfile, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a step or a sandbox: the file's `env`, then `extra` (a step's own).

    With a virtual environment its programs come first in PATH, unless `extra` sets PATH itself.
    """
    own = extra or {}
    env = {**spec.env, **own}
    if spec.pip.venv is not None:
        env.setdefault("VIRTUAL_ENV", spec.pip.venv)
        if "PATH" not in own:
            env["PATH"] = f"{spec.pip.venv}/bin:{env.get('PATH', DEFAULT_PATH)}"
    return env


def network_text(network: bool | tuple[str, ...]) -> str:
    """`none`, `full`, or `filtered:` and the hosts, sorted."""
    if isinstance(network, tuple):
        return "filtered:" + ",".join(sorted(set(network))) if network else "none"
    return "full" if network else "none"


def snapshot_config(spec: Sandboxfile) -> SnapshotConfig:
    """What sandboxes of the result start with."""
    network = network_text(spec.network.allow) if spec.network.mode == "filtered" else spec.network.mode
    start = None
    if spec.start is not None:
        start = StartCommand(spec.start.command, spec.start.port, spec.start.timeout)
    return SnapshotConfig(
        env=environment(spec),
        workdir=spec.workdir,
        user=spec.user,
        start=start,
        network=network,
        secrets=tuple(sorted(secret.name for secret in spec.secrets)),
        resources=_resources(spec.resources),
        labels=dict(spec.labels),
    )


def _resources(resources: Resources) -> dict[str, str]:
    limits = {
        "memory": resources.memory,
        "cpus": resources.cpus,
        "pids": resources.pids,
        "disk": resources.disk,
    }
    return {name: str(value) for name, value in limits.items() if value is not None}
