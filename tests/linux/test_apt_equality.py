"""What is installed is what apt installs: real packages, three ways, compared entry by entry."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from apt_equality import WAYS, Installed, built, install

from sandboxfile.api import AsyncClient
from sandboxfile.build.apt_install import EXTENDED_STATES
from sandboxfile.core.normalise import RULES, Rules, Treatment
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.inputs.control import fields, stanzas

pytestmark = [pytest.mark.host, pytest.mark.network]

SMALL = "cron dbus fontconfig jq less libnss-mdns man-db openssh-client python3-yaml sgml-base ssl-cert sudo"
"""Scripts before and after, users and groups, set-user-ID, diversions, configuration files, triggers by name
and by path, alternatives, byte code, fonts, manual pages."""

LARGE = (
    "python3 python3-pip python3-venv python3-dev build-essential systemd systemd-sysv dbus "
    "openssh-server sudo postgresql-client default-jre-headless fonts-dejavu fontconfig man-db manpages "
    "perl libwww-perl git vim nginx cron rsyslog logrotate mariadb-client redis-server python3-yaml "
    "python3-requests tcl lua5.4 jq curl wget rsync tmux screen zsh busybox iputils-ping iproute2 "
    "net-tools dnsutils tcpdump strace ninja-build bash-completion locales tzdata unzip zip xz-utils "
    "less nano bsd-mailx exim4-daemon-light avahi-daemon polkitd dash ssl-cert libpam-modules "
    "libnss-mdns sgml-base xml-core docbook-xml at acl attr libcap2-bin fuse3"
)

APTS_OWN: Mapping[str, str] = {
    "tmp": "apt makes its temporary files there, so the directory is in the layer",
    "var/cache/apt": "apt keeps packages there while it works",
    "var/cache/debconf/tmp.ci": "apt has debconf look at packages before they are unpacked",
    "var/lib/apt/lists": "apt keeps the archive's index there while it works",
    "var/log/apt": "apt's logs, which are emptied",
    "var/lib/apt/extended_states": "apt writes the marks in the order of a hash; they are compared as a set",
}
"""Where a layer made by apt-get may have what ours has not, or in another order, and why."""


def test_what_is_installed_is_what_apt_installs(tmp_path: Path, shared_home: Path, base_lock: str) -> None:
    large = os.environ.get("SANDBOXFILE_EQUALITY") == "large"
    names = (LARGE if large else SMALL).split()
    (tmp_path / "Sandboxfile").write_text(f"name: equality\nbase: debian:13\napt: [{', '.join(names)}]\n")
    (tmp_path / "sandboxfile.lock").write_text(base_lock)
    made, packages = asyncio.run(_install_all(shared_home, tmp_path, names))
    ours, theirs, apts = (made[way] for way in WAYS)
    assert packages >= (300 if large else 30)
    # Most are unpacked without dpkg, or this would prove little; and dpkg has something to do.
    assert 0 < len(ours.left()) < packages / 4
    print(f"{packages} packages, {len(ours.entries)} entries, {len(ours.left())} unpacked by dpkg")

    assert _different(ours, theirs) == {}
    if not _unreproducible(ours):
        assert ours.diff_id == theirs.diff_id
    found = _different(ours, apts, opaque=False)
    assert {path: what for path, what in found.items() if not _is_apts(path)} == {}
    assert _marks(ours) == _marks(apts)


async def _install_all(home: Path, project: Path, names: list[str]) -> tuple[dict[str, Installed], int]:
    async with AsyncClient(home=home) as client:
        ours, layer, stack = await built(client, project)
        engine = client.engine
        assert isinstance(engine, LinuxEngine)
        blobs = {pin.sha256: client.store.blobs.path(pin.sha256) for pin in layer.install}
        others = [await install(engine, layer, stack, way, blobs, names) for way in WAYS[1:]]
        made = {each.way: each for each in (ours, *others)}
        for each in made.values():
            each.marks = await _read_marks(engine, stack, each)
        await engine.remove([each.key for each in others])
        return made, len(layer.install)


async def _read_marks(engine: LinuxEngine, stack: Any, made: Installed) -> str:
    workspace = await engine.prepare((*stack, made.key))
    try:
        return (await workspace.read(EXTENDED_STATES)).decode()
    finally:
        await workspace.abort()


def _marks(made: Installed) -> set[tuple[str, ...]]:
    return {tuple(sorted(fields(stanza).items())) for stanza in stanzas(made.marks)}


_REPORTED = Rules(tuple(rule for rule in RULES if rule.treatment is Treatment.REPORT))


def _unreproducible(made: Installed) -> list[str]:
    return [path for path in made.entries if _REPORTED.rule_for(path)]


def _is_apts(path: str) -> bool:
    return any(f"{path}/".startswith(f"{own}/") for own in APTS_OWN)


def _different(one: Installed, other: Installed, *, opaque: bool = True) -> dict[str, tuple[Any, Any]]:
    """Paths with what they are in two layers, where that is not the same. What no rule makes equal (a
    keystore with the time in it) is different in every build and says nothing."""
    found = {}
    for path in {*one.entries, *other.entries}:
        left, right = one.entries.get(path), other.entries.get(path)
        if not opaque and left and right and left[0] == right[0] == "d":
            # A new directory is opaque when dpkg made it and is not when a script did; it hides nothing.
            left, right = left[:6], right[:6]
        if left != right and not _REPORTED.rule_for(path):
            found[path] = (left, right)
    return found
