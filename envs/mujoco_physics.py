"""Physics of Gymnasium's MuJoCo robots."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from envs.display import prepare_drawing_without_screen
from envs.physics import (
    AIR_DENSITY,
    AIR_VISCOSITY,
    FLOOR_FRICTION,
    MASS_PREFIX,
    PARAMETERS,
    SCALES,
    Physics,
    check_name,
    check_values,
)

FLOOR, SLIDING = "floor", 0  # a geom's name, and the first of its coefficients
STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # all that a step depends on, solver warm start too


def make_original(env_id: str, render_mode: str | None) -> gym.Env:
    """Gymnasium's own environment, without its wrappers."""
    if render_mode:
        prepare_drawing_without_screen()
    camera = "track" if render_mode == "rgb_array" else None  # the default one does not follow
    env: Any
    with _without_deprecation_notice():
        env = gym.make(
            env_id, render_mode=render_mode, camera_name=camera, disable_env_checker=True
        ).unwrapped
    if render_mode == "rgb_array":
        _draw_quickly(env.model)
    return env


def _draw_quickly(model: mujoco.MjModel) -> None:
    """Coarser shadows, no smoothing: a picture in a quarter of the time without a graphics card."""
    model.vis.quality.shadowsize = 1024
    model.vis.quality.offsamples = 0


@contextmanager
def _without_deprecation_notice() -> Iterator[None]:
    """HalfCheetah's model says `settotalmass`; MuJoCo prints that and writes MUJOCO_LOG.TXT."""

    def handle(message: str) -> None:
        if "settotalmass" not in message:
            warnings.warn(message, stacklevel=2)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(handle)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


class MujocoPhysics(Physics):
    """Physics of a MujocoEnv; see physics.py for the parameters and their units.

    `bare_mass` writes a body's mass alone, as RRLS does: its inertia, and what the model derives
    from any parameter (mj_setConst), stay the nominal robot's. For comparison with published
    figures: no such robot can be built.
    """

    def __init__(self, env: MujocoEnv, bare_mass: bool = False) -> None:
        self.model, self.data = env.model, env.data
        self._bare_mass = bare_mass
        # mj_setConst computes in the data it is given: a scratch one keeps the episode's intact.
        self._scratch = mujoco.MjData(self.model)
        model, option = self.model, self.model.opt
        self._arrays = {  # the model's own: writing to them changes the robot
            "mass": model.body_mass,
            "inertia": model.body_inertia,
            # A contact takes the larger friction of its two geoms, so all are scaled.
            "friction": model.geom_friction,
            "damping": model.dof_damping,
            "armature": model.dof_armature,
            "actuator_strength": model.actuator_gear,
            "gravity": option.gravity,
            "wind": option.wind,
        }
        self._nominal = {name: array.copy() for name, array in self._arrays.items()}
        self._state_size = mujoco.mj_stateSize(self.model, STATE)
        self._nominal_air = (self.model.opt.density, self.model.opt.viscosity)
        self._floor_friction = self.model.geom(FLOOR).friction  # a view into the model
        self._bodies = _named_bodies(self.model)
        self._names = PARAMETERS["mujoco"] + tuple(MASS_PREFIX + body for body in self._bodies)
        self._values: dict[str, float] = {}

    def names(self) -> tuple[str, ...]:
        return self._names

    def read(self, name: str) -> float:
        check_name(name, self._names, "this robot")
        option = self.model.opt
        if name == "slope":
            return math.degrees(math.atan2(-option.gravity[0], -option.gravity[2]))
        if name == "head_wind":
            return float(0.0 - option.wind[0])  # not -0.0
        if name == FLOOR_FRICTION:
            return float(self._floor_friction[SLIDING])
        if name in SCALES:
            array, nominal = self._arrays[name], self._nominal[name]
            # Any entry that is not zero tells the scale; the last one, as the first is the floor's.
            at = nominal.size - 1 - np.argmax(np.abs(nominal).ravel()[::-1])
            return float(array.flat[at] / nominal.flat[at])
        return float(self.model.body_mass[self._body(name)])

    def set(self, values: Mapping[str, float]) -> None:
        check_values(values, self._names, "this robot")
        if values == self._values:
            return
        for name, array in self._arrays.items():
            array[:] = self._nominal[name]
        for name, value in values.items():
            if name in SCALES:
                self._arrays[name][:] = self._nominal[name] * value
            elif name == FLOOR_FRICTION:
                self._floor_friction[SLIDING] = value
            elif name not in ("slope", "head_wind"):
                self._set_mass(self._body(name), value)
        self._set_world(values.get("slope", 0.0), values.get("head_wind", 0.0))
        self._values = dict(values)
        self._refresh()

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

    def _body(self, name: str) -> int:
        return self._bodies["torso" if name == "torso_mass" else name.removeprefix(MASS_PREFIX)]

    def _set_mass(self, body: int, mass: float) -> None:
        """Density changes, shape does not: the inertia scales with the mass."""
        self.model.body_mass[body] = mass
        if self._bare_mass:
            return
        scale = mass / self._nominal["mass"][body]
        self.model.body_inertia[body] = self._nominal["inertia"][body] * scale

    def _set_world(self, slope: float, head_wind: float) -> None:
        angle = math.radians(slope)
        gravity = np.linalg.norm(self._nominal["gravity"])
        if slope:
            self.model.opt.gravity[:] = (-gravity * math.sin(angle), 0, -gravity * math.cos(angle))
        self.model.opt.wind[0] = -head_wind
        # The models have no air, and wind without air does nothing.
        air = (AIR_DENSITY, AIR_VISCOSITY) if head_wind else self._nominal_air
        self.model.opt.density, self.model.opt.viscosity = air

    def _refresh(self) -> None:
        """Recomputes what the model and the state derive from the parameters."""
        if not self._bare_mass:
            mujoco.mj_setConst(self.model, self._scratch)
        self.data.qacc_warmstart[:] = 0  # the previous robot's: same seed, same bits
        mujoco.mj_forward(self.model, self.data)


def _named_bodies(model: mujoco.MjModel) -> dict[str, int]:
    """Body ids by name; the world has no mass, and some of Ant's bodies have no name."""
    names = ((model.body(i).name, i) for i in range(1, model.nbody))
    return {name: i for name, i in names if name}
