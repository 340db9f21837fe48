"""Gymnasium environments of robots whose physics can be changed, drawn and adapted.

    env = make_env(EnvSpec("cheetah", "mujoco", ensemble="torso_mass:6,1.5,3,9"), training=True)
    env = gymnasium.make("envs:robots/cheetah-mujoco-v0", ensemble="torso_mass:6,1.5,3,9")

physics.py lists the parameters and their units, spec.py what else can be chosen. A simulator is
imported only when one of its environments is made.
"""

from envs.adaptation import TargetStep, adapt, recorded, simulator_log_likelihood
from envs.ensemble import Ensemble, TruncatedNormal, Uniform, worst_episodes
from envs.errors import ConfigError
from envs.grid import is_inside, robots_of, sweeps, training_ranges
from envs.make import make_env, time_limit
from envs.physics import Physics
from envs.spec import CONTINUOUS_TASKS, TASKS, EnvSpec, backends_of, default_ensemble
from envs.uncertainty import VARIANTS, uncertainty_grid, uncertainty_set
from envs.wrappers import RobotEnsemble, find_robot, get_env_state, set_env_state
