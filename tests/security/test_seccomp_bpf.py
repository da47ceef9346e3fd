"""Profiles compiled beforehand say what the profiles say, whatever becomes of the file they are kept in."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sandboxfile.engines.linux.seccomp import Use, profile
from sandboxfile.engines.linux.seccomp_bpf import CompiledProfiles

MACHINE = os.uname().machine
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
ARGUMENTS = (0, 1, 2, 10, 16, 17, 38, 40, 0x5401, 0x5411, 0x5412, 0x5413, 0x541B, 0x541C, 0x541D, 0x10000000)
HIGH = 7 << 32


@pytest.fixture
def compiled(tmp_path: Path) -> Mapping[Use, str]:
    filters = CompiledProfiles(tmp_path / "seccomp", MACHINE)
    if not filters:
        pytest.skip("libseccomp, or a machine it is asked for, is not here")
    return filters


def judged(program: bytes, number: int, arguments: Sequence[int]) -> int:
    """What a filter says to a call: the kernel's machine, as far as filters use it."""
    data = struct.pack("=iIQ6Q", number, AUDIT[MACHINE], 0, *arguments)
    steps = list(struct.iter_unpack("=HBBI", program))
    at = value = 0
    while True:
        code, yes, no, constant = steps[at]
        at += 1
        if code == 0x06:
            return int(constant)
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, constant)
        elif code == 0x54:
            value &= constant
        elif code == 0x05:
            at += constant
        else:
            holds = {0x15: value == constant, 0x25: value > constant, 0x35: value >= constant}[code]
            at += yes if holds else no


def expected(document: Mapping[str, Any], name: str, arguments: Sequence[int]) -> int:
    """What a profile says to a call."""
    for rule in document["syscalls"]:
        if name in rule["names"] and all(holds(each, arguments) for each in rule.get("args", ())):
            return action(rule["action"], rule.get("errnoRet", 0))
    return action(document["defaultAction"], document["defaultErrnoRet"])


def holds(comparison: Mapping[str, Any], arguments: Sequence[int]) -> bool:
    given, value = arguments[comparison["index"]], comparison["value"]
    if comparison["op"] == "SCMP_CMP_MASKED_EQ":
        return bool(given & value == comparison["valueTwo"])
    return bool(given > value if comparison["op"] == "SCMP_CMP_GT" else given == value)


def action(name: str, errno: int) -> int:
    return ALLOW if name == "SCMP_ACT_ALLOW" else ERRNO | errno


def calls(document: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    library = ctypes.CDLL("libseccomp.so.2")
    for name in {name for rule in document["syscalls"] for name in rule["names"]}:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            yield name, number


@pytest.mark.parametrize("use", Use)
def test_a_compiled_profile_judges_every_call_as_the_profile_does(
    compiled: Mapping[Use, str], use: Use
) -> None:
    document, program = profile(MACHINE, use), base64.b64decode(compiled[use])
    tried = 0
    for name, number in calls(document):
        for value in (*ARGUMENTS, *(HIGH | each for each in ARGUMENTS)):
            arguments = (value, value, 0, 0, 0, 0)
            assert judged(program, number, arguments) == expected(document, name, arguments), (name, value)
            tried += 1
    assert tried > 5000
    assert judged(program, 9999, (0,) * 6) == ERRNO | 38


def test_what_was_kept_is_used_again(compiled: Mapping[Use, str], tmp_path: Path) -> None:
    kept = sorted((tmp_path / "seccomp").iterdir())
    before = [each.stat().st_mtime_ns for each in kept]
    assert CompiledProfiles(tmp_path / "seccomp", MACHINE) == compiled
    assert [each.stat().st_mtime_ns for each in kept] == before
    assert len(kept) == len(compiled) == len(Use)


def test_only_the_profile_that_is_asked_for_is_made(compiled: Mapping[Use, str], tmp_path: Path) -> None:
    assert CompiledProfiles(tmp_path / "one", MACHINE)[Use.RUN] == compiled[Use.RUN]
    assert [each.name for each in (tmp_path / "one").iterdir()] == [f"{MACHINE}-run.json"]


def test_what_was_made_of_another_profile_is_made_again(compiled: Mapping[Use, str], tmp_path: Path) -> None:
    run, sudo = (tmp_path / "seccomp" / f"{MACHINE}-{use}.json" for use in (Use.RUN, Use.SUDO))
    run.write_bytes(sudo.read_bytes())
    assert CompiledProfiles(tmp_path / "seccomp", MACHINE)[Use.RUN] == compiled[Use.RUN]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b"[]"])
def test_a_damaged_file_is_made_again(compiled: Mapping[Use, str], tmp_path: Path, damage: bytes) -> None:
    for kept in (tmp_path / "seccomp").iterdir():
        kept.write_bytes(damage)
    assert CompiledProfiles(tmp_path / "seccomp", MACHINE) == compiled


def test_a_filter_that_was_changed_is_made_again(compiled: Mapping[Use, str], tmp_path: Path) -> None:
    kept = tmp_path / "seccomp" / f"{MACHINE}-run.json"
    changed = json.loads(kept.read_text())
    changed["filter"] = "AAAAAAAA" + changed["filter"][8:]
    kept.write_text(json.dumps(changed))
    assert CompiledProfiles(tmp_path / "seccomp", MACHINE) == compiled


def test_a_machine_nobody_knows_gets_none(tmp_path: Path) -> None:
    assert CompiledProfiles(tmp_path, "pdp11") == {}
