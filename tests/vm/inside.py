"""What happens inside of the virtual machine, as root, started by systemd.

`trial.phase` on the kernel's command line says what: `first` leaves sandboxes running until the power goes,
`second` looks at what that left behind, and runs the suites that `trial.suites` names.
Everything meant for the outside is a line with `trial: ` on the console, or a file on the disk of results.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

TRIAL = Path("/trial")
RESULTS = Path("/run/results")
NAME = "someone"
PROMISES = ["tests/conformance/test_engines.py", "-k", "linux"]
FEW = (
    *("memory_is_limited", "processors_are_limited", "processes_are_limited", "what_is_written_is_limited"),
    *("a_volume_keeps_to_its_capacity", "a_running_sandbox_can_be_made_a_snapshot", "what_is_enforced_warns"),
)
SUITES = {
    "promises": PROMISES,
    "limits": ["tests/linux/test_limits.py"],
    "freeze": ["tests/linux/test_freeze.py"],
    "few": [*PROMISES[:-1], f"linux and ({' or '.join(FEW)})"],
}
OTHER = "other"
LACKING = {
    "root": set(),
    "delegated": {"volume-capacity"},
    "login": {"volume-capacity"},
    "plain": {"hard-memory", "hard-cpu", "volume-capacity"},
}
ROOT_STORE = Path("/var/lib/trial")


def say(text: str) -> None:
    print(f"trial: {text}", flush=True)


def run(*argv: str, **options: object) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)  # type: ignore[call-overload]
    return str(done.stdout.decode("utf-8", "replace"))


def main() -> None:
    RESULTS.mkdir()
    # Every user puts reports there.
    RESULTS.chmod(0o777)
    os.chdir(TRIAL)
    words = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
    try:
        facts()
        if words["trial.phase"] == "first":
            prepare()
            leave()
            return
        after()
        check(words["trial.suites"])
        subprocess.run(["tar", "-cf", "/dev/disk/by-id/virtio-results", "-C", str(RESULTS), "."], check=True)
        subprocess.run(["sync"], check=True)
        say("done")
    except BaseException as error:
        say(f"failed: {error!r}")
        raise
    finally:
        # Reached when the power was not taken.
        subprocess.run(["systemctl", "poweroff"], check=False)


def facts() -> None:
    """What kind of host this is."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    groups = [(mount[2], mount[3]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")]
    found = {
        "kernel": os.uname().release,
        "process 1": Path("/proc/1/comm").read_text().strip(),
        "control groups": groups,
        "controllers": Path("/sys/fs/cgroup/cgroup.controllers").read_text().split(),
        "own group": Path("/proc/self/cgroup").read_text().strip(),
        "runtime": run("crun", "--version").splitlines()[0],
        "seconds since boot": float(Path("/proc/uptime").read_text().split()[0]),
    }
    (RESULTS / "facts.json").write_text(json.dumps(found))
    for name, value in found.items():
        say(f"{name}: {value}")


def check(suites: str) -> None:
    for pair in suites.split(","):
        who, _, suite = pair.partition(":")
        if suite == "doctor":
            doctor_as(who)
        else:
            suite_as(who, SUITES[suite])


def prepare() -> None:
    """Install the wheel; make two ordinary users, of whom one has a systemd that stays without a login."""
    import uv

    wheel = next(TRIAL.glob("*.whl"))
    install = ["pip", "install", "--quiet", "--system", "--break-system-packages", "--no-deps", "--offline"]
    subprocess.run([uv.find_uv_bin(), *install, "--no-index", str(wheel)], check=True)
    for number, name in enumerate((NAME, OTHER), 2):
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", name], check=True)
        ids = f"{number}000000-{number}065535"
        subprocess.run(["usermod", "--add-subuids", ids, "--add-subgids", ids, name], check=True)
        Path(f"/home/{name}").chmod(0o700)
    subprocess.run(["loginctl", "enable-linger", NAME], check=True)
    while not Path(f"/run/user/{pwd.getpwnam(NAME).pw_uid}/bus").exists():
        time.sleep(0.1)


