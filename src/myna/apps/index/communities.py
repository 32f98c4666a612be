"""Which things of a graph belong together: label propagation (Raghavan, Albert, Kumara 2007), made deterministic.

Everybody takes the label that weighs most among its neighbours, one after the other, until nobody changes. Who is next and which of
equal labels wins is decided by hashes of the nodes, another each round: as good as chance, and the same for the same graph, in
whatever order it was written. An edge counts once more for every neighbour that its two ends share: without that, a few stray edges
between two groups make them one.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable

ROUNDS = 50  # none of the graphs here took more than 12


def communities(edges: Iterable[tuple[str, str, float]]) -> list[list[str]]:
    """Of an undirected graph, the largest first; nodes in order. Edges between the same two nodes add up."""
    near: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for a, b, weight in edges:
        if a != b:
            near[a][b] += weight
            near[b][a] += weight
    nodes = sorted(near)
    pull = {a: {b: near[a][b] * (1 + len(near[a].keys() & near[b].keys())) for b in near[a]} for a in nodes}
    label = {node: node for node in nodes}
    for turn in range(ROUNDS):
        moved, chance = 0, {node: hashlib.sha256(f"{turn} {node}".encode()).digest() for node in nodes}
        for node in sorted(nodes, key=lambda one: chance[one]):
            votes: defaultdict[str, float] = defaultdict(float)
            for other, weight in sorted(pull[node].items()):
                votes[label[other]] += weight
            best = min(votes, key=lambda one: (-votes[one], one != label[node], chance[one]))
            moved += best != label[node]
            label[node] = best
        if not moved:
            break
    found: defaultdict[str, list[str]] = defaultdict(list)
    for node in nodes:
        found[label[node]].append(node)
    return sorted(found.values(), key=lambda group: (-len(group), group))
