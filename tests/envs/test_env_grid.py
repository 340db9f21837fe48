"""The robots that a policy is judged on."""

import pytest

from envs import Ensemble, is_inside, robots_of, sweeps, training_ranges
from envs.grid import grid_values
from envs.physics import check_value


def grid_of(text):
    return robots_of(sweeps(Ensemble.parse(text)))


def test_nine_masses_reach_beyond_the_training_range():
    # Low 3 halved is 1.5; high 9 times 1.5 is 13.5; the step is (13.5 - 1.5) / 8 = 1.5.
    masses = (1.5, 3.0, 4.5, 6.0, 7.5, 9.0, 10.5, 12.0, 13.5)
    for name in ("torso_mass", "mass/torso"):
        assert grid_of(f"{name}:6,1.5,3,9") == [{name: mass} for mass in masses]


def test_friction_is_judged_inside_and_outside_of_what_was_varied():
    ensemble = Ensemble.parse("friction:1,0.2,0.5,1.5;reward_offset:0,10,-30,30")
    robots, ranges = robots_of(sweeps(ensemble)), training_ranges(ensemble)
    # 0.25 to 2.25 by 0.25, no reward_offset.
    assert robots == [{"friction": 0.25 * k} for k in range(1, 10)]
    assert [is_inside(robot, ranges) for robot in robots] == [0, 1, 1, 1, 1, 1, 0, 0, 0]


def test_an_ensemble_of_no_physics_has_no_grid():
    assert grid_of("reward_offset:0,10,-30,30") == grid_of("") == []


def test_what_may_be_negative_goes_beyond_both_ends():
    # Half of the width of 20 beyond each end: -20 to 20 by 5.
    assert grid_values("slope", -10, 10) == tuple(range(-20, 21, 5))
    assert grid_values("head_wind", 0, 8) == tuple(range(-4, 13, 2))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("slope", -89.9, 89.9999999), ("slope", 60, 80), ("friction", 0.0, 1.0),
        ("floor_friction", 0.1, 3.0), ("damping", 0.0, 1e-7), ("mass/foot", 1e-7, 2e-7),
    ],
)  # fmt: skip
def test_impossible_values_are_not_judged_on(name, low, high):
    values = grid_values(name, low, high)
    for value in values:
        check_value(name, value)
    assert len(set(values)) == 9 and values[-1] > high and (values[0] < low or low == 0)


def test_several_parameters_are_swept_in_turn_about_their_medians():
    text = "torso_mass:6,1.5,3,9;slope:-5,11;reward_offset:0,10,-30,30"
    ensemble = Ensemble.parse(text)
    robots, ranges = robots_of(sweeps(ensemble)), training_ranges(ensemble)
    masses, slopes = range(3, 28, 3), range(-13, 20, 4)  # medians: 6 kg and 3 degrees
    wanted = [(mass / 2, 3) for mass in masses] + [(6, slope) for slope in slopes if slope != 3]
    assert [(robot["torso_mass"], robot["slope"]) for robot in robots] == wanted
    assert all(list(robot) == ["torso_mass", "slope"] for robot in robots)
    # Inside: 3 to 9 kg at 3 degrees, and -5, -1, 7 and 11 degrees at 6 kg.
    assert sum(is_inside(robot, ranges) for robot in robots) == 5 + 4
    assert not is_inside({"torso_mass": 6, "slope": 12}, ranges)
    assert not is_inside({"torso_mass": 10, "slope": 3}, ranges)


def test_the_ends_are_inside_however_the_simulator_rounds_them():
    ranges = {"slope": (-10.0, 10.0)}
    assert is_inside({"slope": 10 * (1 + 1e-15)}, ranges)
    assert is_inside({"slope": -10 * (1 + 1e-15)}, ranges)
    assert not is_inside({"slope": 10.01}, ranges)
