"""System call profiles compiled beforehand: crun takes them as they are, and starts in half the time.

libseccomp, which is there wherever crun is, compiles; the result is kept in the store, with the profile and
the library's version. Where it is missing, nothing is compiled and the runtime does it.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
from binascii import crc32
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandboxfile.engines.linux.seccomp import Use, profile

_ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
_OPERATORS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}
_OPTIMIZE = 8
_BINARY_TREE = 2
_NATIVE = ("x86_64", "aarch64")


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


class _CannotCompile(Exception):
    """The library is missing, or would not have something."""


class CompiledProfiles(Mapping[Use, str]):
    """The compiled profiles, base64 by use; empty where they cannot be compiled. Each is looked for, and made
    if need be, when it is asked for.

    directory: where they are kept; what is found there is used only when it is whole, and made of the profile
               and by the library that would be used now
    """

    def __init__(self, directory: Path, machine: str) -> None:
        self._directory = directory
        self._machine = machine
        self._found: dict[Use, str | None] = {}

    def __getitem__(self, use: Use) -> str:
        if use not in self._found:
            self._found[use] = self._find(use)
        found = self._found[use]
        if found is None:
            raise KeyError(use)
        return found

    def __iter__(self) -> Iterator[Use]:
        return (use for use in Use if self.get(use) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _find(self, use: Use) -> str | None:
        if self._machine not in _NATIVE:
            return None
        document = profile(self._machine, use)
        try:
            library = _library()
            version = library.seccomp_version().contents
            about = json.dumps([document, version.major, version.minor, version.micro], sort_keys=True)
            path = self._directory / f"{self._machine}-{use}.json"
            kept = _kept(path, about)
            if kept is not None:
                return kept
            made = base64.b64encode(_compile(library, document)).decode()
        except (_CannotCompile, OSError):
            return None
        _keep(path, about, made)
        return made


def _kept(path: Path, about: str) -> str | None:
    try:
        record = json.loads(path.read_bytes())
        made = str(record["filter"])
        # Half a filter would be no filter: what is not what was written is made again.
        whole = record["of"] == about and record["check"] == crc32(made.encode())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return made if whole else None


def _keep(path: Path, about: str, made: str) -> None:
    record = {"of": about, "filter": made, "check": crc32(made.encode())}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.write_text(json.dumps(record))
        os.replace(beside, path)
    except OSError:
        # A store that cannot be written to costs time, not safety.
        beside.unlink(missing_ok=True)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
        library.seccomp_version.restype = ctypes.POINTER(_Version)
        library.seccomp_init.restype = ctypes.c_void_p
        library.seccomp_init.argtypes = [ctypes.c_uint32]
        library.seccomp_release.argtypes = [ctypes.c_void_p]
        library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
        library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
        library.seccomp_rule_add_array.argtypes = [
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.POINTER(_Comparison),
        ]
        library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    except (OSError, AttributeError) as error:
        raise _CannotCompile from error
    return library


def _compile(library: ctypes.CDLL, document: Mapping[str, Any]) -> bytes:
    default = _action(document["defaultAction"], document["defaultErrnoRet"])
    with _context(library, default) as context:
        # Every library since 2.5 can sort the calls into a tree; others make a longer way of the same.
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
        for rule in document["syscalls"]:
            action = _action(rule["action"], rule.get("errnoRet", 0))
            if action == default:
                continue
            comparisons = [_comparison(argument) for argument in rule.get("args", ())]
            array = (_Comparison * len(comparisons))(*comparisons)
            for name in rule["names"]:
                number = library.seccomp_syscall_resolve_name(name.encode())
                # A call the library does not know, or this architecture does not have, gets the default.
                if number < 0:
                    continue
                if library.seccomp_rule_add_array(context, action, number, len(comparisons), array):
                    raise _CannotCompile(name)
        return _export(library, context)


@contextmanager
def _context(library: ctypes.CDLL, default: int) -> Iterator[int]:
    context = library.seccomp_init(default)
    if not context:
        raise _CannotCompile
    try:
        yield context
    finally:
        library.seccomp_release(context)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("profile", os.MFD_CLOEXEC)
    with open(descriptor, "rb") as file:
        if library.seccomp_export_bpf(context, descriptor):
            raise _CannotCompile
        file.seek(0)
        return file.read()


def _action(name: str, errno: int) -> int:
    return _ACTIONS[name] | (errno if name == "SCMP_ACT_ERRNO" else 0)


def _comparison(argument: Mapping[str, Any]) -> _Comparison:
    return _Comparison(
        argument["index"], _OPERATORS[argument["op"]], argument["value"], argument.get("valueTwo", 0)
    )
