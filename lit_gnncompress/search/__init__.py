"""The search for bits, over any function that measures a plan."""

from lit_gnncompress.search.cost_model import CostModel, RandomProposer
from lit_gnncompress.search.search import Job, Search, SearchResult, search
from lit_gnncompress.search.space import Dimension, SiteSize, Space
from lit_gnncompress.search.trials import Measurement, Trial, TrialFile

__all__ = [
    "CostModel",
    "Dimension",
    "Job",
    "Measurement",
    "RandomProposer",
    "Search",
    "SearchResult",
    "SiteSize",
    "Space",
    "Trial",
    "TrialFile",
    "search",
]
