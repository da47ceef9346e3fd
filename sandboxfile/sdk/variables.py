"""The environment variables that commands of a sandbox start with."""

from __future__ import annotations

from sandboxfile.sdk import arguments


class AsyncVariables:
    """`sandbox.env`: what is changed here holds for commands that are started later."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    async def get(self, key: str) -> str | None:
        """A variable's value, None when it is not set."""
        return self._values.get(arguments.variable_name(key))

    async def set(self, key: str, value: str) -> None:
        """Set a variable."""
        self._values[arguments.variable_name(key)] = arguments.variable_value(value)

    async def delete(self, key: str) -> None:
        """Unset a variable; nothing happens when it is not set."""
        self._values.pop(arguments.variable_name(key), None)

    async def to_object(self) -> dict[str, str]:
        """All of them."""
        return dict(self._values)
