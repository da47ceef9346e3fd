from __future__ import annotations

from sandboxfile.inputs.aptsolver import (
    Configuration,
    Installed,
    explanation,
    named_in,
    parse,
    parse_plan,
    pins,
)
from sandboxfile.inputs.control import fields, names_in, stanzas
from sandboxfile.inputs.dpkgstate import DpkgState

SIMULATION = """\
NOTE: This is only a simulation!
Remv libold1 [1.0-1]
Inst zlib1g [1:1.3.dfsg-1] (1:1.3.dfsg+really1.3.1-1 Debian:13/stable, Debian-Security:13/x [amd64])
Inst jq (1.7.1-6+deb13u3 Debian-Security:13/stable-security [amd64]) []
Inst media-types (13.0.0 Debian:13.1/stable [all])
Conf zlib1g (1:1.3.dfsg+really1.3.1-1 Debian:13.1/stable [amd64])
"""

PLANNED = """\
The following packages were automatically installed and are no longer required:
   libold2 (1.0)
Use 'apt autoremove' to remove them.
The following additional packages will be installed:
   zlib1g (1:1.3.dfsg-1 => 1:1.3.dfsg+really1.3.1-1)
The following packages will be REMOVED:
   libold1 (1.0-1)
   libold3:i386* (2~rc1)
The following NEW packages will be installed:
   jq (1.7.1-6+deb13u3)
The following packages will be upgraded:
   zlib1g (1:1.3.dfsg-1 => 1:1.3.dfsg+really1.3.1-1)
1 upgraded, 1 newly installed, 2 to remove and 4 not upgraded.
Need to get 0 B/268 kB of archives.
'file:/a/pool/z_1%3a1.deb' zlib1g_1%3a1.3.dfsg+really1.3.1-1_amd64.deb 89108 MD5Sum:00
'file:/a/pool/j.deb' jq_1.7.1-6+deb13u3_all.deb 7 MD5Sum:00
"""

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12
Description: GNU C Library
 more text
 .
 and more

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2026a
"""


def test_a_simulation_is_read_whole() -> None:
    solution = parse(SIMULATION)
    assert solution.install == (
        Installed("zlib1g", "1:1.3.dfsg+really1.3.1-1", "amd64", "1:1.3.dfsg-1"),
        Installed("jq", "1.7.1-6+deb13u3", "amd64"),
        Installed("media-types", "13.0.0", "all"),
    )
    assert solution.remove == (("libold1", "1.0-1"),)


def test_a_printed_plan_says_what_a_simulation_says() -> None:
    solution = parse_plan(PLANNED, {"zlib1g": "1:1.3.dfsg-1"})
    assert solution is not None
    assert solution.install == (
        Installed("zlib1g", "1:1.3.dfsg+really1.3.1-1", "amd64", "1:1.3.dfsg-1"),
        Installed("jq", "1.7.1-6+deb13u3", "all"),
    )
    assert solution.remove == (("libold1", "1.0-1"), ("libold3", "2~rc1"))


def test_a_printed_plan_that_does_not_add_up_is_none() -> None:
    assert parse_plan(PLANNED.replace("   libold1 (1.0-1)\n", ""), {}) is None
    assert parse_plan(PLANNED.replace("1 newly", "2 newly"), {}) is None
    assert parse_plan(PLANNED.partition("1 upgraded")[0], {}) is None


def test_an_explanation_keeps_what_says_something() -> None:
    said = (
        "Reading package lists...\nW: something\nother is already the newest version (1).\n\n"
        "The following packages have unmet dependencies:\n foo : Depends: bar (>= 2)\nE: Unable to correct\n"
    )
    words = explanation(said)
    assert words[1:] == (" foo : Depends: bar (>= 2)", "E: Unable to correct")
    assert "other" not in named_in(words)
    assert {"foo", "bar"} <= named_in(words)


def test_pins_name_exact_versions() -> None:
    assert pins([("jq", "1.7")], 1001) == "Package: jq\nPin: version 1.7\nPin-Priority: 1001\n\n"


def test_only_installed_packages_are_part_of_a_state() -> None:
    state = DpkgState(STATUS)
    assert state.versions() == {"libc6": "2.41-12", "tzdata": "2026a"}
    assert state.architecture("tzdata") == "all"
    assert state.architecture("gone") == ""


def test_a_state_takes_a_stanza_of_an_index_in_place_of_the_old_version() -> None:
    state = DpkgState(STATUS, "Package: tzdata\nArchitecture: amd64\nAuto-Installed: 1\n")
    state.install(
        "Package: libc6\nVersion: 2.41-13\nArchitecture: amd64\nFilename: pool/x.deb\nSize: 3\n"
        "SHA256: 00\nDepends: libgcc-s1\nDescription: C",
        auto=True,
    )
    found = {f["Package"]: f for f in map(fields, stanzas(state.status()))}
    assert found["libc6"]["Version"] == "2.41-13"
    assert found["libc6"]["Status"] == "install ok installed"
    assert found["libc6"]["Depends"] == "libgcc-s1"
    assert not {"Filename", "Size", "SHA256"} & found["libc6"].keys()
    assert DpkgState(state.status()).versions() == state.versions()


def test_auto_marks_follow_what_is_asked_for_by_name() -> None:
    state = DpkgState()
    for name in ("one", "two"):
        state.install(f"Package: {name}\nVersion: 1\nArchitecture: all", auto=True)
    state.manual(["one"])
    assert state.extended_states("amd64") == "Package: two\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    state.remove("two")
    assert state.extended_states("amd64") == ""


def test_relations_give_names_without_versions_and_architectures() -> None:
    assert names_in("a (>= 1), b:any | c [amd64], d <!nocheck>") == ("a", "b", "c", "d")
    assert names_in("") == ()


def test_the_configuration_takes_nothing_unsigned() -> None:
    text = Configuration("amd64", "/s", "/state", "/lists").text()
    assert 'APT::Get::AllowUnauthenticated "false";' in text
    assert 'Acquire::AllowInsecureRepositories "false";' in text
    assert 'APT::Install-Recommends "false";' in text
