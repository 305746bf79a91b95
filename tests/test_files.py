import pytest

from lit_gnncompress.files import replacing


def test_a_file_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "report.json"
    for text in ("first", "second"):
        with replacing(path) as unfinished:
            unfinished.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_former_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("first")

    def fail():
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
