from __future__ import annotations

from sandboxfile.build.apt_install import commands as apt_commands
from sandboxfile.build.apt_install import deb_name, merge_marks
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


def test_removals_come_first_then_unpacking_then_configuring() -> None:
    assert [c[5] for c in apt_commands(apt(remove=("exim4:amd64",)))] == [
        "--purge",
        "--unpack",
        "--configure",
    ]
    assert [c[5] for c in apt_commands(apt())] == ["--unpack", "--configure"]
    assert [c[5] for c in apt_commands(apt(install=(), remove=("x:all",)))] == ["--purge", "--configure"]


def test_marks_of_a_layer_are_added_to_those_below() -> None:
    before = "Package: adduser\nArchitecture: all\nAuto-Installed: 1\n\n"
    assert merge_marks(before, apt()) == (
        "Package: adduser\nArchitecture: all\nAuto-Installed: 1\n\n"
        "Package: libonig5\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    )


def test_a_package_asked_for_later_loses_its_automatic_mark() -> None:
    before = merge_marks("", apt())
    assert merge_marks(before, apt(install=(ONIG,), auto=())) == ""


def test_a_removed_package_loses_its_mark() -> None:
    before = merge_marks("", apt())
    assert merge_marks(before, apt(install=(), auto=(), remove=("libonig5:amd64",))) == ""


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
