import pytest

from lit_gnncompress.data import LibFMDataModule


def test_libfm_default_has_no_numbers():
    data = LibFMDataModule()
    assert data.num_dense == 0
    assert next(iter(data.train_dataloader())).dense.shape == (2048, 0)


@pytest.mark.parametrize(
    ("name", "train", "test", "sizes"),
    [
        ("Frappe", 86_582, 0, [914, 4083, 8, 8, 3, 4, 3, 10, 77, 228]),
        ("iPinYou", 26_773, 21_150, [3, 24, 10, 19271, 35, 359, 2, 279, 302, 2, 2, 4, 2, 3, 2, 5]),
    ],
)
def test_published_libfm_files(name, train, test, sizes, real_root, tmp_path):
    data = LibFMDataModule(name, root=real_root, processed_dir=tmp_path)
    assert (data.rows.num_train, data.rows.num_test) == (train, test)
    assert data.num_embeddings == sizes
