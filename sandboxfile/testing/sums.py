"""An engine whose filesystems are numbers, to test schedules and caches.

A layer's own number is made from its definition, and what is seen on a stack is the sum of the numbers.
One number then proves that every layer was built on what it should stand on, once, and from the right
definition (after BuildKit's scheduler tests).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sandboxfile.core.digest import hexadecimal
from sandboxfile.core.layer import Definition, LayerKey, layer_key
from sandboxfile.plan.model import ActionKind, PlannedLayer, Reconciled
from sandboxfile.plan.schedule import schedule_of

Choose = Callable[[Sequence[str]], str]
"""Picks one of several nodes: which one starts or ends next."""


def number_of(definition: Definition) -> int:
    """A definition's number."""
    return int(hexadecimal(layer_key(definition))[:12], 16)


class SumEngine:
    """`layers` holds the sum that was seen when each layer was built; `built` their names, in order."""

    def __init__(self) -> None:
        self.layers: dict[LayerKey, int] = {}
        self.own: dict[LayerKey, int] = {}
        self.built: list[str] = []
        self.checked: list[str] = []

    def build(self, layer: PlannedLayer) -> None:
        """Build a layer. AssertionError when something below it is missing, or it is there already."""
        if layer.definition is None or layer.key in self.layers:
            raise AssertionError(f"{layer.name} is built twice")
        below: Sequence[LayerKey] = () if layer.detached else layer.stack
        if missing := [key for key in below if key not in self.layers]:
            raise AssertionError(f"{layer.name} is built before {len(missing)} layers below it")
        self.own[layer.key] = number_of(layer.definition)
        self.layers[layer.key] = self.total((*below, layer.key))
        self.built.append(layer.name)

    def total(self, stack: Sequence[LayerKey]) -> int:
        """What is seen on a stack."""
        return sum(self.own[key] for key in stack)

    def run(self, reconciled: Reconciled, choose: Choose = min) -> tuple[str, ...]:
        """Do all that is to be done, nodes starting and ending in the order `choose` picks; the names of
        the layers that were built."""
        plan = reconciled.plan
        layers = {layer.name: layer for layer in plan.layers}
        work = {
            action.node
            for action in reconciled.actions
            if action.kind in (ActionKind.BUILD, ActionKind.FETCH, ActionKind.CHECK)
        }
        before = len(self.built)
        schedule = schedule_of(reconciled)
        while not schedule.done:
            ready, running = schedule.ready(), schedule.running()
            name = choose([*ready, *running])
            if name in ready:
                schedule.start(name)
                continue
            if name not in work:
                schedule.finish(name)
                continue
            if name in layers:
                self.build(layers[name])
            elif name.startswith("verify-"):
                self.total(plan.stack)
                self.checked.append(name)
            schedule.finish(name)
        return tuple(self.built[before:])
