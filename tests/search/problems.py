"""Problems whose answer is known: drops that follow from bits by a formula."""

import math

import numpy as np

from lit_gnncompress import BitPlan, Site
from lit_gnncompress.search import SiteSize, Space

FULL = 0.8


def space(layers=3, buckets=3, **arguments):
    """Features and attention of some layers; 18 dimensions by default."""
    rows = [600, 1500, 900][:buckets]
    sites = []
    for layer in range(layers):
        width = 1000 if layer == 0 else 32
        sites.append(SiteSize(Site(f"convs.{layer}", "features"), tuple(r * width for r in rows)))
        sites.append(SiteSize(Site(f"convs.{layer}", "attention"), tuple(5 * r for r in rows)))
    arguments = {"group": "bucket", "degree_splits": [4, 16][: buckets - 1]} | arguments
    return Space(sites, **arguments)


class Additive:
    """Accuracy that sinks with the noise of each dimension; some are a hundred times sensitive."""

    def __init__(self, space, seed=0):
        self.space = space
        rng = np.random.default_rng(seed)
        self.weights = np.exp(rng.normal(-3.0, 1.5, len(space.dimensions)))
        self.calls = []

    def __call__(self, plan):
        self.calls.append(plan)
        if plan == BitPlan():
            return FULL
        bits = np.array(self.space.point(plan), dtype=float)
        loss = float((self.weights * 4.0**-bits).sum())
        return math.floor(500 * (FULL - loss / (1 + loss))) / 500  # of 500 nodes
