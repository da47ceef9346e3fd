"""Users and groups of a root file system."""

from __future__ import annotations

import pytest

from sandboxfile.engines.linux.users import Identity, NoSuchUser, resolve_owner, resolve_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbroken\nodd:x:a:b::/:\n"
GROUP = "root:x:0:\nann:x:1000:\naudio:x:29:ann,bob\nstaff:x:50:root\n"


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("root", Identity(0, 0, (50,), "/root")),
        ("ann", Identity(1000, 1000, (29,), "/home/ann")),
        ("1000", Identity(1000, 1000, (29,), "/home/ann")),
        ("ann:staff", Identity(1000, 50, (), "/home/ann")),
        ("1234", Identity(1234, 0, (), "/")),
        ("1234:77", Identity(1234, 77, (), "/")),
    ],
)
def test_users_by_name_and_number(user: str, identity: Identity) -> None:
    assert resolve_user(user, PASSWD, GROUP) == identity


def test_root_is_root_without_any_files() -> None:
    assert resolve_user("root", "", "") == Identity(0, 0)
    assert resolve_owner("root:root", "", "") == (0, 0)


@pytest.mark.parametrize("user", ["nobody-here", "ann:nogroup", "65536", "0:99999", ""])
def test_who_is_not_there_is_named(user: str) -> None:
    with pytest.raises(NoSuchUser):
        resolve_user(user, PASSWD, GROUP)
