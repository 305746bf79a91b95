import numpy as np
import pytest
import torch

from lit_gnncompress.data import available_interactions, load_interactions
from lit_gnncompress.data.interactions_files import communities, load_folder, read_interactions


def write(folder, name, text):
    file = folder / name
    file.write_text(text)
    return file


def test_lines_of_users_are_read(tmp_path):
    file = write(tmp_path, "any.txt", "2 1 0\n0 3\n\n1\n2, 5,1\n")
    assert read_interactions(file).tolist() == [[0, 2, 2, 2], [3, 0, 1, 5]]


def test_pairs_are_read_without_what_follows(tmp_path):
    file = write(tmp_path, "ratings.csv", "1,4,5.0,978300760\n0,2,3.5,978302109\n")
    with pytest.raises(ValueError, match=r"ratings.csv, line 1: '1,4,5.0"):
        read_interactions(file)
    assert read_interactions(file, pairs=True).tolist() == [[0, 1], [2, 4]]


@pytest.mark.parametrize("line", ["0 -1", "-3 1", "user item", "0 1.5", "0 2147483648"])
def test_what_is_no_id_is_refused_with_its_line(line, tmp_path):
    file = write(tmp_path, "train.txt", f"0 1\n{line}\n")
    with pytest.raises(ValueError, match=rf"train.txt, line 2: '{line}' .* whole numbers from 0"):
        read_interactions(file)


def test_what_is_no_text_is_refused_with_its_line(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"0 1\n0 \xff\n")
    with pytest.raises(ValueError, match=r"train.txt, line 2: '0 \ufffd' is not a user and items"):
        read_interactions(tmp_path / "train.txt")


@pytest.mark.parametrize("text", ["", "0\n1\n"])
def test_nothing_to_read_is_refused(text, tmp_path):
    file = write(tmp_path, "train.txt", text)
    with pytest.raises(ValueError, match=r"train.txt holds no interaction: a line is `user item"):
        read_interactions(file)


def test_a_folder_has_its_parts_and_a_file_is_all(tmp_path):
    write(tmp_path, "train.txt", "0 1 2\n")
    assert load_folder(tmp_path).parts.keys() == {"train"}
    write(tmp_path, "test.txt", "0 3\n1\n")  # the second has nothing to test
    parts = load_folder(tmp_path).parts
    assert parts.keys() == {"train", "test"}
    assert parts["test"].tolist() == [[0], [3]]
    assert load_folder(tmp_path / "train.txt").train.tolist() == [[0, 0], [1, 2]]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no train.txt: give a file"):
        load_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere' is neither a file nor a folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"Gowalla.train.txt is missing. .*LightGCNpp"):
        load_interactions("gowalla", tmp_path)
    with pytest.raises(ValueError, match=r"named 'Yelp'. Known: communities, Gowalla, .*`path=`"):
        load_interactions("Yelp")


def test_communities_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, second, other = communities(), communities(), communities(seed=1)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert (int(first[0].max()), int(first[1].max())) == (399, 299)


def test_members_of_a_community_choose_alike():
    users, items = communities(loyalty=1.0)
    chosen = torch.zeros(400, 300)
    chosen[users, items] = 1
    alike = (chosen @ chosen.T > 0).float()
    assert torch.equal((alike @ alike > 0).float(), alike)  # whoever shares an item shares a home
    assert alike.mean() < 0.2


def test_communities_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"num_items=5 must be at least num_communities=10"):
        communities(num_items=5)
    with pytest.raises(ValueError, match=r"must be at least 1"):
        communities(num_users=0)


@pytest.mark.parametrize(
    ("name", "users", "items", "train", "valid", "test"),
    [
        ("Gowalla", 29858, 40981, 719081, 91047, 217242),
        ("MovieLens1M", 6022, 3043, 796244, None, 99455),
    ],
)
def test_published_sizes(name, users, items, train, valid, test, real_root):
    assert name in available_interactions()
    found = load_interactions(name.upper(), real_root)
    sizes = [None if part is None else part.size(1) for part in (found.train, found.valid)]
    assert [*sizes, found.test.size(1)] == [train, valid, test]
    every = torch.cat(list(found.parts.values()), dim=1)
    assert (every.amax(1) + 1).tolist() == [users, items]
