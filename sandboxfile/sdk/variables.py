"""The environment variables that commands of a sandbox start with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from sandboxfile.sdk import arguments

Share = Callable[[Mapping[str, str | None]], Awaitable[None]]


class AsyncVariables:
    """`sandbox.env`: what is changed here holds for commands that are started later; of a detached sandbox,
    by any client."""

    def __init__(self, values: dict[str, str], share: Share | None = None) -> None:
        self._values = values
        self._share = share

    async def get(self, key: str) -> str | None:
        """A variable's value, None when it is not set."""
        name = arguments.variable_name(key)
        await self._catch_up()
        return self._values.get(name)

    async def set(self, key: str, value: str) -> None:
        """Set a variable."""
        name, text = arguments.variable_name(key), arguments.variable_value(value)
        if self._share is not None:
            await self._share({name: text})
        self._values[name] = text

    async def delete(self, key: str) -> None:
        """Unset a variable; nothing happens when it is not set."""
        name = arguments.variable_name(key)
        if self._share is not None:
            await self._share({name: None})
        self._values.pop(name, None)

    async def to_object(self) -> dict[str, str]:
        """All of them."""
        await self._catch_up()
        return dict(self._values)

    async def _catch_up(self) -> None:
        """Have what other clients have set before now: that arrives ahead of the answer to any request."""
        if self._share is not None:
            await self._share({})
