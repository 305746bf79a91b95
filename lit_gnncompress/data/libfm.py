"""The data module of files in the format of libFM."""

from __future__ import annotations

from lit_gnncompress.data.clicks import clicks
from lit_gnncompress.data.libfm_files import LibFMFormat
from lit_gnncompress.data.table_data_module import TableDataModule
from lit_gnncompress.data.table_rows import TableRows
from lit_gnncompress.data.table_sources import KnownSources, Sources


class LibFMDataModule(TableDataModule):
    """Serves rows of categories from files in the format of libFM.

    Batches are :class:`~lit_gnncompress.data.TableBatch`: ``dense`` ``(B, 0)`` float32, ``sparse``
    ``(B, F)`` int64, ``label`` ``(B,)`` float32. Arguments are those of
    :class:`~lit_gnncompress.data.table_data_module.TableDataModule`.

    A line is ``label index:1 index:1 …``. The first index belongs to the first field, and so on;
    each field has a table of its own, for the indices that occur in it.

    | ``name`` | files |
    |---|---|
    | ``clicks`` | none: 20,000 rows of a hidden model, for trying things out |
    | ``Frappe`` | ``frappe.validation.libfm``, ``frappe.test.libfm``: 86,582 rows of 10 fields, \
split anew: not comparable with published results |
    | ``iPinYou`` | ``train.fm.txt`` and, to test, ``test.fm.txt``: 47,923 rows of 16 fields, 305 \
of them clicks |
    """

    known = KnownSources(
        {
            "Frappe": {"train": ["frappe.validation.libfm", "frappe.test.libfm"]},
            "iPinYou": {"train": ["train.fm.txt"], "test": ["test.fm.txt"]},
        },
        "hexiangnan/neural_factorization_machine (Frappe) or wnzhang/deep-ctr (iPinYou) on GitHub",
    )

    def _form(self, sources: Sources) -> LibFMFormat:
        return LibFMFormat.of(sources.train[0])

    def _generated(self) -> TableRows:
        return clicks(num_dense=0)
