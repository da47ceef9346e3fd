"""Packages that are unpacked without dpkg: the layer is, bit for bit, the one that dpkg makes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from apt_equality import Installed, differences, install
from deb_maker import Package, directories, directory, entry, link, symlink, tree
from linux_bench import EPOCH, Bench, Place

from sandboxfile.core.layer import AptLayer, LayerKey

pytestmark = pytest.mark.host


def layer_of(
    packages: list[Package], where: Path, stack: tuple[LayerKey, ...]
) -> tuple[AptLayer, dict[str, Path]]:
    made = [package.write(where) for package in packages]
    layer = AptLayer(stack, tuple(sorted(pin for pin, _ in made)), (), (), EPOCH)
    return layer, {pin.sha256: path for pin, path in made}


def both_ways(
    bench: Bench,
    where: Path,
    packages: list[Package],
    *,
    below: list[Package] | None = None,
    script: str = "",
) -> Installed:
    """Install packages as a build does and by dpkg alone, on a base with other packages and after a script;
    the layers have to be equal. What the first way said."""

    async def body() -> tuple[Installed, Installed]:
        stack = bench.base
        if script:

            async def prepare(place: Place) -> None:
                assert (await place.sh(script)).completed.exit_code == 0

            key, _ = await bench.layer(f"{where.name}: {script}", prepare)
            stack = (*stack, key)
        if below:
            layer, blobs = layer_of(below, where, stack)
            stack = (*stack, (await install(bench.engine, layer, stack, "dpkg", blobs)).key)
        layer, blobs = layer_of(packages, where, stack)
        ours = await install(bench.engine, layer, stack, "ours", blobs)
        return ours, await install(bench.engine, layer, stack, "dpkg", blobs)

    ours, theirs = bench.trial(body)
    assert differences(ours, theirs) == {}
    assert ours.diff_id == theirs.diff_id
    return ours


def reason(installed: Installed, name: str) -> str:
    return next((why for file, why in installed.left().items() if file.startswith(f"{name}_")), "")


def test_files_directories_and_links_are_as_dpkg_makes_them(bench: Bench, tmp_path: Path) -> None:
    long = "/usr/share/one/" + "/".join(["a-name-of-some-length"] * 9) + "/file"
    content = [
        *tree("/usr/share/one/file", "/usr/bin/one", long),
        entry("./usr/bin/setuid", b"#!/bin/sh\n", mode=0o4755),
        entry("./usr/share/one/of-mail", b"", owner=("mail", 4711, "utmp", 4711), mode=0o640),
        entry("./usr/share/one/of-a-number", b"x" * 3_000_000, owner=("", 33, "no-such-group", 34)),
        directory("./usr/share/one/shared", 0o2775, owner=("root", 0, "staff", 50)),
        entry("./usr/share/one/shared/file", b"in a set-group-id directory"),
        symlink("./usr/share/one/shared/link", "../file"),
        link("./usr/share/one/hard", "./usr/share/one/file"),
        entry("./usr/share/one/a name, \N{LATIN SMALL LETTER E WITH ACUTE}", b"odd"),
    ]
    ours = both_ways(bench, tmp_path, [Package("one", content)])
    assert ours.left() == {}
    assert ours.entries["usr/bin/setuid"][1] == 0o4755
    assert ours.entries["usr/share/one/of-mail"][2:4] == [8, 43]


def test_an_alias_of_a_directory_is_followed(bench: Bench, tmp_path: Path) -> None:
    ours = both_ways(
        bench, tmp_path, [Package("one", tree("/lib/one/file", "/bin/one", "/var/run/one/file"))]
    )
    assert ours.left() == {}
    assert "usr/lib/one/file" in ours.entries
    assert "usr/bin/one" in ours.entries


def test_configuration_files_are_put_in_place_by_dpkg(bench: Bench, tmp_path: Path) -> None:
    ours = both_ways(
        bench,
        tmp_path,
        [Package("one", tree("/etc/one/conf", "/usr/share/one/file"), conffiles="/etc/one/conf\n")],
    )
    assert ours.left() == {}
    assert "etc/one/conf" in ours.entries
    assert "etc/one/conf.dpkg-new" not in ours.entries


def test_a_configuration_file_that_is_there_is_dpkgs_affair(bench: Bench, tmp_path: Path) -> None:
    package = Package("one", tree("/etc/one/conf"), conffiles="/etc/one/conf\n")
    ours = both_ways(bench, tmp_path, [package], script="mkdir /etc/one; echo mine >/etc/one/conf")
    assert reason(ours, "one") == "/etc/one/conf exists"


def test_scripts_run_when_everything_is_unpacked(bench: Bench, tmp_path: Path) -> None:
    script = "#!/bin/sh\nset -e\ncat /usr/share/two/file >/usr/share/one/from-two\n"
    ours = both_ways(
        bench,
        tmp_path,
        [
            Package(
                "one", tree("/usr/share/one/file"), scripts={"postinst": script}, fields={"Depends": "two"}
            ),
            Package("two", tree("/usr/share/two/file")),
        ],
    )
    assert ours.left() == {}
    assert "usr/share/one/from-two" in ours.entries


TRIGGERED = '#!/bin/sh\nset -e\necho "$@" >>/usr/share/interested/calls\n'


@pytest.mark.parametrize("option", ["", "-noawait"])
def test_triggers_by_path_and_by_name_are_set_off(bench: Bench, tmp_path: Path, option: str) -> None:
    interested = Package(
        "interested",
        tree("/usr/share/interested/file"),
        triggers=f"interest{option} /usr/share/watched\ninterest{option} named\n",
        scripts={"postinst": TRIGGERED},
    )
    packages = [
        Package("one", tree("/usr/share/watched/one")),
        Package("two", tree("/usr/share/two/file"), triggers=f"activate{option} named\n"),
    ]
    ours = both_ways(bench, tmp_path, packages, below=[interested])
    assert ours.left() == {}
    assert "usr/share/interested/calls" in ours.entries


def test_interests_of_new_packages_are_recorded(bench: Bench, tmp_path: Path) -> None:
    interested = Package(
        "interested",
        tree("/usr/share/interested/file"),
        triggers="# a comment\ninterest-noawait /usr/share/watched\ninterest named\n",
        scripts={"postinst": TRIGGERED},
    )
    ours = both_ways(bench, tmp_path, [interested, Package("one", tree("/usr/share/watched/one"))])
    assert ours.left() == {}
    assert "var/lib/dpkg/triggers/named" in ours.entries


def test_a_package_with_a_script_to_run_before_is_dpkgs_affair(bench: Bench, tmp_path: Path) -> None:
    before = "#!/bin/sh\nset -e\n[ -e /usr/share/two/file ]\nmkdir -p /usr/share/made-before\n"
    ours = both_ways(
        bench,
        tmp_path,
        [
            Package(
                "one", tree("/usr/share/one/file"), scripts={"preinst": before}, fields={"Pre-Depends": "two"}
            ),
            Package("two", tree("/usr/share/two/file"), fields={"Depends": "three"}),
            Package("three", tree("/usr/share/three/file")),
        ],
    )
    assert list(ours.left()) == ["one_1.0_all.deb"]
    assert ours.log.index("Setting up three ") < ours.log.index("Setting up two ")
    assert ours.log.index("Setting up two ") < ours.log.index("Unpacking one ")


def test_what_a_script_pre_depends_on_is_configured_before(bench: Bench, tmp_path: Path) -> None:
    before = "#!/bin/sh\nset -e\n[ -e /usr/share/two/configured ]\n"
    after = "#!/bin/sh\nset -e\ntouch /usr/share/two/configured\n"
    both_ways(
        bench,
        tmp_path,
        [
            Package(
                "one", tree("/usr/share/one/file"), scripts={"preinst": before}, fields={"Pre-Depends": "two"}
            ),
            Package("two", tree("/usr/share/two/file"), scripts={"postinst": after}),
        ],
    )


def test_an_upgrade_is_dpkgs_affair(bench: Bench, tmp_path: Path) -> None:
    old = Package("one", tree("/usr/share/one/old", "/usr/share/one/both"), version="1.0")
    new = Package("one", tree("/usr/share/one/new", "/usr/share/one/both"), version="2.0")
    ours = both_ways(bench, tmp_path, [new, Package("two", tree("/usr/share/two/file"))], below=[old])
    assert list(ours.left()) == ["one_2.0_all.deb"]
    assert ours.entries["usr/share/one/old"][0] == "w"


def test_a_package_that_takes_over_a_file_is_dpkgs_affair(bench: Bench, tmp_path: Path) -> None:
    fields = {"Replaces": "one (<< 2)"}
    ours = both_ways(
        bench,
        tmp_path,
        [Package("two", tree("/usr/share/shared/file"), fields=fields)],
        below=[Package("one", tree("/usr/share/shared/file", "/usr/share/one/file"))],
    )
    assert reason(ours, "two") == "/usr/share/shared/file exists"


def test_two_packages_with_one_file_are_both_dpkgs_affair(bench: Bench, tmp_path: Path) -> None:
    ours = both_ways(
        bench,
        tmp_path,
        [
            Package("one", tree("/usr/share/shared/file", "/usr/share/one/file")),
            Package("two", tree("/usr/share/shared/file"), fields={"Replaces": "one"}),
            Package("three", tree("/usr/share/three/file")),
        ],
    )
    assert sorted(ours.left()) == ["one_1.0_all.deb", "two_1.0_all.deb"]


def test_two_names_of_one_file_are_seen(bench: Bench, tmp_path: Path) -> None:
    """/lib is a link to usr/lib: dpkg lets the later package win, and so it has to be dpkg."""
    ours = both_ways(
        bench,
        tmp_path,
        [Package("one", tree("/lib/shared/file")), Package("two", tree("/usr/lib/shared/file"))],
    )
    assert len(ours.left()) == 2


def test_diverted_paths_and_overridden_attributes_are_dpkgs_affair(bench: Bench, tmp_path: Path) -> None:
    ours = both_ways(
        bench,
        tmp_path,
        [
            Package("one", tree("/usr/share/one/diverted")),
            Package("two", tree("/usr/share/two/overridden")),
            Package("three", tree("/usr/share/three/file")),
        ],
        script="dpkg-divert --local --no-rename --divert /usr/share/one/elsewhere "
        "--add /usr/share/one/diverted; "
        "dpkg-statoverride --add mail mail 0600 /usr/share/two/overridden",
    )
    assert sorted(ours.left()) == ["one_1.0_all.deb", "two_1.0_all.deb"]
    assert "usr/share/one/elsewhere" in ours.entries
    assert ours.entries["usr/share/two/overridden"][1:4] == [0o600, 8, 8]


def test_a_link_in_place_of_a_directory_of_another_package_is_dpkgs_affair(
    bench: Bench, tmp_path: Path
) -> None:
    ours = both_ways(
        bench,
        tmp_path,
        [
            Package("one", [*tree("/usr/share/real/file"), symlink("./usr/share/linked", "real")]),
            Package("two", tree("/usr/share/linked/other")),
        ],
    )
    assert len(ours.left()) == 2


def test_the_first_package_gives_a_directory_its_attributes(bench: Bench, tmp_path: Path) -> None:
    def package(name: str, mode: int) -> Package:
        path = "/usr/share/shared/"
        content = [*directories(path)[:-1], directory(f".{path}", mode), entry(f".{path}{name}", b"")]
        return Package(name, content)

    ours = both_ways(bench, tmp_path, [package("bbb", 0o755), package("aaa", 0o700)])
    assert ours.left() == {}
    assert ours.entries["usr/share/shared"][1] == 0o700


def test_conflicts_are_dpkgs_affair(bench: Bench, tmp_path: Path) -> None:
    ours = both_ways(
        bench,
        tmp_path,
        [
            Package("new", tree("/usr/share/new/file"), fields={"Conflicts": "old", "Replaces": "old"}),
            Package("two", tree("/usr/share/two/file"), fields={"Breaks": "old (<< 0.5), other (= 3)"}),
        ],
        below=[Package("old", tree("/usr/share/old/file"), fields={"Provides": "other"})],
    )
    assert ours.left() == {"new_1.0_all.deb": "new cannot be beside old"}


def test_a_dpkg_that_leaves_out_paths_does_everything(bench: Bench, tmp_path: Path) -> None:
    ours = both_ways(
        bench,
        tmp_path,
        [Package("one", tree("/usr/share/doc/one/file", "/usr/share/one/file"))],
        script="echo 'path-exclude=/usr/share/doc/*' >/etc/dpkg/dpkg.cfg.d/no-docs",
    )
    assert reason(ours, "one") == "/etc/dpkg/dpkg.cfg.d/no-docs says `path-exclude=/usr/share/doc/*`"
    assert "usr/share/doc/one" not in ours.entries


@pytest.mark.parametrize("compression", ["gz", "xz", ""])
def test_each_compression_of_a_package_is_read(bench: Bench, tmp_path: Path, compression: str) -> None:
    ours = both_ways(bench, tmp_path, [Package("one", tree("/usr/share/one/file"), compression=compression)])
    assert ours.left() == {}


def test_architectures_are_told_apart_in_the_names_of_dpkgs_files(bench: Bench, tmp_path: Path) -> None:
    fields = {"Multi-Arch": "same"}
    package = Package(
        "one", tree("/usr/share/one/file"), arch="amd64", fields=fields, triggers="interest named\n"
    )
    if not Path("/lib64/ld-linux-x86-64.so.2").exists():
        pytest.skip("the base is of another architecture")
    ours = both_ways(bench, tmp_path, [package])
    assert ours.left() == {}
    assert "var/lib/dpkg/info/one:amd64.list" in ours.entries


HOSTILE = {
    "a path that climbs": ([directory("./"), entry("./../../../climbed", b"")], "it holds the path"),
    "a path that climbs on the way": (
        [*directories("/usr/share/x"), entry("./usr/share/../../climbed", b"")],
        "it holds the path",
    ),
    "a device": (
        [*directories("/usr/share/x"), entry("./usr/share/null", kind=tarfile.CHRTYPE)],
        "an entry of type",
    ),
    "a hard link to what is not its own": (
        [*directories("/usr/share/x"), link("./usr/share/link", "./etc/shadow")],
        "leads to no file before it",
    ),
    "an owner beyond all ids": (
        [*directories("/usr/share/x"), entry("./usr/share/x", owner=("", 70_000, "", 0))],
        "above 65535",
    ),
    "a path below a file": (
        [*tree("/usr/share/file"), entry("./usr/share/file/x", b"")],
        "/usr/share/file is no directory, or not its own",
    ),
    "a path below its own link": (
        [*tree("/usr/share/file"), symlink("./usr/share/link", "/etc"), entry("./usr/share/link/x", b"")],
        "/usr/share/link is no directory, or not its own",
    ),
    "a path twice": (
        [*tree("/usr/share/file"), entry("./usr/share/file", b"again")],
        "twice",
    ),
    "a newline in a path": (
        [*directories("/usr/share/x"), entry("./usr/share/a\nb", b"")],
        "it holds the path",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_package_is_left_alone(bench: Bench, tmp_path: Path, what: str) -> None:
    content, why = HOSTILE[what]
    tmp_path.chmod(0o755)
    tmp_path.parent.chmod(0o755)

    async def body() -> tuple[dict[str, str], set[str]]:
        _, path = Package("one", content).write(tmp_path)
        path.chmod(0o644)
        workspace = await bench.engine.prepare(bench.base)
        try:
            left = await workspace.unpack_packages(tmp_path, [path.name])
            return dict(left), {str(each) for each in Path(workspace.upper).rglob("*")}
        finally:
            await workspace.abort()

    left, written = bench.trial(body)
    assert list(left) == ["one_1.0_all.deb"]
    assert why in left["one_1.0_all.deb"]
    assert written == set()


def test_a_damaged_package_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    tmp_path.parent.chmod(0o755)

    async def body() -> dict[str, str]:
        _, path = Package("one", tree("/usr/share/one/file")).write(tmp_path)
        path.write_bytes(path.read_bytes()[:-40])
        workspace = await bench.engine.prepare(bench.base)
        try:
            return dict(await workspace.unpack_packages(tmp_path, [path.name]))
        finally:
            await workspace.abort()

    assert "it ends in the middle" in bench.trial(body)["one_1.0_all.deb"]


def test_a_link_that_leads_out_is_followed_below_the_root_only(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    content = [*tree("/usr/share/out/file")]
    ours = both_ways(
        bench,
        tmp_path,
        [Package("one", content)],
        script=f"mkdir -p {outside}; ln -s {outside} /usr/share/out",
    )
    assert list(outside.iterdir()) == []
    assert f"{outside}/file".lstrip("/") in ours.entries
