"""`dataclass`, generated when the first instance is made instead of when the class is declared.

`dataclasses` compiles five or six functions for each class, about 0.4 ms. A command line that needs a few of
the classes it imports would spend a third of its start on the others. For type checkers this is the
standard decorator; at run time the class becomes exactly what that makes of it, only later.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

_FIELDS = "__dataclass_fields__"
_lock = threading.RLock()

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """Declare a dataclass. `slots` is not offered, for it makes another class."""

        def declare(cls: type) -> type:
            _Pending(cls, options)
            return cls

        return declare if cls is None else declare(cls)


class _Pending:
    """A class that is still to be generated. It stands where the class's fields will be, so whoever asks for
    them (`fields`, a subclass) has it generated, and behind its `__init__`."""

    def __init__(self, cls: type, options: dict[str, Any]) -> None:
        self._cls = cls
        self._options = options

        def generate_first(instance: Any, *values: Any, **named: Any) -> None:
            self.generate()
            cls.__init__(instance, *values, **named)  # type: ignore[misc]

        cls.__init__ = generate_first  # type: ignore[misc]
        setattr(cls, _FIELDS, self)

    def __get__(self, _instance: object, _owner: type) -> Any:
        self.generate()
        return self._cls.__dict__[_FIELDS]

    def generate(self) -> None:
        """Let the standard decorator do its work, once."""
        with _lock:
            if self._cls.__dict__.get(_FIELDS) is self:
                del self._cls.__init__
                delattr(self._cls, _FIELDS)
                dataclasses.dataclass(**self._options)(self._cls)
