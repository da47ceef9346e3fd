from __future__ import annotations

from sandboxfile.build.apt_install import commands as apt_commands
from sandboxfile.build.apt_install import deb_name, merge_marks
from sandboxfile.build.apt_order import Control, Order, order_of
from sandboxfile.build.pip_install import commands as pip_commands
from sandboxfile.build.pip_install import requirements
from sandboxfile.core.layer import AptLayer, PackagePin, PipLayer, WheelPin

JQ = PackagePin("jq", "1.7.1-6", "amd64", "a" * 64)
ONIG = PackagePin("libonig5", "1:6.9.9-1+b1", "amd64", "b" * 64)


def apt(**changes: object) -> AptLayer:
    fields = {"parents": (), "install": (JQ, ONIG), "remove": (), "auto": ("libonig5:amd64",), "epoch": 1}
    return AptLayer(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_colon_of_an_epoch_does_not_reach_a_file_name() -> None:
    assert deb_name(ONIG) == "libonig5_1%3a6.9.9-1+b1_amd64.deb"


NAMES = (deb_name(JQ), deb_name(ONIG))


def verbs(found: tuple[tuple[str, ...], ...]) -> list[list[str]]:
    """What each command says from its verb on."""
    return [[word for word in argv if not word.startswith("--") or word in VERBS][1:] for argv in found]


VERBS = ("--unpack", "--configure")


def test_dpkg_unpacks_what_is_left_to_it_then_configures_everything() -> None:
    unpack = ["--unpack", *(f"/run/sandboxfile/packages/{name}" for name in NAMES)]
    assert verbs(apt_commands(NAMES, Order())) == [unpack, ["--configure", "-a"]]
    assert verbs(apt_commands((), Order())) == [["--configure", "-a"]]


def test_what_a_package_needs_before_is_configured_before() -> None:
    order = Order(early=("libonig5",), late=(NAMES[0],))
    assert verbs(apt_commands(NAMES, order)) == [
        ["--unpack", f"/run/sandboxfile/packages/{NAMES[1]}"],
        ["--configure", "libonig5"],
        ["--unpack", f"/run/sandboxfile/packages/{NAMES[0]}"],
        ["--configure", "-a"],
    ]
    assert verbs(apt_commands(NAMES[:1], order))[0] == ["--configure", "libonig5"]


def test_the_order_follows_pre_dependencies_and_all_that_these_need() -> None:
    packages = {
        "a.deb": Control("a", early=("virtual",), needs=("virtual",)),
        "b.deb": Control("b", provides=("virtual",), needs=("c", "not-in-the-set")),
        "c.deb": Control("c", needs=("b",)),
        "d.deb": Control("d", early=("not-in-the-set",), needs=("a",)),
    }
    assert order_of(packages) == Order(("b", "c"), ("a.deb",))


def test_packages_that_need_each_other_before_are_unpacked_together() -> None:
    packages = {
        "a.deb": Control("a", early=("b",), needs=("b",)),
        "b.deb": Control("b", early=("a",), needs=("a",)),
    }
    assert order_of(packages) == Order()


def test_marks_of_a_layer_are_added_to_those_below() -> None:
    before = "Package: adduser\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    assert merge_marks(before, apt(), "amd64") == (
        "Package: adduser\nArchitecture: amd64\nAuto-Installed: 1\n\n"
        "Package: libonig5\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    )


def test_a_package_for_all_architectures_is_marked_as_a_native_one() -> None:
    all_pin = PackagePin("adduser", "3", "all", "c" * 64)
    layer = apt(install=(all_pin,), auto=("adduser:all",))
    text = "Package: adduser\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    assert merge_marks("", layer, "amd64") == text
    assert merge_marks(text, apt(install=(all_pin,), auto=()), "amd64") == ""
    assert merge_marks(text, apt(install=(), auto=(), remove=("adduser:all",)), "amd64") == ""


def test_a_package_asked_for_later_loses_its_automatic_mark() -> None:
    before = merge_marks("", apt(), "amd64")
    assert merge_marks(before, apt(install=(ONIG,), auto=()), "amd64") == ""


def test_a_removed_package_loses_its_mark() -> None:
    before = merge_marks("", apt(), "amd64")
    layer = apt(install=(), auto=(), remove=("libonig5:amd64",))
    assert merge_marks(before, layer, "amd64") == ""


def pip(target: str = "system") -> PipLayer:
    wheel = WheelPin("idna-3.10-py3-none-any.whl", "c" * 64, "idna", "3.10")
    return PipLayer(parents=(), wheels=(wheel,), python="3.13", target=target, epoch=1)


def test_requirements_name_versions_and_hashes_only() -> None:
    assert requirements(pip()) == f"idna==3.10 --hash=sha256:{'c' * 64}\n"


def test_installing_uses_no_index_no_network_and_hashes() -> None:
    install = pip_commands(pip())[0]
    for option in ("--offline", "--no-index", "--no-deps", "--require-hashes"):
        assert option in install


def test_a_virtual_environment_is_made_once_and_used() -> None:
    make, install, finish = pip_commands(pip("/opt/venv"))
    assert "venv" in make[2]
    assert "test -x /opt/venv/bin/python" in make[2]
    assert install[install.index("--python") + 1] == "/opt/venv/bin/python"
    assert finish[0] == "/opt/venv/bin/python"
