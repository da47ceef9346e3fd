"""The interpreter that wheels are chosen for: which one it is, and which tags it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from sandboxfile.declared import dataclass

if TYPE_CHECKING:
    from packaging.tags import Tag

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's architectures, as wheels call them."""

# What `uv --python-platform MACHINE-manylinux_2_N` knows.
_UV_GLIBC = (17, 28, *range(31, 41))


@dataclass(frozen=True)
class Interpreter:
    """A target: `version` in full (`3.13.5`), Debian `architecture`, glibc's version as (2, 41)."""

    version: str
    architecture: str
    glibc: tuple[int, int]

    @property
    def minor(self) -> str:
        """`3.13`."""
        return ".".join(self.version.split(".")[:2])

    @property
    def platform(self) -> str:
        """uv's name for the platform: the newest manylinux that it knows and the target has."""
        fits = [minor for minor in _UV_GLIBC if (2, minor) <= self.glibc] or [_UV_GLIBC[0]]
        return f"{MACHINES[self.architecture]}-manylinux_2_{fits[-1]}"

    @cached_property
    def ranks(self) -> Mapping[Tag, int]:
        """Every wheel tag the target takes, by preference, 0 the best."""
        from packaging.tags import compatible_tags, cpython_tags

        machine = MACHINES[self.architecture]
        old = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        platforms: list[str] = []
        for minor in range(self.glibc[1], 4, -1):
            platforms.append(f"manylinux_2_{minor}_{machine}")
            if minor in old and (minor == 17 or machine == "x86_64"):
                platforms.append(f"{old[minor]}_{machine}")
        platforms.append(f"linux_{machine}")
        major, minor = (int(part) for part in self.minor.split("."))
        short = f"cp{major}{minor}"
        tags = [
            *cpython_tags((major, minor), platforms=platforms),
            *compatible_tags((major, minor), interpreter=short, platforms=platforms),
        ]
        return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def upstream_version(debian: str) -> str:
    """The version of the software in a Debian version: `1:3.14.0~rc2-1+b1` is 3.14.0rc2."""
    text = debian.partition(":")[2] or debian
    text = text.rpartition("-")[0] or text
    return re.split(r"\+", text.replace("~", ""), maxsplit=1)[0]


def interpreter_of(versions: Mapping[str, str], architecture: str) -> Interpreter | None:
    """The system interpreter of a Debian system with these packages (version by name), None when
    there is none that `/usr/bin/python3` would be."""
    if architecture not in MACHINES:
        return None
    default = versions.get("python3") or versions.get("python3-minimal")
    found = re.match(r"(\d+)\.(\d+)", upstream_version(default)) if default else None
    if not found:
        return None
    minor = f"{found.group(1)}.{found.group(2)}"
    exact = versions.get(f"python{minor}-minimal") or versions.get(f"python{minor}")
    libc = re.match(r"(\d+)\.(\d+)", upstream_version(versions.get("libc6", "")))
    if not exact or not libc:
        return None
    return Interpreter(upstream_version(exact), architecture, (int(libc.group(1)), int(libc.group(2))))
