"""The entry of a worker: run one task and answer with its result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from sandboxfile.declared import dataclass

TASKS = {
    "place": "sandboxfile.engines.linux.worker.tree",
    "read": "sandboxfile.engines.linux.worker.tree",
    "remove": "sandboxfile.engines.linux.worker.tree",
    "delete": "sandboxfile.engines.linux.worker.tree",
    "seal": "sandboxfile.engines.linux.worker.seal",
    "unpack": "sandboxfile.engines.linux.worker.unpack",
    "agree": "sandboxfile.engines.linux.worker.placement",
    "materialise": "sandboxfile.engines.linux.worker.placement",
    "repository": "sandboxfile.engines.linux.worker.bootstrap",
    "bootstrap": "sandboxfile.engines.linux.worker.bootstrap",
    "attach": "sandboxfile.engines.linux.worker.guest",
    "detach": "sandboxfile.engines.linux.worker.guest",
    "files": "sandboxfile.engines.linux.worker.files",
    "block": "sandboxfile.engines.linux.worker.guest",
    "copy": "sandboxfile.engines.linux.worker.volumes",
    "measure": "sandboxfile.engines.linux.worker.volumes",
    "attach_image": "sandboxfile.engines.linux.worker.volumes",
    "detach_image": "sandboxfile.engines.linux.worker.volumes",
    "take_away": "sandboxfile.engines.linux.worker.volumes",
}


class TaskFailed(Exception):
    """A failure with a sentence for the user. `kind` is the name of the error the client raises."""

    def __init__(self, message: str, *, kind: str = "EngineError", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


@dataclass(frozen=True)
class Context:
    """What a task is given: arguments, directories and descriptors opened beforehand, and the way into
    the sandboxes' ids, to be taken by the task itself when it was made `mapped`."""

    args: dict[str, Any]
    dirs: dict[str, int]
    descriptors: list[int]


def run_task(
    name: str, args: dict[str, Any], dirs: dict[str, str], given: list[int], enter: Callable[[], None] | None
) -> None:
    """Run a task in this process. `given[0]` takes the answer; `enter` changes to the sandboxes' ids."""
    answer: dict[str, Any]
    try:
        work = getattr(import_module(TASKS[name]), name)
        opened = {key: os.open(path, os.O_RDONLY | os.O_DIRECTORY) for key, path in dirs.items()}
        if enter:
            enter()
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        os.umask(0o022)
        answer = {"result": work(Context(args, opened, given[1:]))}
    except TaskFailed as error:
        answer = {"error": error.kind, "message": str(error), "details": error.details}
    except OSError as error:
        place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        text = f"{name}: {error.strerror or error}" + (f": {place}" if place else "")
        answer = {"error": type(error).__name__, "message": text, "errno": error.errno}
    except Exception as error:
        answer = {"error": "EngineError", "message": f"{name}: {type(error).__name__}: {error}"}
    with open(given[0], "wb", closefd=False) as file:
        file.write(json.dumps(answer).encode())
