"""Signatures of archives: gpgv, a keyring, and nothing but the text that was signed."""

from __future__ import annotations

import base64
import binascii
import subprocess
import tempfile
from pathlib import Path

from sandboxfile.declared import dataclass
from sandboxfile.errors import HostError, IntegrityError

DEBIAN_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)


@dataclass(frozen=True)
class Keyring:
    """OpenPGP keys in binary form, and what to call them in a message."""

    name: str
    content: bytes


def debian_keyring(setting: Path | None) -> Keyring:
    """The keyring of Debian's archives: the settings' file, else the host's. Raises HostError."""
    for path in (setting,) if setting else DEBIAN_KEYRINGS:
        if path.is_file():
            return Keyring(str(path), dearmor(path.read_bytes()))
    raise HostError(
        f"the keyring {setting} does not exist" if setting else "Debian's archive keyring is missing",
        hint="apt-get install debian-archive-keyring",
    )


def dearmor(key: bytes) -> bytes:
    """A key in binary form, whether it was armoured (RFC 9580 section 6.2) or not. One file may hold
    several armoured keys. Raises ValueError when an armoured key is damaged."""
    if b"-----BEGIN PGP PUBLIC KEY BLOCK-----" not in key:
        if not key or not key[0] & 0x80:
            raise ValueError("neither an armoured nor a binary OpenPGP key")
        return key
    blocks = []
    for block in key.split(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")[1:]:
        body, end, _ = block.partition(b"-----END PGP PUBLIC KEY BLOCK-----")
        if not end:
            raise ValueError("the armoured key has no end")
        lines = [line.strip() for line in body.splitlines()]
        if lines and not lines[0]:
            lines = lines[1:]
        # Armour headers (`Version: …`) end at the first empty line; a line starting with `=` is the CRC.
        if any(b": " in line for line in lines):
            lines = lines[lines.index(b"") + 1 :] if b"" in lines else []
        text = b"".join(line for line in lines if not line.startswith(b"="))
        try:
            blocks.append(base64.b64decode(text, validate=True))
        except binascii.Error as failure:
            raise ValueError("the armoured key is damaged") from failure
    return b"".join(blocks)


def verified(document: bytes, keyring: Keyring, *, signature: bytes | None, what: str) -> bytes:
    """The signed text of a document: of a clear-signed one, or with `signature` the document itself.

    At least one signature by a key of the ring must be good and none may be bad; a signature by an unknown
    key beside it is no fault (archives sign with the keys of two releases). Raises IntegrityError.
    """
    with tempfile.TemporaryDirectory(prefix="sandboxfile-gpgv-") as scratch:
        ring, text, out = (Path(scratch, name) for name in ("ring.gpg", "text", "out"))
        ring.write_bytes(keyring.content)
        text.write_bytes(document)
        argv = ["gpgv", "--homedir", scratch, "--status-fd", "1", "--keyring", str(ring)]
        if signature is None:
            argv += ["--output", str(out), str(text)]
        else:
            Path(scratch, "text.sig").write_bytes(signature)
            argv += [str(Path(scratch, "text.sig")), str(text)]
        try:
            done = subprocess.run(argv, capture_output=True, check=False)
        except FileNotFoundError:
            raise HostError(
                "gpgv is missing, which checks the signatures of archives", hint="apt-get install gpgv"
            ) from None
        words = [line.split() for line in done.stdout.decode("utf-8", "replace").splitlines()]
        states = {word[1] for word in words if len(word) > 1 and word[0] == "[GNUPG:]"}
        if "GOODSIG" not in states or "VALIDSIG" not in states or "BADSIG" in states:
            raise IntegrityError(
                f"{what} {_reason(states)}",
                hint=f"nothing of it was used; the keys that count are in {keyring.name}",
                details=_last_lines(done.stderr),
            )
        return document if signature is not None else out.read_bytes()


def _reason(states: set[str]) -> str:
    if "BADSIG" in states:
        return "has a bad signature: it was changed after it was signed"
    if states & {"EXPKEYSIG", "REVKEYSIG", "EXPSIG"}:
        return "is signed only by keys that are expired or revoked"
    if "NO_PUBKEY" in states:
        return "is signed only by keys that are not trusted"
    return "has no good signature"


def _last_lines(output: bytes) -> tuple[str, ...]:
    return tuple(output.decode("utf-8", "replace").strip().splitlines()[-6:])
