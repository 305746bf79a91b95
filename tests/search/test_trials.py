import json

import pytest

from lit_gnncompress.search import Measurement, TrialFile
from lit_gnncompress.search.trials import refuse_other_search

ABOUT = {"space": {"bits": (1, 2)}, "about": {"module": "Tiny", "epochs": 3}}


def written(path, lines=2):
    file = TrialFile(path, ABOUT)
    file.append("baseline", -1, (), Measurement(0.8, 1.0))
    for number in range(lines):
        file.append("measured", number, (1, number), Measurement(0.5 + number, 0.25))
    return file


def test_what_is_appended_is_there_again(tmp_path):
    path = tmp_path / "deep" / "trials.jsonl"
    file = written(path)
    assert TrialFile(path, ABOUT).known == file.known
    assert file.known["measured", 1] == ((1, 1), Measurement(1.5, 0.25))


def test_a_score_that_is_not_finite_is_null(tmp_path):
    path = tmp_path / "trials.jsonl"
    TrialFile(path, ABOUT).append("measured", 0, (1,), Measurement(None))
    assert json.loads(path.read_text().splitlines()[-1])["score"] is None
    assert TrialFile(path, ABOUT).known["measured", 0][1].score is None


@pytest.mark.parametrize("torn", ['{"stage": "meas', '{"stage": "measured"}\x00', "7", "\ufffd"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_torn_last_line_is_dropped(torn, end, tmp_path):
    path = tmp_path / "trials.jsonl"
    file = written(path)
    whole = path.read_bytes()
    path.write_bytes(whole + (torn + end).encode())
    again = TrialFile(path, ABOUT)
    assert again.known == file.known
    assert path.read_bytes() == whole
    again.append("measured", 2, (2, 2), Measurement(0.1))
    assert len(TrialFile(path, ABOUT).known) == 4


@pytest.mark.parametrize("keep", range(0, 120, 7))
def test_a_file_cut_anywhere_is_read(keep, tmp_path):
    path = tmp_path / "trials.jsonl"
    written(path)
    path.write_bytes(path.read_bytes()[:keep])
    TrialFile(path, ABOUT).append("baseline", -1, (), Measurement(0.8))
    assert ("baseline", -1) in TrialFile(path, ABOUT).known


def test_a_broken_line_before_the_end_is_an_error(tmp_path):
    path = tmp_path / "trials.jsonl"
    written(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "{broken", *lines[2:]]) + "\n")
    with pytest.raises(ValueError, match="line 3 is broken"):
        TrialFile(path, ABOUT)


@pytest.mark.parametrize(
    "line",
    [
        {"version": 1},
        {"stage": "guessed", "trial": 0, "bits": [1], "score": 0.5, "seconds": 0},
        {"stage": "measured", "trial": 0, "bits": 1, "score": 0.5, "seconds": 0},
        {"stage": "measured", "trial": None, "bits": [1], "score": "high", "seconds": 0},
    ],
)
def test_a_line_that_is_no_measurement_is_an_error(line, tmp_path):
    path = tmp_path / "trials.jsonl"
    written(path)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=r"trials.jsonl: line 5 is no measurement \(.*Delete"):
        TrialFile(path, ABOUT)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ABOUT | {"space": {"bits": (1, 4)}}, r"space: bits \[1, 2\] there, \[1, 4\] here"),
        (ABOUT | {"about": {"module": "Big", "epochs": 3}}, 'module "Tiny" there, "Big" here'),
    ],
)
def test_another_search_is_refused(other, message, tmp_path):
    path = tmp_path / "trials.jsonl"
    written(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        TrialFile(path, other)
    assert path.read_bytes() == before


def test_what_is_known_early_is_compared_early(tmp_path):
    path = tmp_path / "trials.jsonl"
    other = {"space": {"bits": (1, 2)}, "about": {"module": "Big"}}
    refuse_other_search(path, other)  # no file yet
    written(path)
    refuse_other_search(path, {"space": {"bits": (1, 2)}, "about": {"module": "Tiny"}})
    with pytest.raises(ValueError, match=r'differs in about: module "Tiny" there, "Big" here'):
        refuse_other_search(path, other)
    with pytest.raises(
        ValueError, match=r"differs in settings: seed null there, 1 here\..*dirpath"
    ):
        refuse_other_search(path, {"settings": {"seed": 1}})


def test_nothing_is_written_without_a_path():
    file = written(None)
    assert len(file.known) == 3
