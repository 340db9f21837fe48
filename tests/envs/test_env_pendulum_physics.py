import numpy as np
import pytest

from envs import ConfigError, EnvSpec, find_robot, make_env


def make(physics=""):
    robot = find_robot(make_env(EnvSpec("pendulum", "classic", physics=physics), training=True))
    robot.reset(seed=0)
    return robot


@pytest.mark.parametrize(("mass", "length"), [(1.0, 1.0), (2.0, 1.0), (0.5, 1.5)])
def test_acceleration_under_a_torque(mass, length):
    """A rod about its end: 3 torque / (m l^2), over a step of 0.05 s; upright, gravity is 0."""
    robot = make(f"mass={mass},length={length}")
    robot.physics.set_state(np.zeros(2))
    robot.step(np.array([0.5], np.float32))
    assert robot.physics.get_state()[1] == pytest.approx(3 * 0.5 / (mass * length**2) * 0.05)


def test_unnamed_parameters_turn_nominal():
    physics = make("mass=2").physics
    assert physics.read_all() == {"mass": 2.0, "length": 1.0}
    physics.set({"length": 1.5})
    assert physics.read_all() == {"mass": 1.0, "length": 1.5}


@pytest.mark.parametrize("values", [{"mass": 0.0}, {"length": -1.0}, {"torso_mass": 1.0}])
def test_bad_values(values):
    with pytest.raises(ConfigError):
        make().physics.set(values)
