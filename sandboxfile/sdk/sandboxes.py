"""`client.sandboxes`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sandboxfile.build.result import SnapshotInfo
from sandboxfile.core.environment import run_environment
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import replace
from sandboxfile.engine.base import (
    Capability,
    Command,
    DetachedSandbox,
    Detachment,
    Limits,
    SandboxOptions,
)
from sandboxfile.errors import MissingCapability, NoSuchSandbox, NoSuchSnapshot, SandboxElsewhere, UsageError
from sandboxfile.sdk import arguments
from sandboxfile.sdk.attachment import Attachment, attach
from sandboxfile.sdk.origin import Origin
from sandboxfile.sdk.sandbox import AsyncSandbox
from sandboxfile.sdk.session import Session
from sandboxfile.sdk.tenure import Kept, Own, about, origin_of
from sandboxfile.sdk.volumes import LIMITS, VolumeInfo, config_text, slug_of
from sandboxfile.store.names import new_id
from sandboxfile.store.sandboxes import Entry, SandboxInfo, running

NETWORKS = ("none", "full", "filtered")
PRIVILEGES = ("none", "sudo")
MOST_PIDS = 4_194_304

Taken = list[Attachment]
Layers = list[LayerKey]
Root = str | VolumeInfo | SnapshotInfo
"""A volume (slug or id) or a snapshot (slug or name), or as it was told."""


class AsyncSandboxes:
    """Running sandboxes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own: dict[str, AsyncSandbox] = {}

    async def create(
        self,
        root: Root | None = None,
        *,
        port: int | None = None,
        timeout: arguments.Duration | None = None,
        memory: arguments.Size | None = None,
        cpus: float | None = None,
        pids: int | None = None,
        disk: arguments.Size | None = None,
        open_files: int | None = None,
        output: arguments.Size | None = None,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        volumes: Mapping[str, str | VolumeInfo] | None = None,
        network: str | None = None,
        privileges: str = "none",
        limits: str = "strict",
        region: str | None = None,
        detached: bool = False,
        command: Sequence[str] | None = None,
    ) -> AsyncSandbox:
        """Boot a sandbox. What is not given is as the snapshot's Sandboxfile says.

        root:       the volume or snapshot it boots from
        port:       exposed at `url`
        timeout:    the sandbox ends this long from now; without it, with its client (a detached one: when it
                    is killed)
        memory, cpus, pids, disk, open_files: what it may use at most; `disk` is of its throw-away layer
        output:     bytes that one `sh` may write
        env:        variables of its commands, beside the snapshot's
        labels:     at most 5, for `list`
        volumes:    volumes by the directory where each is mounted
        network:    `none` or `full`
        privileges: `sudo` lets setuid programs work in it
        limits:     `best-effort` takes limits that this host cannot strictly enforce; see `warnings`
        detached:   it goes on without this client, until it is killed, its time is over or its command has
                    ended; other clients of the same user and store can `connect` to it
        command:    what a detached sandbox is for, a program and its arguments: it runs from the start, what
                    it writes is in `logs`, and the sandbox ends with it

        NoSuchSnapshot, VolumeInUse, LimitNotEnforceable.
        """
        if root is None:
            raise UsageError("a sandbox needs a `root`", hint="name a volume or a snapshot")
        target = slug_of(root, "root")
        number = arguments.port(port) if port is not None else None
        given = {
            "memory": arguments.size(memory, "memory", arguments.LEAST_MEMORY),
            "cpus": arguments.cpus(cpus),
            "pids": arguments.count(pids, "pids", 2, MOST_PIDS),
            "disk": arguments.size(disk, "disk", arguments.LEAST_DISK),
            "open_files": arguments.count(open_files, "open_files", 8, 1 << 20),
            "output": arguments.size(output, "output", 1),
        }
        seconds = arguments.seconds(timeout)
        variables, named = arguments.variables(env), arguments.labels(labels)
        mounts = arguments.mounts(volumes, slug_of)
        arguments.region(region)
        argv = arguments.argv(tuple(command)) if command is not None else None
        if argv is not None and not detached:
            raise UsageError(
                "`command` is for a detached sandbox", hint="pass `detached=True`, or use `spawn`"
            )
        if detached and Capability.DETACHED not in self._session.engine.capabilities:
            raise MissingCapability(
                f"the {self._session.engine.name} engine keeps no sandbox without its client",
                Capability.DETACHED,
            )
        mode = arguments.choice(network, "network", NETWORKS) if network is not None else None
        options = SandboxOptions(
            privileges=arguments.choice(privileges, "privileges", PRIVILEGES),
            best_effort=arguments.choice(limits, "limits", LIMITS) == "best-effort",
            timeout=seconds,
        )
        async with contextlib.AsyncExitStack() as undo:
            attachments: Taken = []
            origin = await self._origin(target, attachments, undo)
            options = replace(
                options,
                limits=_limits(origin.config, given),
                network=mode or config_text(origin.config, "network", "none"),
                volume=attachments[0].record.id if attachments else None,
                mounts=mounts,
            )
            variables = {**_texts(origin.config.get("env")), **variables}
            origin = replace(origin, options=options, labels=named)
            make = partial(self._detach, argv=argv) if detached else self._boot
            sandbox = await make(origin, variables, attachments, undo)
            if number is not None:
                undo.push_async_callback(sandbox.kill)
                await sandbox.expose_http(number)
            if sandbox._detached is not None:
                await sandbox._detached.keep()
            undo.pop_all()
            return sandbox

    async def get(self, sandbox: str | SandboxInfo | AsyncSandbox) -> SandboxInfo:
        """What is known of a sandbox that runs, of any client. NoSuchSandbox."""
        wanted = _id_of(sandbox)
        for info in await self.list():
            if info.id == wanted:
                return info
        raise NoSuchSandbox(f"no sandbox that runs is called `{wanted}`", hint="it may have ended")

    async def list(self, *, labels: Mapping[str, str] | None = None) -> tuple[SandboxInfo, ...]:
        """Every sandbox that runs, of all clients of the store, newest first; with `labels`, those that have
        all of them."""
        wanted = arguments.labels(labels).items()
        await self._bury()
        return tuple(info for info in running(self._session.store.sandboxes) if wanted <= info.labels.items())

    async def connect(self, sandbox: str | SandboxInfo | AsyncSandbox) -> AsyncSandbox:
        """The sandbox of an id, to be used: one of this client, or a detached one, which any number of
        clients use at the same time. NoSuchSandbox; SandboxElsewhere when it is another client's and not
        detached."""
        wanted = _id_of(sandbox)
        await self._bury()
        own = self._own.get(wanted)
        if own is not None:
            return own
        info, booted = await self.reach(wanted)
        own = self._own.get(wanted)
        if own is not None:
            await booted.leave()
            return own
        return self._remote(booted, origin_of(booted.about), info)

    async def reach(self, sandbox: str) -> tuple[SandboxInfo, DetachedSandbox]:
        """What is known of a detached sandbox, and the engine's own object of it, which the caller has to
        `leave`. NoSuchSandbox, SandboxElsewhere."""
        info = await self.get(sandbox)
        if not info.detached:
            raise SandboxElsewhere(
                f"the sandbox {info.id} belongs to another client, process {info.client}",
                hint="use it in the program that created it, or reach it at its exposed URL; "
                "one made with `detached=True` can be connected to",
            )
        return info, await self._session.engine.connect(info.id)

    def user_of(self, volume: str) -> AsyncSandbox | None:
        """The sandbox of this client that has a volume, by the volume's id."""
        return next((each for each in self._own.values() if volume in each.volume_ids and each.alive), None)

    async def close(self) -> None:
        """End every sandbox of this client, and let go of detached ones. The first failure is raised once all
        were tried."""
        ended = await asyncio.gather(*(each.close() for each in self._own.values()), return_exceptions=True)
        for failure in ended:
            if isinstance(failure, BaseException):
                raise failure

    async def _origin(self, target: str, attachments: Taken, undo: contextlib.AsyncExitStack) -> Origin:
        """What a root stands for. A volume is taken."""
        index = self._session.store.index
        config: Mapping[str, Any]
        volume = index.volumes.find(target)
        if volume is None:
            try:
                snapshot = index.find(target)
            except NoSuchSnapshot as error:
                raise NoSuchSnapshot(
                    f"no volume and no snapshot is called `{target}`", hint=error.hint
                ) from None
            slug, stack, config = snapshot.slug, snapshot.layers, snapshot.config
            index.touch_snapshot(slug)
        else:
            root = await self._attach(volume.id, undo)
            attachments.append(root)
            slug, stack, config = root.record.slug, root.record.stack, root.record.config
        if not self._session.is_bootable(stack):
            raise UsageError(
                f"`{slug}` holds no system to boot from",
                hint="make a volume `from_=` a snapshot that does, and mount this one with `volumes=`",
            )
        cwd, user = config_text(config, "workdir", "/"), config_text(config, "user", "root")
        return Origin(slug, stack, config, SandboxOptions(), cwd, user)

    async def _attach(self, target: str, undo: contextlib.AsyncExitStack) -> Attachment:
        await self._bury()
        attachment = await attach(self._session, target)
        undo.callback(attachment.release)
        return attachment

    async def _boot(
        self,
        origin: Origin,
        env: dict[str, str],
        attachments: Taken,
        undo: contextlib.AsyncExitStack,
        pause: float = 0.0,
    ) -> AsyncSandbox:
        """Take the volumes to mount and start. Whatever was taken is in `undo` until the caller has it."""
        store = self._session.store
        options, layers = await self._take(origin, attachments, undo)
        held = undo.enter_context(store.uses.hold(layers=layers))
        await self._session.require(layers, f"`{origin.root}`")
        booted = await self._session.engine.start(origin.stack, options=options)
        undo.push_async_callback(booted.close)
        info = _info(origin, options)
        entry = Entry(store.sandboxes, info)
        undo.callback(entry.remove)
        for each in attachments:
            each.name_user(info.id)
        sandbox = AsyncSandbox(
            self._session,
            booted,
            replace(origin, options=options),
            Own(entry, held, tuple(attachments)),
            env=env,
            fork=self._forked,
            ended=self._forget,
            pause=pause,
        )
        self._own[sandbox.id] = sandbox
        return sandbox

    async def _detach(
        self,
        origin: Origin,
        env: dict[str, str],
        attachments: Taken,
        undo: contextlib.AsyncExitStack,
        *,
        argv: tuple[str, ...] | None,
    ) -> AsyncSandbox:
        """Start a sandbox that outlives this client, whose keeper then has the volumes."""
        store = self._session.store
        options, layers = await self._take(origin, attachments, undo)
        origin = replace(origin, options=options)
        info = replace(_info(origin, options), detached=True)
        command = None
        if argv is not None:
            variables = run_environment(env, user=origin.user)
            command = Command(argv, variables, origin.cwd, origin.user, options.network)
        with store.uses.hold(layers=layers):
            await self._session.require(layers, f"`{origin.root}`")
            locks = tuple(each.descriptor for each in attachments)
            detachment = Detachment(info, tuple(layers), about(origin), env, locks, command)
            booted = await self._session.engine.detach(origin.stack, options, detachment)
        undo.push_async_callback(booted.close)
        for each in attachments:
            each.name_user(info.id)
            each.hand_over()
        return self._remote(booted, origin, info)

    def _remote(self, booted: DetachedSandbox, origin: Origin, info: SandboxInfo) -> AsyncSandbox:
        sandbox = AsyncSandbox(
            self._session,
            booted,
            origin,
            Kept(self._session.store.sandboxes, info),
            env=booted.variables,
            detached=booted,
            fork=self._forked,
            ended=self._forget,
        )
        self._own[sandbox.id] = sandbox
        return sandbox

    async def _take(
        self, origin: Origin, attachments: Taken, undo: contextlib.AsyncExitStack
    ) -> tuple[SandboxOptions, Layers]:
        """Take the volumes to mount; the options with their ids, and all layers that are needed."""
        store = self._session.store
        mounts = {}
        for path, volume in origin.options.mounts.items():
            known = store.index.volumes.get(volume)
            if any(each.record.id == known.id for each in attachments):
                raise UsageError(f"`volumes` has the volume `{known.slug}` at {path} a second time")
            taken = await self._attach(known.id, undo)
            attachments.append(taken)
            mounts[path] = taken.record.id
        layers = [*origin.stack]
        for each in attachments:
            layers += each.record.stack
        return replace(origin.options, mounts=mounts), layers

    async def _forked(self, origin: Origin, env: dict[str, str], pause: float) -> AsyncSandbox:
        async with contextlib.AsyncExitStack() as undo:
            sandbox = await self._boot(origin, env, [], undo, pause)
            undo.pop_all()
            return sandbox

    def _forget(self, sandbox: AsyncSandbox) -> None:
        self._own.pop(sandbox.id, None)

    async def _bury(self) -> None:
        """Give back what sandboxes of this client had that ended by themselves."""
        for sandbox in [each for each in self._own.values() if not each.alive]:
            await sandbox.close()


def _info(origin: Origin, options: SandboxOptions) -> SandboxInfo:
    """What is said of a sandbox that is made now."""
    now = time.time()
    ends_at = now + options.timeout if options.timeout is not None else None
    return SandboxInfo(new_id("sbx"), origin.root, now, dict(origin.labels), ends_at, None, os.getpid())


def _limits(config: Mapping[str, Any], given: Mapping[str, Any]) -> Limits:
    """The limits that were given, else the configuration's."""
    resources = config.get("resources") or {}
    said = {
        "memory": int(resources["memory"]) if "memory" in resources else None,
        "cpus": float(resources["cpus"]) if "cpus" in resources else None,
        "pids": int(resources["pids"]) if "pids" in resources else None,
        "disk": int(resources["disk"]) if "disk" in resources else None,
    }
    return Limits(**{**said, **{name: value for name, value in given.items() if value is not None}})


def _texts(value: object) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, Mapping) else {}


def _id_of(sandbox: object) -> str:
    text = sandbox if isinstance(sandbox, str) else getattr(sandbox, "id", None)
    if not isinstance(text, str) or not text:
        raise UsageError(f"`sandbox` cannot be {sandbox!r}", hint="write the id of a sandbox")
    return text
