"""Physics of Gymnasium's MuJoCo robots."""

import copy
import math
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from envs.display import prepare_drawing_without_screen
from envs.physics import AIR_DENSITY, AIR_VISCOSITY, PARAMETERS, Physics

# What changes a robot: arrays of the model, some of them by the parameter that scales them, and
# options. A contact takes the larger friction of its two geoms, so all are scaled.
SCALED = {
    "friction": "geom_friction",
    "damping": "dof_damping",
    "armature": "dof_armature",
    "actuator_strength": "actuator_gear",
}
ARRAYS = ("body_mass", "body_inertia", *SCALED.values())
OPTIONS = ("gravity", "wind", "density", "viscosity")
SLIDING = 0  # the first of a geom's coefficients of friction
STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # all that a step depends on, solver warm start too


def make_original(
    env_id: str, render_mode: str | None, bare_mass: bool = False
) -> tuple[gym.Env, Physics]:
    """Gymnasium's own environment, without its wrappers, and its physics."""
    if render_mode:
        prepare_drawing_without_screen()
    camera = "track" if render_mode == "rgb_array" else None  # the default one does not follow
    options: Any = {"render_mode": render_mode, "camera_name": camera, "disable_env_checker": True}
    with ExitStack() as after:
        after.callback(mujoco.set_mju_user_warning, mujoco.get_mju_user_warning())
        mujoco.set_mju_user_warning(_warn)
        env: Any = gym.make(env_id, **options).unwrapped
    if render_mode == "rgb_array":  # without a graphics card a picture takes a quarter of the time
        env.model.vis.quality.shadowsize = 1024  # coarser shadows
        env.model.vis.quality.offsamples = 0  # no smoothing
    return env, MujocoPhysics(env, bare_mass)


def _warn(message: str) -> None:
    """HalfCheetah's model says `settotalmass`; MuJoCo would print that, and write a log file."""
    if "settotalmass" not in message:
        warnings.warn(message, stacklevel=2)


class MujocoPhysics(Physics):
    """Physics of a MujocoEnv; see physics.py for the parameters and their units.

    `bare_mass` writes a body's mass alone, as RRLS does: its inertia, and what the model derives
    from any parameter (mj_setConst), stay the nominal robot's. For comparison with published
    figures: no such robot can be built.
    """

    def __init__(self, env: MujocoEnv, bare_mass: bool) -> None:
        self.model, self.data = env.model, env.data
        self._bare_mass, model = bare_mass, self.model
        # mj_setConst computes in the data it is given: a scratch one keeps the episode's intact.
        self._scratch = mujoco.MjData(model)
        self._nominal = copy.copy(model)
        self._state_size = mujoco.mj_stateSize(model, STATE)
        self._floor_friction = model.geom("floor").friction  # a view into the model
        bodies = ((model.body(i).name, i) for i in range(1, model.nbody))  # the world has no mass
        self._bodies = {f"mass/{name}": i for name, i in bodies if name}  # Ant has some without
        self.names = (*PARAMETERS["mujoco"], *self._bodies)
        self._bodies["torso_mass"] = self._bodies["mass/torso"]
        self._values: dict[str, float] = {}

    def _read(self, name: str) -> float:
        option = self.model.opt
        if name == "slope":
            return math.degrees(math.atan2(-option.gravity[0], -option.gravity[2]))
        if name == "head_wind":
            return float(0.0 - option.wind[0])  # not -0.0
        if name == "floor_friction":
            return float(self._floor_friction[SLIDING])
        if name in SCALED:
            array, nominal = (getattr(model, SCALED[name]) for model in (self.model, self._nominal))
            # The largest entry tells the scale; the last of equal ones, as the first is the floor's.
            at = nominal.size - 1 - np.argmax(np.abs(nominal).ravel()[::-1])
            return float(array.flat[at] / nominal.flat[at])
        return float(self.model.body_mass[self._bodies[name]])

    def _set(self, values: Mapping[str, float]) -> None:
        if values == self._values:
            return
        model, option, nominal = self.model, self.model.opt, self._nominal
        for name in ARRAYS:
            getattr(model, name)[:] = getattr(nominal, name)
        for name in OPTIONS:
            setattr(option, name, getattr(nominal.opt, name))
        for name, value in values.items():
            if name in SCALED:
                getattr(model, SCALED[name])[:] *= value
            elif name == "floor_friction":
                self._floor_friction[SLIDING] = value
            elif name in self._bodies:
                body = self._bodies[name]
                model.body_mass[body] = value
                if not self._bare_mass:  # density changes, shape does not
                    model.body_inertia[body] *= value / nominal.body_mass[body]
        if slope := values.get("slope"):
            gravity, angle = np.linalg.norm(nominal.opt.gravity), math.radians(slope)
            option.gravity = (-gravity * math.sin(angle), 0, -gravity * math.cos(angle))
        if head_wind := values.get("head_wind"):  # the models have no air, and without it no wind
            option.density, option.viscosity = AIR_DENSITY, AIR_VISCOSITY
            option.wind[0] = -head_wind
        self._values = dict(values)
        if not self._bare_mass:
            mujoco.mj_setConst(self.model, self._scratch)
        self.data.qacc_warmstart[:] = 0  # the previous robot's: same seed, same bits
        mujoco.mj_forward(self.model, self.data)

    def get_state(self) -> np.ndarray:
        """MuJoCo's own integration state, then the bodies' positions as the last step left them.

        Those lag behind the joints by one step of the integrator, and Ant's reward reads them.
        """
        state = np.empty(self._state_size)
        mujoco.mj_getState(self.model, self.data, state, STATE)
        return np.concatenate([state, self.data.xpos.ravel()])

    def set_state(self, state: np.ndarray) -> None:
        mujoco.mj_setState(self.model, self.data, state[: self._state_size], STATE)
        # For pictures. Not mj_forward: it overwrites the solver's warm start, so that the next
        # step would not be the same to the bit.
        mujoco.mj_kinematics(self.model, self.data)
        self.data.xpos.flat[:] = state[self._state_size :]
