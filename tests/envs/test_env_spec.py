import dataclasses
import json
import math

import pytest

from envs import CONTINUOUS_TASKS, TASKS, ConfigError, EnvSpec, backends_of, default_ensemble
from envs.ensemble import Ensemble
from envs.errors import check_known
from envs.grid import grid_values
from envs.physics import limits, parse_physics
from envs.spec import NOMINAL_MASS, ORIGINALS


def test_what_is_possible_for_a_parameter():
    assert limits("mass/foot") == limits("friction") == (0, math.inf)
    assert limits("slope") == (-90, 90)
    assert limits("one_of_ones_own") == (-math.inf, math.inf)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ConfigError) as caught:
        check_known("parameter", "torso_mas", ["torso_mass", "friction"])
    assert str(caught.value) == (
        "unknown parameter 'torso_mas'; did you mean 'torso_mass'? known: friction, torso_mass"
    )
    with pytest.raises(ConfigError, match="^unknown task 'xyz'; known: ant$"):
        check_known("task", "xyz", ["ant"])
    with pytest.raises(ConfigError, match="^unknown task 'xyz'; known: none$"):
        check_known("task", "xyz", [])


def test_of_many_known_names_the_nearest_twelve_are_listed():
    names = [f"alpha{i}" for i in range(12)] + [f"zz{i}" for i in range(30)]
    with pytest.raises(ConfigError) as caught:
        check_known("task", "alpha99", names)
    known = str(caught.value).partition("known: ")[2]
    assert known == ", ".join(sorted(names[:12])) + " and 30 more"


def test_spec_survives_json():
    spec = EnvSpec("cheetah", "mujoco", ensemble="torso_mass:6,1.5,3,9", distractors=3)
    assert EnvSpec(**json.loads(json.dumps(dataclasses.asdict(spec)))) == spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "chetah"}, "did you mean 'cheetah'"),
        ({"backend": "bullet"}, "did you mean 'pybullet'"),
        ({"task": "pendulum"}, "known: classic"),
        ({"ensemble": "torso_mas:6,1.5,3,9"}, "did you mean 'torso_mass'"),
        ({"ensemble": "torso_mass:6,1.5,3"}, "name:mean,std,low,high"),
        ({"ensemble": "torso_mass:6,x,3,9"}, "name:mean,std,low,high"),
        ({"ensemble": "torso_mass:6,1.5,-3,9"}, "must be positive"),
        ({"ensemble": "friction:1,1,-1,2"}, "must be >= 0"),
        ({"ensemble": "slope:0,10,-90,90"}, "between -90 and 90"),
        ({"ensemble": "torso_mass:6,1,3,9;torso_mass:6,1,3,9"}, "twice"),
        ({"ensemble": "torso_mass:6,1,3,9", "physics": "torso_mass=4"}, "leave one out"),
        ({"ensemble": "torso_mass:6,1,3,9", "physics": "mass/torso=4"}, "same body"),
        ({"physics": "torso_mass"}, "name:value"),
        ({"physics": "torso_mass=nan"}, "must be finite"),
        ({"physics": "torso_mass=0"}, "must be positive"),
        ({"physics": "torso_mass=1,torso_mass=2"}, "twice"),
        ({"physics": "length=2"}, "unknown parameter of cheetah on mujoco 'length'"),
        ({"backend": "pybullet", "physics": "armature=2"}, "cheetah on pybullet 'armature'"),
        ({"physics": "floor_friction=-1"}, "floor_friction must be >= 0"),
        ({"physics": "floor_friction=1,friction=1"}, "set it or floor_friction, not both"),
        ({"backend": "pybullet", "physics": "floor_friction=1"}, "pybullet 'floor_friction'"),
        ({"ensemble": "torso_mass:3,9,6"}, "name:mean,std,low,high' or 'name:low,high'"),
        ({"ensemble": "torso_mass:9,3"}, "low < high"),
        ({"ensemble": "torso_mass:-1,3"}, "must be positive"),
        ({"ensemble": "rrls4"}, "did you mean"),
        ({"ensemble": "rrls2", "backend": "pybullet"}, "set of mujoco's robots"),
        ({"ensemble": "rrls2", "task": "ant"}, "unknown robot with uncertainty sets 'ant'"),
        ({"bare_mass": True, "backend": "pybullet"}, "bare_mass is mujoco's alone: pybullet"),
        ({"bare_mass": 1}, "bare_mass must be of type bool, not 1"),
        ({"ensemble_size": 5}, "needs an ensemble"),
        ({"target": "torso_mass=7"}, "which ensemble does not vary"),
        ({"target": "friction=1", "ensemble": "torso_mass:6,1,3,9"}, "target names 'friction'"),
        ({"target": "torso_mass=0", "ensemble": "torso_mass:6,1,3,9"}, "must be positive"),
        ({"target": "slope=7", "ensemble": "slope:0,5"}, "a uniform slope cannot move"),
        (
            {"target": "slope=7", "ensemble": "slope:0,1,-9,9", "ensemble_size": 2},
            "robots that return cannot move",
        ),
        (
            {"target": "reward_offset=1", "ensemble": "reward_offset:0,1,-9,9"},
            "which observations do not show",
        ),
        ({"ensemble_size": -1}, "ensemble_size must be at least 0, not -1"),
        ({"distractors": 1.5}, "distractors must be of type int, not 1.5"),
        ({"distractors": True}, "distractors must be of type int, not True"),
        ({"action_noise": -0.1}, "action_noise must be at least 0, not -0.1"),
        ({"observation_noise": float("nan")}, "observation_noise must be at least 0, not nan"),
        (
            {"task": "cartpole", "backend": "classic", "action_noise": 0.1},
            "action_noise must be 0: cartpole's actions are discrete",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(fields, message):
    with pytest.raises(ConfigError) as caught:
        EnvSpec(**({"task": "cheetah", "backend": "mujoco"} | fields))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["pendulum", "cartpole"])
