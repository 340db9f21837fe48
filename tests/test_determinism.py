"""The same seed gives the same bits, in every experiment; another seed gives other numbers."""

import pytest

from run_experiments import EXPERIMENTS
from tests import tiny

COMPILED = ("ddpg_pendulum", "diffcritic_cheetah", "omd_cartpole", "mle_hopper", "tabular_ift")
PYBULLET = [name for name, x in EXPERIMENTS.items() if "pybullet" in x.backends]


def results(name, folder, seeds, *, backend=None, eager=True):
    settings, found = tiny.make(name, backend=backend), []
    for i, seed in enumerate(seeds):
        tiny.run(name, folder / str(i), settings, seed=seed, eager=eager)
        found.append(tiny.result(folder / str(i)))
    return found


def test_every_experiment_can_be_made_tiny():
    for name in EXPERIMENTS:
        assert tiny.make(name).train.num_timesteps < 100


@pytest.mark.slow  # tests/test_resume.py does the same quickly with some, whose runs it has
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_seed_gives_the_same_bits_and_another_one_others(tmp_path, name):
    first, second, other = results(name, tmp_path, (0, 0, 100))
    tiny.assert_same_result(second, first)
    assert sorted(first) == tiny.files_of(name)
    tiny.assert_other_numbers(first, other)


@pytest.mark.parametrize(
    "name",
    [x if x == "ddpg_cheetah" else pytest.param(x, marks=pytest.mark.slow) for x in PYBULLET],
)
def test_a_seed_gives_the_same_bits_on_pybullet(tmp_path, name):
    first, second, other = results(name, tmp_path, (0, 0, 100), backend="pybullet")
    tiny.assert_same_result(second, first)
    tiny.assert_other_numbers(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_it_does_too(tmp_path, name):
    first, second = results(name, tmp_path, (0, 0), eager=False)
    tiny.assert_same_result(second, first)
