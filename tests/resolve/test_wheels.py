from __future__ import annotations

import pytest

from sandboxfile.errors import ResolveError
from sandboxfile.inputs.interpreter import Interpreter, interpreter_of, upstream_version
from sandboxfile.inputs.wheels import Candidate, best, read_pylock

TRIXIE = Interpreter("3.13.5", "amd64", (2, 41))


@pytest.mark.parametrize(
    ("debian", "upstream"),
    [
        ("3.13.5-2+deb13u5", "3.13.5"),
        ("3.13.5", "3.13.5"),
        ("1:3.14.0~rc2-1+b1", "3.14.0rc2"),
        ("2.41-12+deb13u1", "2.41"),
        ("3.11.2+ds-1", "3.11.2"),
    ],
)
def test_a_debian_version_names_the_upstream_one(debian: str, upstream: str) -> None:
    assert upstream_version(debian) == upstream


def test_the_interpreter_is_what_usr_bin_python3_will_be() -> None:
    versions = {"python3": "3.13.5-1", "python3.13-minimal": "3.13.5-2+deb13u5", "libc6": "2.41-12"}
    assert interpreter_of(versions, "amd64") == TRIXIE
    assert TRIXIE.minor == "3.13"
    assert interpreter_of({"python3.13-minimal": "3.13.5-2", "libc6": "2.41-12"}, "amd64") is None
    assert interpreter_of(versions, "s390x") is None


@pytest.mark.parametrize(
    ("glibc", "platform"), [((2, 41), "2_40"), ((2, 36), "2_36"), ((2, 30), "2_28"), ((2, 5), "2_17")]
)
def test_uv_is_given_a_platform_that_the_base_has(glibc: tuple[int, int], platform: str) -> None:
    assert Interpreter("3.13.5", "arm64", glibc).platform == f"aarch64-manylinux_{platform}"


def choose(*filenames: str, interpreter: Interpreter = TRIXIE) -> str | None:
    found = best((Candidate(name, "", "") for name in filenames), interpreter)
    return found.filename if found else None


def test_the_most_specific_wheel_is_chosen() -> None:
    native = "a-1-cp313-cp313-manylinux_2_28_x86_64.whl"
    abi3 = "a-1-cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    pure = "a-1-py3-none-any.whl"
    assert choose(pure, abi3, native) == native
    assert choose(pure, abi3) == abi3
    assert choose(pure) == pure


@pytest.mark.parametrize(
    "other",
    [
        "a-1-cp313-cp313-musllinux_1_2_x86_64.whl",
        "a-1-cp313-cp313-manylinux_2_28_aarch64.whl",
        "a-1-cp312-cp312-manylinux_2_28_x86_64.whl",
        "a-1-cp313-cp313t-manylinux_2_28_x86_64.whl",
        "a-1-cp313-cp313-manylinux_2_42_x86_64.whl",
        "a-1-cp313-cp313-win_amd64.whl",
        "not-a-wheel.whl",
    ],
)
def test_what_does_not_fit_is_never_chosen(other: str) -> None:
    assert choose(other) is None


def test_of_equal_wheels_the_highest_build_number_is_chosen() -> None:
    assert choose("a-1-py3-none-any.whl", "a-1-2-py3-none-any.whl", "a-1-10-py3-none-any.whl") == (
        "a-1-10-py3-none-any.whl"
    )


PYLOCK = """\
lock-version = "1.0"
[[packages]]
name = "demo"
version = "1.0"
[[packages.wheels]]
url = "https://user:secret@index.example/demo-1.0-WHICH.whl"
size = 7
hashes = { sha256 = "DIGEST" }
"""


def test_a_lock_of_uv_becomes_rows_without_credentials() -> None:
    (row,) = read_pylock(PYLOCK.replace("WHICH", "py3-none-any").replace("DIGEST", "ab" * 32), TRIXIE)
    assert (row.name, row.version, row.size, row.sha256) == ("demo", "1.0", 7, "ab" * 32)
    assert row.url == "https://index.example/demo-1.0-py3-none-any.whl"


def test_a_distribution_without_a_wheel_that_fits_says_what_to_do() -> None:
    with pytest.raises(ResolveError) as caught:
        read_pylock(PYLOCK.replace("WHICH", "cp313-cp313-win32"), TRIXIE)
    assert "no wheel of demo 1.0" in caught.value.message
    assert "build: [demo]" in (caught.value.hint or "")


def test_a_wheel_without_a_digest_is_refused() -> None:
    with pytest.raises(ResolveError) as caught:
        read_pylock(PYLOCK.replace("WHICH", "py3-none-any").replace("DIGEST", ""), TRIXIE)
    assert "sha256" in caught.value.message
