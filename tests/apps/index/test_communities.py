"""Label propagation: planted groups are found, and nothing but the graph decides."""

import random
from itertools import combinations

import pytest

from myna.apps.index.communities import communities

networkx = pytest.importorskip("networkx")


def planted(
    seed: int, groups: int = 6, size: int = 12, inside: float = 0.7, between: float = 0.02
) -> list[tuple[str, str, float]]:
    draw = random.Random(seed)
    nodes = [f"{g}-{n:02}" for g in range(groups) for n in range(size)]
    return [(a, b, 1.0) for a, b in combinations(nodes, 2) if draw.random() < (inside if a[0] == b[0] else between)]


@pytest.mark.parametrize("seed", range(8))
def test_planted_groups_are_found_and_the_order_of_edges_does_not_matter(seed: int) -> None:
    edges = planted(seed)
    found = communities(edges)
    pure = sum(max(sum(node[0] == g for node in group) for g in "012345") for group in found)
    assert pure / sum(map(len, found)) > 0.95
    shuffled = [(b, a, weight) for a, b, weight in random.Random(seed).sample(edges, len(edges))]
    assert communities(shuffled) == found


def test_divisions_are_on_average_as_good_as_networkx_makes_them() -> None:
    ours, theirs = [], []
    for seed in range(12):
        edges = planted(seed, inside=0.5, between=0.03)
        graph = networkx.Graph([(a, b) for a, b, _ in edges])
        ours.append(networkx.community.modularity(graph, map(set, communities(edges))))
        theirs.append(networkx.community.modularity(graph, networkx.community.label_propagation_communities(graph)))
    assert sum(ours) / 12 >= sum(theirs) / 12


def test_every_node_is_in_one_group_and_groups_do_not_cross_where_no_edge_does() -> None:
    edges = [*planted(1), ("x", "y", 1.0), ("z", "z", 5.0)]
    graph = networkx.Graph([(a, b) for a, b, _ in edges])
    found = communities(edges)
    nodes = [node for group in found for node in group]
    assert sorted(nodes) == sorted(set(graph.nodes) - {"z"})
    parts = list(networkx.connected_components(graph))
    assert all(any(set(group) <= part for part in parts) for group in found)
    assert communities([]) == []
