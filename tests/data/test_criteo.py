import pytest

from benchmarks.criteo_rows import write_criteo
from lit_gnncompress.data import CriteoDataModule


def test_the_default_needs_no_file():
    data = CriteoDataModule()
    data.setup("fit")
    assert str(data) == "CriteoDataModule('clicks', 20,000 rows, 2,010 categories)"
    assert (data.num_dense, len(data.num_embeddings)) == (13, 26)
    batch = next(iter(data.train_dataloader()))
    assert batch.dense.shape == (2048, 13)
    assert batch.sparse.shape == (2048, 26)
    sizes = [len(list(loader)) for loader in (data.val_dataloader(), data.test_dataloader())]
    assert sizes == [1, 1]
    assert sum(len(batch.label) for batch in data.predict_dataloader()) == 20_000


@pytest.fixture
def day(tmp_path):
    write_criteo(tmp_path / "day_0", 500, (50, *([5] * 25)))
    return tmp_path / "day_0"


def test_files_of_ones_own(day, tmp_path):
    lines = day.read_text().splitlines(keepends=True)
    predict = tmp_path / "unlabelled"
    predict.write_text("".join(line.partition("\t")[2] for line in lines[:20]))
    data = CriteoDataModule(
        path=[str(day)], test_path=day, predict_path=predict, processed_dir=tmp_path, batch_size=100
    )
    data.prepare_data()
    assert (data.rows.num_train, data.rows.num_test) == (500, 500)
    assert data.split.test == slice(500, 1000)
    (batch,) = data.predict_dataloader()
    assert (batch.sparse.numpy() == data.rows.sparse[:20]).all()
    assert batch.label.isnan().all()
    drawn = CriteoDataModule(path=day, test_path=day, processed_dir=tmp_path, test_share=0.2)
    assert drawn.split.test == slice(800, 1000)
    folds = CriteoDataModule(path=day, test_path=day, processed_dir=tmp_path, folds=5, fold=1)
    assert [len(part) for part in folds.split] == [600, 200, 200]


def test_nothing_to_validate_is_no_loader(day, tmp_path):
    data = CriteoDataModule(path=day, processed_dir=tmp_path, val_share=0, test_share=0)
    assert data.val_dataloader() == data.test_dataloader() == []
    assert sum(len(batch.label) for batch in data.train_dataloader()) == 500


def test_bad_rows_are_skipped_on_request(day, tmp_path):
    day.write_text(day.read_text() + "0\t1\n")
    with pytest.raises(ValueError, match=r"day_0, line 501: 2 fields"):
        CriteoDataModule(path=day, processed_dir=tmp_path).setup("fit")
    data = CriteoDataModule(path=day, processed_dir=tmp_path, on_bad_rows="skip")
    with pytest.warns(UserWarning, match=r"1 of 501 lines are no rows"):
        assert data.skipped_rows == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Avazu"}, r"name='Avazu' is unknown. Known: clicks, Criteo10k, .* `path=`"),
        ({"batch_size": 0}, r"batch_size=0 must be at least 1"),
        ({"eval_batch_size": 0}, r"eval_batch_size=0 must be"),
        ({"fold": 1}, r"fold=1 needs folds"),
        ({"on_bad_rows": "drop"}, r"on_bad_rows='drop' is unknown: choose 'error' or 'skip'"),
        ({"test_path": "day_1"}, r"test_path and predict_path go with path"),
        ({"max_categories": [5]}, r"max_categories has 1 numbers, but there are 26 fields"),
        ({"min_frequency": 0}, r"min_frequency=0 must be at least 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CriteoDataModule(**arguments)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sample.train is missing, .*Criteo's AI lab"):
        CriteoDataModule("criteo10K", root=tmp_path).setup("fit")
    with pytest.raises(
        FileNotFoundError, match=r"test_path: there is no file .*day_9, nor day_9.gz"
    ):
        CriteoDataModule(path=__file__, test_path=tmp_path / "day_9").setup("fit")
    with pytest.raises(IsADirectoryError, match=r"path: .* is a folder: name the files in it"):
        CriteoDataModule(path=tmp_path).setup("fit")


def test_criteo10k_is_what_it_is(real_root, tmp_path):
    data = CriteoDataModule("criteo10k", root=real_root, processed_dir=tmp_path)
    assert (data.rows.num_train, len(data.rows)) == (10_000, 20_000)
    assert int(data.rows.label.sum()) == 2182
    assert sum(data.num_embeddings) == 43_617
    rare = CriteoDataModule("criteo10k", real_root, processed_dir=tmp_path, min_frequency=5)
    assert sum(rare.num_embeddings) < 6000
