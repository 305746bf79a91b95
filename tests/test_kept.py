import gc
import weakref

import torch

from lit_gnncompress.kept import kept


class Worked:
    pass


def test_it_is_worked_out_once_for_each_key():
    owner, other = torch.ones(3), torch.ones(3)
    first = kept(owner, "sum", Worked)
    assert kept(owner, "sum", Worked) is first
    assert kept(owner, "mean", Worked) is not first
    assert kept(other, "sum", Worked) is not first


def test_after_a_write_it_is_worked_out_anew():
    owner = torch.ones(3)
    first = kept(owner, "sum", Worked)
    owner.add_(1)
    assert kept(owner, "sum", Worked) is not first


def test_it_is_forgotten_with_its_owner():
    owner = torch.ones(3)
    known = weakref.ref(kept(owner, "sum", Worked))
    del owner
    gc.collect()
    assert known() is None


def test_tensors_of_inference_mode_keep_nothing():
    with torch.inference_mode():
        owner = torch.ones(3)
        first = kept(owner, "sum", Worked)
        assert kept(owner, "sum", Worked) is not first


def test_what_inference_works_out_serves_training():
    owner = torch.ones(3)
    with torch.inference_mode():
        double = kept(owner, "double", lambda: owner * 2)
    assert not double.is_inference()


def test_an_owner_need_not_be_a_tensor():
    owner = Worked()
    assert kept(owner, "sum", Worked) is kept(owner, "sum", Worked)


def test_nothing_found_is_kept_too():
    owner, calls = torch.ones(3), []
    for _ in range(2):
        kept(owner, "none", lambda: calls.append(1))
    assert len(calls) == 1
