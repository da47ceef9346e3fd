"""The worker's task: unpack what can be unpacked without dpkg, and say what is left to it."""

from __future__ import annotations

import os
import secrets
from typing import Any

from sandboxfile.engines.linux.worker.dpkg.candidate import Candidate, candidate_of, objections
from sandboxfile.engines.linux.worker.dpkg.database import Database, UnknownDatabase, accounts_in
from sandboxfile.engines.linux.worker.dpkg.placing import Placing, Tree
from sandboxfile.engines.linux.worker.dpkg.staging import Accounts, Unpacked, unpack_all
from sandboxfile.engines.linux.worker.tasks import Context
from sandboxfile.engines.linux.worker.tree import remove_tree
from sandboxfile.inputs.debfile import Deb, DebError


def unpack_packages(context: Context) -> dict[str, Any]:
    """Unpack the packages `names` (files in the directory `debs`) into `root`, and record them as unpacked.

    The result: `left`, why each of the others is left to dpkg.
    """
    root, debs, names = context.dirs["root"], context.dirs["debs"], context.args["names"]
    try:
        database = Database(root)
    except UnknownDatabase as error:
        return {"left": dict.fromkeys(names, str(error))}
    left: dict[str, str] = {}
    read: list[tuple[str, Candidate, int]] = []
    for name in names:
        try:
            candidate, size = _read(debs, name)
            read.append((name, candidate, size))
        except DebError as error:
            left[name] = str(error)
    candidates = [candidate for _, candidate, _ in read]
    reasons = objections(candidates, database.packages, database.native)
    chosen = [number for number in range(len(read)) if number not in reasons]
    left |= {read[number][0]: reason for number, reason in reasons.items()}
    left |= _unpack(root, debs, [read[number] for number in chosen], database)
    return {"left": left}


def _read(debs: int, name: str) -> tuple[Candidate, int]:
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=debs), "rb") as file:
        deb = Deb(file)
        return candidate_of(deb.control), deb.data.size


def _unpack(
    root: int, debs: int, packages: list[tuple[str, Candidate, int]], database: Database
) -> dict[str, str]:
    """Unpack, place and record; why some of the packages are left to dpkg after all."""
    if not packages:
        return {}
    accounts = Accounts(dict(accounts_in(root, "/etc/passwd")), dict(accounts_in(root, "/etc/group")))
    name = f".unpacking-{secrets.token_hex(8)}"
    os.mkdir(name, 0o700, dir_fd=root)
    try:
        stage = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        try:
            unpacked: list[Unpacked] = unpack_all(
                debs, [each[0] for each in packages], [each[2] for each in packages], stage, accounts
            )
            conffiles = [{os.fsdecode(path) for path in candidate.conffiles} for _, candidate, _ in packages]
            placing = Placing(Tree(root), unpacked, conffiles, database.touched())
            refused = placing.objections()
            chosen = [number for number in range(len(packages)) if number not in refused]
            placing.place(root, stage, chosen)
        finally:
            os.close(stage)
    finally:
        remove_tree(root, name)
    recorded = []
    for number in chosen:
        entries = unpacked[number]
        assert not isinstance(entries, str)
        recorded.append((packages[number][1], entries))
    if recorded:
        database.record(recorded)
    return {packages[number][0]: reason for number, reason in refused.items()}
