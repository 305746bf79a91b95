"""Graphs for tests of orders."""

import torch


def grid(side):
    """Edges of a square grid, one way."""
    node = torch.arange(side * side).view(side, side)
    right = torch.stack([node[:, :-1].flatten(), node[:, 1:].flatten()])
    down = torch.stack([node[:-1].flatten(), node[1:].flatten()])
    return torch.cat([right, down], 1)


def cliques(count, size):
    """Edges of complete graphs that are not connected, one way."""
    pairs = torch.combinations(torch.arange(size)).T
    first = torch.arange(0, count * size, size)
    return (pairs[:, None] + first[:, None]).flatten(1)


def random_edges(num_nodes, num_edges, seed=0):
    """Edges between any nodes; some are loops, some occur twice."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_nodes, (2, num_edges), generator=generator)


def equal_parts(order, edge_index, level):
    """Share of the edges inside of parts."""
    source, target = order.parts(level)[edge_index]
    return float((source == target).float().mean())
