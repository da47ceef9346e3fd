"""What a process of the helper's pid namespace is called on this machine."""

from __future__ import annotations

from pathlib import Path


def outside_pid(waiter: int | None, inside: int) -> int | None:
    """The process id that a child of the helper has here; None when it is gone.

    waiter: the process that waits for the helper, in this pid namespace
    inside: the child's process id as the helper knows it
    """
    for helper in children(waiter):
        for child in children(helper):
            if _inner(child) == inside:
                return child
    return None


def children(pid: int | None) -> list[int]:
    """The children of a process, none when it is gone."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _inner(pid: int) -> int | None:
    """The number of a process in the helper's pid namespace, one below this one's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return int(numbers[1]) if len(numbers) > 1 else None
