"""Installing an apt layer's packages: files fetched and checked outside, dpkg inside, no network.

`dpkg --unpack` of everything followed by `--configure -a` gives the tree and status that apt-get gives for
the same set, except for apt's own auto marks, which are written from the lock. Pre-dependencies would need
apt's order; `--force-depends` lifts that, and the check at the end proves that nothing was left half done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sandboxfile.build.apt_order import Order, order_of, read_controls
from sandboxfile.build.runner import Log, how_it_ended
from sandboxfile.build.staging import staged
from sandboxfile.core.digest import digest_bytes, hexadecimal
from sandboxfile.core.environment import build_environment
from sandboxfile.core.layer import AptLayer, PackagePin, TreeEntry
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Command, Mount, Workspace
from sandboxfile.errors import BuildError, StepFailed
from sandboxfile.inputs.control import fields, stanzas

PACKAGES = "/run/sandboxfile/packages"
STATUS = "/var/lib/dpkg/status"
EXTENDED_STATES = "/var/lib/apt/extended_states"

_DPKG = ("dpkg", "--force-unsafe-io", "--force-depends", "--force-confdef", "--force-confold")


def deb_name(pin: PackagePin) -> str:
    """A file name for a package, as archives have it (the epoch's colon escaped)."""
    return f"{pin.name}_{pin.version.replace(':', '%3a')}_{pin.arch}.deb"


def commands(left: Sequence[str], order: Order) -> tuple[tuple[str, ...], ...]:
    """The dpkg commands of a layer after its removals, in order; the last one configures what is unpacked.
    `left`: the files that dpkg unpacks."""
    late = [name for name in left if name in order.late]
    first = [name for name in left if name not in order.late]
    found: list[tuple[str, ...]] = []
    if first:
        found.append(_unpacking(first))
    if late:
        found += [(*_DPKG, "--configure", *order.early), _unpacking(late)]
    found.append((*_DPKG, "--configure", "-a"))
    return tuple(found)


def _unpacking(names: Sequence[str]) -> tuple[str, ...]:
    # Triggers are run once, at the end, as apt has it.
    return (
        *_DPKG,
        "--no-triggers",
        "--auto-deconfigure",
        "--unpack",
        *(f"{PACKAGES}/{name}" for name in names),
    )


async def install(
    layer: AptLayer,
    workspace: Workspace,
    *,
    blobs: Mapping[str, Path],
    staging: Path,
    log: Log,
    name: str,
    unpacks: bool = False,
    beside: Callable[[Workspace, Log], Awaitable[None]] | None = None,
) -> None:
    """Bring a workspace from the parent's package state to the layer's.

    unpacks: the engine can unpack packages (Capability.UNPACK_PACKAGES); without, dpkg unpacks all of them
    beside:  what is done in the workspace while the packages are configured, as soon as all are unpacked
    Raises StepFailed when a maintainer script fails, BuildError when the result is not what was planned.
    """
    env = build_environment(
        layer.epoch, {"DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true"}
    )
    files = {deb_name(pin): blobs[pin.sha256] for pin in layer.install}
    with staged(staging, files) as directory:

        async def run(argv: tuple[str, ...]) -> None:
            log.note("$ " + " ".join(argv[:7]) + (" …" if len(argv) > 7 else ""))
            completed = await workspace.execute(
                Command(argv, env=env, mounts=(Mount(directory, PACKAGES),)), log.output
            )
            if completed.exit_code != 0:
                raise StepFailed(
                    f"installing the packages of `{name}` failed: dpkg {how_it_ended(completed, None)}",
                    layer=name,
                    exit_code=completed.exit_code,
                    details=log.tail(),
                )

        if layer.remove:
            await run((*_DPKG, "--no-triggers", "--purge", *layer.remove))
        names = list(files)
        order = order_of(await asyncio.to_thread(read_controls, directory, names))
        left: Mapping[str, str] = dict.fromkeys(names, "")
        if unpacks and names:
            left = await workspace.unpack_packages(directory, names)
            log.note(f"{len(names) - len(left)} packages unpacked; by dpkg:")
            for each, reason in left.items():
                log.note(f"  {each}: {reason}")
        *unpacking, configuring = commands([each for each in names if each in left], order)
        for argv in unpacking:
            await run(argv)
        async with _along(beside(workspace, log) if beside else None):
            await run(configuring)
    status = await _status(workspace)
    _check_result(layer, status, name)
    await _write_marks(layer, workspace, staging, status.native)


@asynccontextmanager
async def _along(work: Awaitable[None] | None) -> AsyncIterator[None]:
    """Do some work while the block runs; it is over when the block is, and is given up when that fails."""
    if work is None:
        yield
        return
    task = asyncio.ensure_future(work)
    try:
        yield
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _write_marks(layer: AptLayer, workspace: Workspace, staging: Path, native: str) -> None:
    try:
        before = (await workspace.read(EXTENDED_STATES)).decode()
    except FileNotFoundError:
        before = ""
    text = merge_marks(before, layer, native)
    if text == before:
        return
    content = text.encode()
    with staged(staging, {"extended_states": content}) as directory:
        entry = TreeEntry(
            EXTENDED_STATES,
            "file",
            0o644,
            sha256=hexadecimal(digest_bytes(content)),
            size=len(content),
            origin=str(directory / "extended_states"),
        )
        await workspace.place([entry])


def merge_marks(before: str, layer: AptLayer, native: str) -> str:
    """apt's `extended_states` after a layer: automatic packages by name and architecture, sorted. apt counts
    packages for all architectures as `native` ones here."""

    def key(name: str, arch: str) -> tuple[str, str]:
        return name, native if arch == "all" else arch

    def keys(names: Iterable[str]) -> set[tuple[str, str]]:
        return {key(name, arch) for name, _, arch in (each.rpartition(":") for each in names)}

    marked: set[tuple[str, str]] = set()
    for stanza in stanzas(before):
        found = fields(stanza)
        if found.get("Auto-Installed") == "1":
            marked.add(key(found.get("Package", ""), found.get("Architecture", "")))
    touched = {key(pin.name, pin.arch) for pin in layer.install}
    marked = (marked - touched - keys(layer.remove) - keys(layer.manual)) | keys(layer.auto)
    return "".join(
        f"Package: {name}\nArchitecture: {arch}\nAuto-Installed: 1\n\n" for name, arch in sorted(marked)
    )


@dataclass(frozen=True)
class _Status:
    """What dpkg has on record: (version, status) by name and architecture; the architecture of its own."""

    packages: Mapping[tuple[str, str], tuple[str, str]]
    native: str


async def _status(workspace: Workspace) -> _Status:
    packages: dict[tuple[str, str], tuple[str, str]] = {}
    native = ""
    for stanza in stanzas((await workspace.read(STATUS)).decode("utf-8", "replace")):
        found = fields(stanza)
        name, arch = found.get("Package", ""), found.get("Architecture", "")
        packages[name, arch] = (found.get("Version", ""), found.get("Status", ""))
        if name == "dpkg":
            native = arch
    return _Status(packages, native)


def _check_result(layer: AptLayer, status: _Status, name: str) -> None:
    """Look whether every package is there, in the planned version and fully configured."""
    wrong = []
    for pin in layer.install:
        version, words = status.packages.get((pin.name, pin.arch), ("", "not installed"))
        if (version, words) != (pin.version, "install ok installed"):
            wrong.append(f"{pin.name} {pin.version} ({pin.arch}): {version} {words}")
    for each in layer.remove:
        package, _, arch = each.rpartition(":")
        if status.packages.get((package, arch), ("", ""))[1].startswith("install "):
            wrong.append(f"{each}: still installed")
    if wrong:
        raise BuildError(
            f"after installing `{name}`, dpkg reports packages in another state than planned",
            details=tuple(wrong),
        )