def as_user(who: str) -> list[str]:
    """What runs a command as a kind of user.

    delegated: in a service of the user's own systemd, which has been given controllers
    login:     in the session of a login, which systemd keeps for itself, beside the user's systemd
    plain:     a user without a login, in a service of the machine's: nothing of systemd is the user's
    """
    runtime = f"XDG_RUNTIME_DIR=/run/user/{pwd.getpwnam(NAME).pw_uid}"
    user = ["runuser", "-u", NAME, "--"]
    if who == "root":
        return ["env"]
    if who == "delegated":
        service = ["systemd-run", "--user", "--quiet", "--wait", "--pipe", "--collect", "--same-dir"]
        return [*user, "env", runtime, *service, "env"]
    if who == "login":
        return ["su", "--login", NAME, "--command", f'cd {TRIAL}; exec "$@"', "--", "sh", "env"]
    return ["runuser", "-u", OTHER, "--", "env", f"HOME=/home/{OTHER}"]


def store_of(who: str) -> Path:
    """The store of a kind of user."""
    homes = {"root": ROOT_STORE, "plain": Path(f"/home/{OTHER}/store")}
    return homes.get(who, Path(f"/home/{NAME}/store"))


def doctor_as(who: str) -> None:
    """Pass on what `doctor` says is not there, and of control groups."""
    told = run(*as_user(who), sys.executable, "-m", "sandboxfile", "doctor")
    (RESULTS / f"{who}-doctor").write_text(told)
    for line in told.splitlines():
        if not line.startswith("ok") or "cgroup" in line:
            say(f"doctor as {who}: {line.strip()}")


def suite_as(who: str, files: list[str]) -> None:
    report = RESULTS / f"{who}-{len(list(RESULTS.glob('*.xml')))}.xml"
    # What cannot run is a failure; what an engine is not capable of is a skip all the same.
    settings = [
        "CI=true",
        f"SANDBOXFILE_TEST_HOME={store_of(who)}",
        f"SANDBOXFILE_TEST_BASE={TRIAL}/base.tar",
    ]
    options = ["-p", "no:cacheprovider", "-v", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options, *files]
    began = time.monotonic()
    log = report.with_suffix(".log")
    with log.open("w") as kept:
        command = [*as_user(who), *settings, *command]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running:
            assert running.stdout is not None
            for line in running.stdout:
                kept.write(line)
                print(f"{who}| {line}", end="", flush=True)
    if not report.exists():
        say(f"{who}: no report: {log.read_text()[-2000:]!r}")
        return
    (suite,) = ElementTree.parse(report).getroot()
    counts = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    say(f"{who}: {counts} in {time.monotonic() - began:.0f} s")
    if files[0] == PROMISES[0]:
        skips(who, suite)
    for case in suite:
        for kind in case:
            if kind.tag in ("failure", "error", "skipped"):
                say(f"{who}: {kind.tag}: {case.get('name')}: {(kind.get('message') or '')[:300]!r}")


def skips(who: str, suite: ElementTree.Element) -> None:
    """Look whether what was skipped is exactly what this user's engine is not capable of."""
    messages = [kind.get("message") or "" for case in suite for kind in case if kind.tag == "skipped"]
    lacking = {name for text in messages for name in text.partition(" engine lacks ")[2].split(", ") if name}
    if lacking != LACKING[who]:
        say(f"{who}: failed: promises were skipped for want of {sorted(lacking)}, not {sorted(LACKING[who])}")


def leave() -> None:
    """Start things as both users, and let the outside know that the power can go."""
    started = []
    for who in ("root", "delegated"):
        command = [*as_user(who), sys.executable, f"{TRIAL}/tests/vm/crash.py", "leave", str(store_of(who))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            say(f"{who}: {line.strip()}")
            if line.strip() == "ready":
                break
        started.append(process)
    if any(process.poll() is not None for process in started):
        say("failed: a client ended")
        return
    say("ready")
    time.sleep(600)


def after() -> None:
    for who in ("root", "delegated"):
        while who != "root" and not Path(f"/run/user/{pwd.getpwnam(NAME).pw_uid}/bus").exists():
            time.sleep(0.1)
        command = [*as_user(who), sys.executable, f"{TRIAL}/tests/vm/crash.py", "after", str(store_of(who))]
        for line in run(*command).splitlines():
            say(f"{who}: {line}")


if __name__ == "__main__":
    main()
