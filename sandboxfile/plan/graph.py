"""The layer graph: fetches, layers and checks as a networkx DAG.

The only module that imports networkx, and only when a method needs it: a build that has nothing to do
never does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from sandboxfile.declared import dataclass
from sandboxfile.errors import PlanError
from sandboxfile.plan.edges import Edge, edges, nodes
from sandboxfile.plan.model import Plan

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class LayerGraph:
    """Nodes by name and the edges between them."""

    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]

    @classmethod
    def of(cls, plan: Plan) -> LayerGraph:
        """The graph of a plan."""
        return cls(nodes(plan), edges(plan))

    def order(self) -> tuple[str, ...]:
        """Every node after all it waits for; among equals, the order of `nodes`.

        Raises PlanError, with the path, when nodes wait for each other.
        """
        import networkx as nx

        graph = self._graph()
        place = {name: index for index, name in enumerate(self.nodes)}
        try:
            return tuple(nx.lexicographical_topological_sort(graph, key=place.__getitem__))
        except nx.NetworkXUnfeasible:
            raise PlanError(f"layers wait for each other: {' -> '.join(self._cycle(graph))}") from None

    def ready(self, done: Collection[str]) -> tuple[str, ...]:
        """Nodes not in `done` that wait for nothing outside it, in the order of `nodes`."""
        finished = set(done)
        waiting = {edge.target for edge in self.edges if edge.source not in finished}
        return tuple(name for name in self.nodes if name not in finished and name not in waiting)

    def below(self, node: str) -> frozenset[str]:
        """Every node that `node` waits for, directly or not."""
        import networkx as nx

        return frozenset(nx.ancestors(self._graph(), node))

    def above(self, node: str) -> frozenset[str]:
        """Every node that waits for `node`, directly or not."""
        import networkx as nx

        return frozenset(nx.descendants(self._graph(), node))

    def reduced(self) -> tuple[Edge, ...]:
        """The edges without those that follow from others: what a drawing shows."""
        import networkx as nx

        kept = set(nx.transitive_reduction(self._graph()).edges)
        return tuple(edge for edge in self.edges if (edge.source, edge.target) in kept)

    def _graph(self) -> nx.DiGraph[str]:
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from((edge.source, edge.target) for edge in self.edges)
        return graph

    def _cycle(self, graph: nx.DiGraph[str]) -> Iterable[str]:
        import networkx as nx

        path = [source for source, _ in nx.find_cycle(graph)]
        # Start at the node that comes first, so that the report does not depend on where it was found.
        first = path.index(min(path, key=self.nodes.index))
        path = path[first:] + path[:first]
        return [*path, path[0]]
