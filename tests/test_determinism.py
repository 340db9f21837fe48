"""The same seed gives the same bits, in every experiment; another seed gives other numbers."""

import numpy as np
import pytest

from run_experiments import EXPERIMENTS
from tests import tiny

QUICK = ("diffcritic_cheetah", "omd_cartpole", "mle_hopper", "tabular_ift")
RUN = ["eval.csv", "metrics.csv", "weights.npz"]
PYBULLET = [name for name, x in EXPERIMENTS.items() if "pybullet" in x.backends]


def marked(names, quick):
    return [x if x in quick else pytest.param(x, marks=pytest.mark.slow) for x in names]


def results(name, folder, seeds, *, backend=None, eager=True):
    settings, found = tiny.make(name, backend=backend), []
    for i, seed in enumerate(seeds):
        tiny.run(name, folder / str(i), settings, seed=seed, eager=eager)
        found.append(tiny.result(folder / str(i)))
    return found


def assert_other_numbers(one, other):
    """In every table, and in weights."""
    for (file, content), others in zip(one.items(), other.values(), strict=True):
        if isinstance(content, dict):
            assert not all(np.array_equal(content[part], others[part]) for part in content), file
        else:
            assert content != others, file


@pytest.mark.parametrize("name", marked(EXPERIMENTS, QUICK))
def test_a_seed_gives_the_same_bits_and_another_one_others(tmp_path, name):
    first, second, other = results(name, tmp_path, (0, 0, 100))
    tiny.assert_same_result(second, first)
    files = ["metrics.csv", "results.csv"] if tiny.family(name) == "tabular" else RUN
    assert sorted(first) == sorted(files)
    assert_other_numbers(first, other)


@pytest.mark.parametrize("name", marked(PYBULLET, ("ddpg_cheetah",)))
def test_a_seed_gives_the_same_bits_on_pybullet(tmp_path, name):
    first, second, other = results(name, tmp_path, (0, 0, 100), backend="pybullet")
    tiny.assert_same_result(second, first)
    assert_other_numbers(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpg_pendulum", *QUICK])
def test_compiled_it_does_too(tmp_path, name):
    first, second = results(name, tmp_path, (0, 0), eager=False)
    tiny.assert_same_result(second, first)
