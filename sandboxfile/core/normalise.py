"""The rules by which a layer's content is made the same on every machine and every day.

Rules are data, named and versioned as a whole by `core.layer.NORMALISATION`: a change of any rule that
can change bytes is a change of that version. They are applied to what a layer wrote, never to what is
below it. `explain` prints them.
"""

from __future__ import annotations

import re
from enum import StrEnum

from sandboxfile.declared import dataclass


class Treatment(StrEnum):
    """What a rule does to a path it matches."""

    EMPTY = "empty"
    REMOVE = "remove"
    REPORT = "report"


@dataclass(frozen=True)
class Rule:
    """One rule.

    patterns:  paths without a leading slash; `*` matches within a component, `**` across components
    treatment: EMPTY keeps a regular file with no content; REMOVE takes away anything but directories;
               REPORT changes nothing and names the path as one that no rule can make equal
    why:       for people
    """

    name: str
    treatment: Treatment
    patterns: tuple[str, ...]
    why: str

    def describe(self) -> str:
        """One line for people."""
        return f"{self.name}: {self.treatment.value} {', '.join(self.patterns)} ({self.why})"


RULES: tuple[Rule, ...] = (
    Rule("logs", Treatment.EMPTY, ("var/log/**",), "logs hold times"),
    Rule(
        "apt-caches",
        Treatment.REMOVE,
        (
            "var/cache/apt/*.bin",
            "var/cache/apt/archives/*.deb",
            "var/cache/apt/archives/lock",
            "var/cache/apt/archives/partial/*",
            "var/lib/apt/lists/*",
            "var/lib/apt/lists/partial/*",
            "var/lib/apt/lists/auxfiles/*",
            "var/lib/apt/periodic/*",
        ),
        "indexes and packages that apt fetches again",
    ),
    Rule("ldconfig-cache", Treatment.REMOVE, ("var/cache/ldconfig/aux-cache",), "holds inode numbers"),
    Rule("man-caches", Treatment.REMOVE, ("var/cache/man/**",), "man-db makes them again"),
    Rule(
        "fontconfig-caches",
        Treatment.REMOVE,
        ("var/cache/fontconfig/*",),
        "fontconfig makes them again",
    ),
    Rule(
        "backups",
        Treatment.REMOVE,
        (
            "var/lib/dpkg/*-old",
            "var/lib/apt/*-old",
            "var/cache/debconf/*-old",
            "var/backups/*",
            "etc/passwd-",
            "etc/group-",
            "etc/shadow-",
            "etc/gshadow-",
            "etc/subuid-",
            "etc/subgid-",
        ),
        "what a file was before depends on the order of steps",
    ),
    Rule(
        "locks",
        Treatment.REMOVE,
        (
            "var/lib/dpkg/lock",
            "var/lib/dpkg/lock-frontend",
            "var/lib/dpkg/triggers/Lock",
            "var/lib/apt/lists/lock",
            "var/lib/apt/daily_lock",
            "etc/.pwd.lock",
        ),
        "made again when they are needed",
    ),
    Rule("machine-id", Treatment.EMPTY, ("etc/machine-id",), "every machine makes its own"),
    Rule("dbus-machine-id", Treatment.REMOVE, ("var/lib/dbus/machine-id",), "every machine makes its own"),
    Rule("host-keys", Treatment.REMOVE, ("etc/ssh/ssh_host_*",), "a private key never enters a snapshot"),
    Rule(
        "self-signed",
        Treatment.REMOVE,
        ("etc/ssl/private/ssl-cert-snakeoil.key", "etc/ssl/certs/ssl-cert-snakeoil.pem"),
        "a private key never enters a snapshot",
    ),
    Rule("devices", Treatment.REMOVE, ("dev/**",), "a sandbox gets its own"),
    Rule(
        "unreproducible",
        Treatment.REPORT,
        (
            "etc/ssl/certs/java/cacerts",
            "var/lib/postgresql/*/*/global/pg_control",
            "var/lib/mysql/ibdata1",
            "var/lib/texmf/**",
        ),
        "made by programs that read the clock or the order of directories",
    ),
)

TIME_RULES: tuple[str, ...] = (
    "times newer than the build's start become the lock's time",
    "directories have the lock's time",
    "all other times are kept to whole seconds",
)

DROPPED_ATTRIBUTES: tuple[str, ...] = (
    "user.overlay.",
    "trusted.overlay.",
    "security.selinux",
    "security.ima",
)
"""Prefixes of extended attributes that belong to the host and are no content."""


class Rules:
    """The rules, made ready to be asked about many paths."""

    def __init__(self, rules: tuple[Rule, ...] = RULES) -> None:
        self._exact: dict[str, Rule] = {}
        self._expressions: list[tuple[str, re.Pattern[str], Rule]] = []
        for rule in rules:
            for pattern in rule.patterns:
                if "*" in pattern:
                    prefix = pattern.partition("*")[0]
                    self._expressions.append((prefix, re.compile(_expression(pattern), re.DOTALL), rule))
                else:
                    self._exact[pattern] = rule

    def rule_for(self, path: str) -> Rule | None:
        """The first rule that matches a path without leading slash."""
        exact = self._exact.get(path)
        if exact:
            return exact
        for prefix, expression, rule in self._expressions:
            if path.startswith(prefix) and expression.fullmatch(path):
                return rule
        return None


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*|\*)", pattern)
    translated = {"**": ".*", "*": "[^/]*"}
    return "".join(translated.get(part) or re.escape(part) for part in parts)
