"""The environment variables that commands start with."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_environment(epoch: int, env: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a build step: fixed values that make its output the same everywhere, then
    the step's own `env`.

    SOURCE_DATE_EPOCH is the lock's time (reproducible-builds.org/specs/source-date-epoch), which
    FORCE_SOURCE_DATE makes TeX obey as well.
    """
    return {
        "PATH": DEFAULT_PATH,
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(epoch),
        "FORCE_SOURCE_DATE": "1",
        "PYTHONHASHSEED": "0",
        **env,
    }


def run_environment(env: Mapping[str, str], *, user: str = "root") -> dict[str, str]:
    """The whole environment of a command in a sandbox or a check."""
    name = user.partition(":")[0]
    home = "/root" if name in {"root", "0"} else f"/home/{name}"
    return {"PATH": DEFAULT_PATH, "HOME": home, "LANG": "C.UTF-8", **env}
