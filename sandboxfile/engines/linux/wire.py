"""Messages between client and helper: one JSON document and some descriptors in each packet.

A document that is too long for a packet travels in a sealed-off memory file, whose descriptor comes first.
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

PACKET = 128 * 1024
_DESCRIPTORS = 64


def send(channel: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    """Send one message. Raises BlockingIOError on a non-blocking channel that is full."""
    text = json.dumps(message, separators=(",", ":")).encode()
    if len(text) <= PACKET:
        _send(channel, text, descriptors)
        return
    carrier = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        with open(carrier, "wb", closefd=False) as file:
            file.write(text)
        _send(channel, b"@", [carrier, *descriptors])
    finally:
        os.close(carrier)


def _send(channel: socket.socket, text: bytes, descriptors: list[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([text], ancillary)


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """One message and its descriptors; None when the other side is gone."""
    try:
        text, descriptors, _, _ = socket.recv_fds(channel, PACKET, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None, []
    if not text:
        return None, []
    if text == b"@":
        carrier, *descriptors = descriptors
        with open(carrier, "rb") as file:
            file.seek(0)
            text = file.read()
    message: dict[str, Any] = json.loads(text)
    return message, list(descriptors)
