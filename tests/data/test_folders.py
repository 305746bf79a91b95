from pathlib import Path

from lit_gnncompress.data.folders import ROOT_VARIABLE, Folders


def test_argument_wins_over_variable_wins_over_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "variable"))
    assert Folders.resolve(tmp_path / "argument").raw == tmp_path / "argument"
    assert Folders.resolve().raw == tmp_path / "variable"
    monkeypatch.delenv(ROOT_VARIABLE)
    assert Folders.resolve().raw == Path.home().resolve() / ".cache" / "lit_gnncompress"


def test_processed_files_of_two_roots_do_not_meet(tmp_path):
    first = Folders.resolve(tmp_path / "a", tmp_path / "processed")
    second = Folders.resolve(tmp_path / "b", tmp_path / "processed")
    assert first.processed != second.processed
    assert first.processed.parent == second.processed.parent == tmp_path / "processed"
