"""The data module of Criteo's clicks."""

from __future__ import annotations

from lit_gnncompress.data.clicks import clicks
from lit_gnncompress.data.criteo_files import NUM_CATEGORIES, CriteoFormat
from lit_gnncompress.data.table_data_module import TableDataModule
from lit_gnncompress.data.table_rows import TableRows
from lit_gnncompress.data.table_sources import KnownSources, Sources


class CriteoDataModule(TableDataModule):
    """Serves Criteo's clicks: 13 integers, 26 categories, and whether an advertisement was clicked.

    Batches are :class:`~lit_gnncompress.data.TableBatch`: ``dense`` ``(B, 13)`` float32, ``sparse``
    ``(B, 26)`` int64, ``label`` ``(B,)`` float32. Arguments are those of
    :class:`~lit_gnncompress.data.table_data_module.TableDataModule`.

    Files are read as they are published, plain or compressed with gzip: a line is a label, the
    integers, and the categories as hexadecimal numbers, apart by tabs; any but the label may be
    missing and then counts as 0. An integer ``x`` becomes ``log(1 + max(x, 0))``. All this is what
    ``facebookresearch/dlrm`` does.

    | ``name`` | files |
    |---|---|
    | ``clicks`` | none: 20,000 rows of a hidden model, for trying things out |
    | ``Criteo10k`` | ``sample.train`` and, to predict, ``sample.test``: the first 10,000 rows of \
each part of Kaggle's |
    | ``CriteoKaggle`` | ``train.txt`` (45.8 million rows of 7 days) and, to predict, ``test.txt`` |
    | ``CriteoTerabyte`` | ``day_0`` to ``day_22``, and ``day_23`` to test |

    Example:
        One day of Terabyte, rare categories hashed to a thousand rows of each table::

            CriteoDataModule(path="day_0.gz", min_frequency=10, hash_buckets=1000)
    """

    num_fields = NUM_CATEGORIES
    known = KnownSources(
        {
            "Criteo10k": {"train": ["sample.train"], "unlabelled": ["sample.test"]},
            "CriteoKaggle": {"train": ["train.txt"], "unlabelled": ["test.txt"]},
            "CriteoTerabyte": {
                "train": [f"day_{day}" for day in range(23)],
                "test": ["day_23"],
            },
        },
        "Criteo's AI lab (ailab.criteo.com), whose terms apply",
    )

    def _form(self, sources: Sources) -> CriteoFormat:
        return CriteoFormat()

    def _generated(self) -> TableRows:
        return clicks()