def test_classic_tasks_have_no_bodies(task):
    with pytest.raises(ConfigError, match="mass/torso"):
        EnvSpec(task, "classic", physics="mass/torso=2")


@pytest.mark.parametrize(
    ("task", "wrong", "known"),
    [
        ("pendulum", "pole_mass", "known: length, mass, reward_offset"),
        ("cartpole", "length", "known: cart_mass, pole_length, pole_mass, reward_offset"),
        ("cartpole", "mass", "known: cart_mass, pole_length, pole_mass, reward_offset"),
    ],
)
def test_each_classic_task_has_its_own_parameters(task, wrong, known):
    for fields in ({"physics": f"{wrong}=0.5"}, {"ensemble": f"{wrong}:1,0.1,0.5,1.5"}):
        with pytest.raises(ConfigError, match=f"of {task} on classic '{wrong}'.*{known}"):
            EnvSpec(task, "classic", **fields)


def test_named_sets_are_written_out():
    spec = EnvSpec("hopper", "mujoco", ensemble="rrls2")
    assert spec.ensemble == "floor_friction:0.1,3;torso_mass:0.1,3"
    assert dataclasses.replace(spec, distractors=1).ensemble == spec.ensemble


@pytest.mark.parametrize("text", ["torso_mass:7.5;friction:0.8", " torso_mass=7.5, friction=0.8 "])
def test_one_grammar_and_its_older_spelling(text):
    assert parse_physics(text) == {"torso_mass": 7.5, "friction": 0.8}
    assert parse_physics("") == {}
    ensemble = Ensemble.parse("torso_mass:6,1.5,3,9;friction:0.5,1.5")
    assert Ensemble.parse("torso_mass = 6,1.5,3,9 , friction:0.5,1.5") == ensemble


def test_backends():
    assert TASKS == ("cheetah", "hopper", "walker", "ant", "pendulum", "cartpole")
    assert (*CONTINUOUS_TASKS, "cartpole") == TASKS
    assert backends_of("cheetah") == ("mujoco", "pybullet")
    assert backends_of("pendulum") == ("classic",)
    with pytest.raises(ConfigError, match="unknown task"):
        backends_of("dog")


@pytest.mark.parametrize("task", ["cheetah", "hopper"])
def test_default_ensemble_on_mujoco_is_epopts(task):
    assert default_ensemble(task, "mujoco") == "torso_mass:6,1.5,3,9"


@pytest.mark.parametrize(("task", "backend"), ORIGINALS)
def test_defaults_make_valid_specs(task, backend):
    spec = EnvSpec(task, backend, ensemble=default_ensemble(task, backend))
    ((name, one),) = Ensemble.parse(spec.ensemble).items()
    assert name == {"pendulum": "mass", "cartpole": "pole_mass"}.get(task, "torso_mass")
    if one.mean != 6:
        mass = NOMINAL_MASS[task, backend]
        wanted = (mass, mass / 4, mass / 2, mass * 1.5)
        assert dataclasses.astuple(one) == pytest.approx(wanted, rel=1e-5)
    grid = grid_values(name, one.low, one.high)
    assert sum(one.low <= mass <= one.high for mass in grid) == 5
    assert grid[0] < one.low < one.high < grid[-1]


def test_defaults_reject_a_wrong_pair():
    with pytest.raises(ConfigError, match="backend of pendulum"):
        default_ensemble("pendulum", "mujoco")
