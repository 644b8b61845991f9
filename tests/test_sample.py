"""Of sweeps those cases run that a seed names, and all seeds together run all of them."""

from __future__ import annotations

from tests.support.sample import sampled

IDS = [f"a.py::test_wide[{n}]" for n in range(5 * 12)] + [f"a.py::test_few[{n}]" for n in "xyz"]


def test_each_sweep_has_its_share_and_one_case_at_least():
    drawn = sampled(IDS, 1, 12)
    assert sum("wide" in id for id in drawn) == 5 and sum("few" in id for id in drawn) == 1
    drawn = sampled(IDS, 1, 2)
    assert sum("wide" in id for id in drawn) == 30 and sum("few" in id for id in drawn) == 1


def test_a_seed_draws_the_same_again_whatever_else_there_is():
    few = IDS[-3:]
    assert sampled(few, 3, 12) == sampled(IDS, 3, 12) & set(few)


def test_seeds_reach_everything():
    assert set.union(*(sampled(IDS, seed, 12) for seed in range(100))) == set(IDS)
