from __future__ import annotations

from pathlib import Path

import pytest

from sandboxfile.inputs.debian_index import PackagesIndex, suggest

PACKAGES = """\
Package: jq
Version: 1.7-1
Architecture: amd64
Depends: libjq1 (= 1.7-1)
Filename: pool/j/jq_1.7-1_amd64.deb
SHA256: aa
Size: 10

Package: jq
Version: 1.8-1
Architecture: amd64
Filename: pool/j/jq_1.8-1_amd64.deb

Package: libjq1
Source: jq
Version: 1.7-1
Architecture: amd64
Priority: optional

Package: libjq-data
Source: jq (1.7-1)
Version: 1.7-1+b2
Architecture: all

Package: base-files
Essential: yes
Version: 13
Architecture: amd64
Priority: required
Provides: base, something (= 2)

Package: python3-numpy
Version: 2
Architecture: amd64
"""


@pytest.fixture
def index(tmp_path: Path) -> PackagesIndex:
    path = tmp_path / "Packages"
    path.write_text(PACKAGES)
    return PackagesIndex([path])


def test_each_version_of_a_package_is_found(index: PackagesIndex) -> None:
    assert index.versions("jq") == ("1.7-1", "1.8-1")
    found = index.find("jq", "1.8-1", "amd64")
    assert found is not None
    assert found["Filename"] == "pool/j/jq_1.8-1_amd64.deb"
    assert index.find("jq", "1.9", "amd64") is None
    assert index.find("jq", "1.8-1", "arm64") is None
    assert "jq" in index
    assert "nothing" not in index


def test_virtual_packages_name_their_providers(index: PackagesIndex) -> None:
    assert index.providers("something") == ("base-files",)
    assert index.providers("nothing") == ()


def test_what_a_minimal_system_holds_is_marked(index: PackagesIndex) -> None:
    assert index.marked() == ("base-files",)


def test_siblings_are_the_binaries_of_one_source_version(index: PackagesIndex) -> None:
    assert index.siblings("jq", "1.7-1") == (("jq", "1.7-1"), ("libjq-data", "1.7-1+b2"), ("libjq1", "1.7-1"))
    assert index.siblings("libjq-data", "1.7-1+b2") == index.siblings("jq", "1.7-1")
    assert index.siblings("jq", "3") == ()


def test_a_typing_mistake_gets_a_suggestion(index: PackagesIndex) -> None:
    assert suggest([index], "python3-numpi") == ("python3-numpy",)
    assert suggest([index], "entirely-else") == ()


def test_the_table_of_stanzas_is_made_once_and_fits_its_file(tmp_path: Path) -> None:
    path = tmp_path / "Packages"
    one = "Package: b\nVersion: 1\nArchitecture: all\n\n"
    two = "Package: a\nVersion: 3\nArchitecture: all\n\nPackage: b\nVersion: 2\nArchitecture: all\n"
    path.write_text(one + two)
    first = PackagesIndex([path])
    assert first.versions("b") == ("1", "2")
    table = tmp_path / "Packages.stanzas"
    made = table.read_bytes()
    again = PackagesIndex([path])
    assert (again.versions("b"), again.versions("a")) == (("1", "2"), ("3",))
    assert sorted(again.names()) == ["a", "b"]
    path.write_text(two)
    assert PackagesIndex([path]).versions("b") == ("2",)
    table.write_bytes(made[:40])
    assert PackagesIndex([path]).versions("a") == ("3",)
    path.write_text("")
    assert list(PackagesIndex([path]).names()) == []
