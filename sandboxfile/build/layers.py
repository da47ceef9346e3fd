"""Building one layer: what each kind of definition means in terms of the engine's verbs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path

from sandboxfile.build import apt_install, pip_install
from sandboxfile.build.failed import FailedStep
from sandboxfile.build.runner import Log, how_it_ended
from sandboxfile.build.staging import staged
from sandboxfile.core.environment import build_environment
from sandboxfile.core.layer import (
    AptLayer,
    DebianBase,
    FilesLayer,
    PipLayer,
    RootfsBase,
    RunLayer,
    ScratchBase,
)
from sandboxfile.declared import dataclass, replace
from sandboxfile.engine.base import Capability, Command, Committed, Engine, Workspace
from sandboxfile.errors import BuildError, MissingCapability, PlanError, StepFailed
from sandboxfile.plan.model import PlannedLayer
from sandboxfile.store.store import Store


@dataclass(frozen=True)
class Ingredients:
    """What layers are made from, beside their definitions.

    inline:  bytes of `content:` files by sha256
    secrets: values of secrets by name
    uv:      the uv program on this machine
    """

    inline: Mapping[str, bytes] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    uv: Path | None = None


class LayerFailedError(Exception):
    """Carries a FailedStep out of a build; never seen by a user."""

    def __init__(self, failed: FailedStep) -> None:
        super().__init__(failed.error.message)
        self.failed = failed


def check_capabilities(layers: Iterable[PlannedLayer], engine: Engine) -> None:
    """Raise MissingCapability for the first layer that the engine cannot build, before any is begun."""
    for layer in layers:
        definition = layer.definition
        if isinstance(definition, DebianBase):
            _need(engine, Capability.BOOTSTRAP_DEBIAN, layer, "bootstrap a Debian base")
        elif isinstance(definition, RootfsBase):
            _need(engine, Capability.ROOTFS_TAR, layer, "unpack a root filesystem")
        elif isinstance(definition, RunLayer) and definition.network.startswith("filtered"):
            _need(
                engine,
                Capability.NETWORK_FILTERED,
                layer,
                "limit a step's network to named hosts",
                "write `network: true` to give the step the whole network, or fetch the files with `files`",
            )


async def build_layer(
    layer: PlannedLayer, *, engine: Engine, store: Store, ingredients: Ingredients, log: Log
) -> Committed:
    """Build a layer whose stack is present, and commit it.

    Raises LayerFailedError when a command in it failed (its workspace is kept), other SandboxfileErrors when
    something else did. The workspace is released on every path.
    """
    definition = layer.definition
    if definition is None:
        raise PlanError(f"the layer `{layer.name}` comes from a snapshot that is no longer in the store")
    workspace = await _prepare(layer, engine, store, log)
    try:
        if isinstance(definition, AptLayer):
            blobs = {pin.sha256: store.blobs.path(pin.sha256) for pin in definition.install}
            await apt_install.install(
                definition, workspace, blobs=blobs, staging=store.staging, log=log, name=layer.name
            )
        elif isinstance(definition, PipLayer):
            blobs = {wheel.sha256: store.blobs.path(wheel.sha256) for wheel in definition.wheels}
            await pip_install.install(
                definition,
                workspace,
                blobs=blobs,
                uv=ingredients.uv or _find_uv(),
                staging=store.staging,
                log=log,
                name=layer.name,
            )
        elif isinstance(definition, FilesLayer):
            await _place(definition, workspace, ingredients, store.staging)
        elif isinstance(definition, RunLayer):
            await _run(definition, layer, workspace, ingredients, log)
        return await workspace.commit(definition, layer.key)
    except StepFailed as error:
        if log.wants_space and not isinstance(definition, RunLayer):
            # Not the fault of a step: nothing in the workspace would tell more than the disk does.
            await workspace.abort()
            raise
        keep = Capability.KEEP_WORKSPACE in engine.capabilities
        await workspace.abort(keep=keep)
        command = (
            run_command(definition, {})
            if isinstance(definition, RunLayer)
            else _shell(build_environment(0, {}))
        )
        raise LayerFailedError(FailedStep(error, command, layer.stack, workspace.id)) from error
    except BaseException:
        await workspace.abort()
        raise


async def _prepare(layer: PlannedLayer, engine: Engine, store: Store, log: Log) -> Workspace:
    definition = layer.definition
    if isinstance(definition, DebianBase):
        packages = {pin.sha256: store.blobs.path(pin.sha256) for pin in definition.packages}
        return await engine.bootstrap(definition, packages, log.output)
    if isinstance(definition, RootfsBase):
        return await engine.unpack(definition, store.blobs.path(definition.rootfs), log.output)
    if isinstance(definition, ScratchBase) or layer.detached:
        return await engine.prepare(())
    return await engine.prepare(layer.stack)


def _need(
    engine: Engine, capability: Capability, layer: PlannedLayer, what: str, hint: str | None = None
) -> None:
    if capability not in engine.capabilities:
        message = f"the {engine.name} engine cannot {what}"
        raise MissingCapability(message, capability, span=layer.span, hint=hint)


async def _place(
    definition: FilesLayer, workspace: Workspace, ingredients: Ingredients, staging: Path
) -> None:
    wanted = {e.sha256 for e in definition.entries if e.type == "file" and not e.origin}
    try:
        files: dict[str, Path | bytes] = {digest: ingredients.inline[digest] for digest in wanted}
    except KeyError as error:
        raise PlanError(f"the content {error.args[0]} of a file is not at hand") from error
    with staged(staging, files) as directory:
        await workspace.place(
            [
                replace(entry, origin=str(directory / entry.sha256)) if entry.sha256 in files else entry
                for entry in definition.entries
            ]
        )


def run_command(definition: RunLayer, secrets: Mapping[str, bytes]) -> Command:
    """The command of a `run` step."""
    return Command(
        ("/bin/sh", "-ec", definition.command),
        env=build_environment(definition.epoch, definition.env),
        cwd=definition.cwd,
        user=definition.user,
        network=definition.network,
        secrets={name: secrets[name] for name in definition.secrets if name in secrets},
        timeout=definition.timeout,
    )


def _shell(env: Mapping[str, str]) -> Command:
    return Command(("/bin/sh",), env=env)


async def _run(
    definition: RunLayer,
    layer: PlannedLayer,
    workspace: Workspace,
    ingredients: Ingredients,
    log: Log,
) -> None:
    log.note("$ " + definition.command)
    completed = await workspace.execute(run_command(definition, ingredients.secrets), log.output)
    if completed.exit_code == 0 and not completed.timed_out:
        return
    hint = "look around in the state it failed in with `sandboxfile debug`"
    if definition.network == "none" and log.wants_network:
        hint = (
            "steps have no network unless they ask for it; write this one as `{run: …, network: true}`, "
            "or list what it fetches under `apt`, `pip` or `files`"
        )
    elif log.wants_space:
        hint = "it ran out of space; `sandboxfile cache gc` frees what nothing needs"
    raise StepFailed(
        f"the step `{layer.name}` {how_it_ended(completed, definition.timeout)}",
        layer=layer.name,
        exit_code=None if completed.timed_out else completed.exit_code,
        workspace=workspace.id,
        span=layer.span,
        hint=hint,
        details=log.tail(),
    )


def _find_uv() -> Path:
    """The uv program that comes with the `uv` distribution."""
    import uv

    try:
        return Path(uv.find_uv_bin())
    except FileNotFoundError:
        found = shutil.which("uv")
        if found is None:
            raise BuildError(
                "the program `uv` was not found", hint="install it again: `pip install uv`"
            ) from None
        return Path(found)
