"""The rules of normalisation, as data."""

from __future__ import annotations

import pytest

from sandboxfile.core.normalise import RULES, Rules, Treatment


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("var/log/apt/history.log", "logs"),
        ("var/cache/apt/pkgcache.bin", "apt-caches"),
        ("var/lib/apt/lists/mirror_dists_x_Packages", "apt-caches"),
        ("var/cache/ldconfig/aux-cache", "ldconfig-cache"),
        ("var/lib/dpkg/status-old", "backups"),
        ("etc/shadow-", "backups"),
        ("var/lib/dpkg/lock", "locks"),
        ("etc/machine-id", "machine-id"),
        ("etc/ssh/ssh_host_ed25519_key", "host-keys"),
        ("dev/null", "devices"),
        ("etc/passwd", None),
        ("srv/var/log/x", None),
        ("var/lib/apt/extended_states", None),
        ("etc/ssh/sshd_config", None),
    ],
)
def test_paths_meet_their_rule(path: str, name: str | None) -> None:
    rule = Rules().rule_for(path)
    assert (rule.name if rule else None) == name


def test_a_star_stays_in_its_component() -> None:
    assert Rules().rule_for("var/cache/fontconfig/deeper/file") is None
    assert Rules().rule_for("var/cache/man/de/index.db") is not None


def test_newlines_in_names_hide_nothing() -> None:
    assert Rules().rule_for("var/log/a\nb") is not None


def test_every_rule_has_a_name_of_its_own_and_says_why() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.why and rule.patterns and rule.treatment in Treatment for rule in RULES)
    assert RULES[0].describe() == "logs: empty var/log/** (logs hold times)"
