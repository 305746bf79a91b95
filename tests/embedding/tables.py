"""What tests of tables need: orders, and the table that cores stand for."""

import functools

import torch

from lit_gnncompress.embedding.node_order import NodeOrder


def random_order(num_nodes, rows, seed=0, graph_hash=None):
    """Nodes in random places."""
    generator = torch.Generator().manual_seed(seed)
    capacity = functools.reduce(lambda a, b: a * b, rows)
    place = torch.randperm(capacity, generator=generator)[:num_nodes]
    return NodeOrder(rows=tuple(rows), place=place, method="random", graph_hash=graph_hash)


def table_of(cores):
    """All rows by the definition: the product of slices, digit after digit."""
    rows = [core.size(0) for core in cores]
    table = []
    for i in range(functools.reduce(lambda a, b: a * b, rows)):
        digits = []
        for p in reversed(rows):
            i, digit = divmod(i, p)
            digits.insert(0, digit)
        row = cores[0].new_ones(1, 1)
        for core, digit in zip(cores, digits, strict=True):
            row = torch.einsum("ca,aqb->cqb", row, core[digit]).flatten(0, 1)
        table.append(row[:, 0])
    return torch.stack(table)
