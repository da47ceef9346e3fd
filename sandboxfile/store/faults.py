"""Named points at which a test can make the store fail or die.

A point costs one comparison unless a test installed a callable; the product never installs one.
"""

from __future__ import annotations

from collections.abc import Callable

_fault: Callable[[str], None] | None = None


def point(name: str) -> None:
    """Pass a point such as `blob:written`. Raises whatever the installed callable raises."""
    if _fault is not None:
        _fault(name)


def install(fault: Callable[[str], None] | None) -> None:
    """Call `fault` with the name of every point passed from now on; None stops that."""
    global _fault
    _fault = fault
