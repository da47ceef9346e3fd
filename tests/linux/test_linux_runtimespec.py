"""The runtime configuration: a pure function, so what it must never say is looked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandboxfile.engines.linux.runtimespec import BoundMount, Container, GuestProcess, Host, config
from sandboxfile.engines.linux.seccomp import Use, profile
from sandboxfile.engines.linux.users import Identity


def document(*, build: bool, uid: int = 0, **options: Any) -> dict[str, Any]:
    guest = GuestProcess(("true",), {"A": "1"}, "/", Identity(uid, uid))
    return config(Container("/m/root", "/m/net", guest, build, Host(1024, "x86_64"), **options))


@pytest.mark.parametrize("build", [True, False])
def test_every_namespace_is_private(build: bool) -> None:
    kinds = {each["type"] for each in document(build=build)["linux"]["namespaces"]}
    assert kinds == {"user", "network", "pid", "mount", "ipc", "uts", "cgroup"}


def test_sandboxes_gain_no_privileges_and_hold_fewer_than_build_steps() -> None:
    building, running = document(build=True)["process"], document(build=False)["process"]
    assert running["noNewPrivileges"]
    assert not building["noNewPrivileges"]
    held = set(running["capabilities"]["bounding"])
    assert held < set(building["capabilities"]["bounding"])
    assert not held & {"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_MKNOD", "CAP_SYS_PTRACE"}


def test_ordinary_users_hold_no_capabilities() -> None:
    capabilities = document(build=True, uid=1000)["process"]["capabilities"]
    assert [capabilities[name] for name in ("effective", "permitted", "inheritable", "ambient")] == [[]] * 4


def test_mounts_of_this_machine_are_read_only() -> None:
    mounts = document(build=True, mounts=(BoundMount("/m/0", "/wheels"),))["mounts"]
    bound = [mount for mount in mounts if mount["type"] == "bind"]
    assert [mount["destination"] for mount in bound] == ["/wheels"]
    assert {"ro", "nosuid", "nodev"} <= set(bound[0]["options"])


def test_the_configuration_is_json_and_the_same_each_time() -> None:
    assert json.dumps(document(build=False)) == json.dumps(document(build=False))


@pytest.mark.parametrize("build", [True, False])
def test_no_dangerous_call_is_allowed(build: bool) -> None:
    rules = profile("x86_64", Use.BUILD if build else Use.RUN)["syscalls"]
    allowed = {
        name
        for rule in rules
        if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
        for name in rule["names"]
    }
    dangerous = {
        "unshare", "setns", "mount", "umount2", "pivot_root", "move_mount", "fsopen", "open_tree", "bpf",
        "perf_event_open", "userfaultfd", "io_uring_setup", "keyctl", "add_key", "request_key", "kexec_load",
        "init_module", "finit_module", "open_by_handle_at", "pidfd_getfd", "clone", "clone3", "socket",
        "personality", "reboot", "settimeofday", "clock_settime", "swapon", "quotactl", "acct", "iopl",
    }  # fmt: skip
    assert not allowed & dangerous
    assert ("chroot" in allowed) == build


def test_each_call_is_listed_once() -> None:
    rules = profile("x86_64", Use.RUN)["syscalls"]
    names = [name for rule in rules if "args" not in rule for name in rule["names"]]
    assert sorted(names) == sorted(set(names))


def test_unknown_calls_are_answered_as_if_the_kernel_had_none() -> None:
    assert profile("x86_64", Use.RUN)["defaultErrnoRet"] == 38
    assert profile("riscv64", Use.RUN)["architectures"] == []
