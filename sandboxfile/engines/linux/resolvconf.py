"""This machine's name servers, as resolv.conf(5) names them."""

from __future__ import annotations

PATHS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""Where they are written, the first that can be read is meant."""
_MOST = 3


def host_name_servers() -> list[str]:
    """The addresses of this machine's name servers, in order, at most three; a zone (`fe80::1%eth0`) stays.
    A machine that names none has one of its own."""
    for path in PATHS:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        return name_servers(text) or ["127.0.0.1"]
    return ["127.0.0.1"]


def name_servers(text: str) -> list[str]:
    """The addresses after `nameserver` in a resolv.conf, those that are none left out."""
    import ipaddress

    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ipaddress.ip_address(words[1])
            except ValueError:
                continue
            found.append(words[1])
    return found[:_MOST]
