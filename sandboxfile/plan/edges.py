"""What waits for what: the edges between the nodes of a plan, without a graph library."""

from __future__ import annotations

from enum import StrEnum

from sandboxfile.declared import dataclass
from sandboxfile.plan.model import Plan


class EdgeKind(StrEnum):
    """Why a node waits: the layer below is its filesystem, the files it needs, or what it is a check of."""

    PARENT = "parent"
    NEEDS_FILES = "needs-files"
    GATES = "gates"


@dataclass(frozen=True)
class Edge:
    """`target` waits for `source`."""

    source: str
    target: str
    kind: EdgeKind


def edges(plan: Plan) -> tuple[Edge, ...]:
    """Every edge of a plan, in the order of its nodes.

    An attached layer waits for what its `parents` name, a detached one for nothing below it, and a check
    for the layers that are on top: together they hold all others.
    """
    found = [Edge(fetch.name, fetch.layer, EdgeKind.NEEDS_FILES) for fetch in plan.fetches]
    top: list[str] = []
    for layer in plan.layers:
        if layer.detached or layer.inherited:
            top.append(layer.name)
            continue
        found += [Edge(below, layer.name, EdgeKind.PARENT) for below in top]
        top = [layer.name]
    found += [Edge(layer, check.name, EdgeKind.GATES) for check in plan.checks for layer in top]
    return tuple(found)


def nodes(plan: Plan) -> tuple[str, ...]:
    """Names of all nodes: fetches, layers, checks."""
    return (
        *(fetch.name for fetch in plan.fetches),
        *(layer.name for layer in plan.layers),
        *(check.name for check in plan.checks),
    )


def needs(plan: Plan) -> dict[str, tuple[str, ...]]:
    """For every node the names of those it waits for."""
    waits: dict[str, list[str]] = {name: [] for name in nodes(plan)}
    for edge in edges(plan):
        waits[edge.target].append(edge.source)
    return {name: tuple(sources) for name, sources in waits.items()}
