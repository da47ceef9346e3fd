"""Installing an apt layer's packages: files fetched and checked outside, dpkg inside, no network.

`dpkg --unpack` of everything followed by `--configure -a` gives the tree and status that apt-get gives for
the same set, except for apt's own auto marks, which are written from the lock. Pre-dependencies would need
apt's order; `--force-depends` lifts that, and the check at the end proves that nothing was left half done.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sandboxfile.build.runner import Log, how_it_ended
from sandboxfile.build.staging import staged
from sandboxfile.core.digest import digest_bytes, hexadecimal
from sandboxfile.core.environment import build_environment
from sandboxfile.core.layer import AptLayer, PackagePin, TreeEntry
from sandboxfile.engine.base import Command, Mount, Workspace
from sandboxfile.errors import BuildError, StepFailed

PACKAGES = "/run/sandboxfile/packages"
EXTENDED_STATES = "/var/lib/apt/extended_states"

_DPKG = ("dpkg", "--force-unsafe-io", "--force-depends", "--force-confdef", "--force-confold")


def deb_name(pin: PackagePin) -> str:
    """A file name for a package, as archives have it (the epoch's colon escaped)."""
    return f"{pin.name}_{pin.version.replace(':', '%3a')}_{pin.arch}.deb"


def commands(layer: AptLayer) -> tuple[tuple[str, ...], ...]:
    """The dpkg commands of a layer, in order."""
    found: list[tuple[str, ...]] = []
    if layer.remove:
        found.append((*_DPKG, "--purge", *layer.remove))
    if layer.install:
        found.append((*_DPKG, "--unpack", *(f"{PACKAGES}/{deb_name(pin)}" for pin in layer.install)))
    found.append((*_DPKG, "--configure", "-a"))
    return tuple(found)


async def install(
    layer: AptLayer, workspace: Workspace, *, blobs: Mapping[str, Path], staging: Path, log: Log, name: str
) -> None:
    """Bring a workspace from the parent's package state to the layer's.

    Raises StepFailed when a maintainer script fails, BuildError when the result is not what was planned.
    """
    env = build_environment(
        layer.epoch, {"DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true"}
    )
    files = {deb_name(pin): blobs[pin.sha256] for pin in layer.install}
    with staged(staging, files) as directory:
        for argv in commands(layer):
            log.note("$ " + " ".join(argv[:6]) + (" …" if len(argv) > 6 else ""))
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
    await _write_marks(layer, workspace, staging)
    await _check_result(layer, workspace, env, name)


async def _write_marks(layer: AptLayer, workspace: Workspace, staging: Path) -> None:
    try:
        before = (await workspace.read(EXTENDED_STATES)).decode()
    except FileNotFoundError:
        before = ""
    text = merge_marks(before, layer)
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


def merge_marks(before: str, layer: AptLayer) -> str:
    """apt's `extended_states` after a layer: automatic packages by name and architecture, sorted."""
    marked: set[tuple[str, str]] = set()
    for stanza in before.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line)
        if fields.get("Auto-Installed") == "1":
            marked.add((fields.get("Package", ""), fields.get("Architecture", "")))
    automatic = {tuple(name.rsplit(":", 1)) for name in layer.auto}
    touched = {(pin.name, pin.arch) for pin in layer.install}
    removed = {tuple(name.rsplit(":", 1)) for name in layer.remove}
    marked -= touched | {(n, a) for n, a in removed}
    marked |= {(n, a) for n, a in automatic}
    return "".join(
        f"Package: {name}\nArchitecture: {arch}\nAuto-Installed: 1\n\n" for name, arch in sorted(marked)
    )


async def _check_result(layer: AptLayer, workspace: Workspace, env: Mapping[str, str], name: str) -> None:
    """Ask dpkg whether every package is there, in the planned version and fully configured."""
    lines: list[bytes] = []
    query = "${Package} ${Version} ${Architecture} ${db:Status-Abbrev}\\n"
    await workspace.execute(
        Command(("dpkg-query", "-W", "-f", query), env=env), lambda _, data: lines.append(data)
    )
    found = [line.split() for line in b"".join(lines).decode().splitlines()]
    state = {(f[0], f[1], f[2]): f[3] for f in found if len(f) >= 4}
    wanted = [(pin.name, pin.version, pin.arch) for pin in layer.install]
    wrong = [
        f"{n} {v} ({a}): {state.get((n, v, a), 'not installed')}"
        for n, v, a in wanted
        if state.get((n, v, a)) != "ii"
    ]
    present = {f"{n}:{a}" for n, _, a in state if state[(n, _, a)].startswith("i")}
    wrong += [f"{each}: still installed" for each in layer.remove if each in present]
    if wrong:
        raise BuildError(
            f"after installing `{name}`, dpkg reports packages in another state than planned",
            details=tuple(wrong),
        )
