"""Physics of PyBullet's robots (package pybullet_envs_gymnasium)."""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from envs.display import silent_streams
from envs.physics import AIR_DENSITY, PARAMETERS, Physics

with silent_streams():  # it prints its build time
    # Importing it registers its environments with Gymnasium.
    from pybullet_envs_gymnasium.gym_locomotion_envs import WalkerBaseBulletEnv
    from pybullet_utils.bullet_client import BulletClient

BASE = -1  # Bullet's index of a robot's first body; the others have their joint's
MASS, FRICTION = 0, 1  # indices into getDynamicsInfo


def make_original(env_id: str, render_mode: str | None) -> tuple[gym.Env, Physics]:
    """The package's own environment, without its wrappers, its robot loaded, and its physics.

    The package connects and loads at the first reset, so that is done here: the physics can be
    read at once, and every reset of the user's is alike.
    """
    env: Any = gym.make(env_id, render_mode=render_mode, disable_env_checker=True).unwrapped
    with silent_streams():  # connecting prints "argv[0]="
        env.reset()
    return env, BulletPhysics(env)


class BulletPhysics(Physics):
    """Physics of a WalkerBaseBulletEnv; see physics.py for parameters and units.

    Wind pushes the torso alone, with the drag 1/2 density area v^2 along x; the area is the front
    of the torso's bounding box, v the air's speed relative to it.
    """

    exact_state = False  # contacts keep caches that Bullet does not give out

    def __init__(self, env: WalkerBaseBulletEnv) -> None:
        self._env = env
        self._client: BulletClient = env._p
        (self._robot,) = env.robot.objects
        self._torso = env.robot.robot_body.bodyPartIndex
        self._joints = range(self._client.getNumJoints(self._robot))
        self._nominal = {link: self._dynamics(link) for link in (BASE, *self._joints)}
        self._bodies = {  # the links with a mass; the other links only connect these
            f"mass/{name}": part.bodyPartIndex
            for name, part in env.robot.parts.items()
            if name != "floor" and self._nominal[part.bodyPartIndex][MASS] > 0
        }
        self.names = (*PARAMETERS["pybullet"], *self._bodies)
        self._bodies["torso_mass"] = self._bodies["mass/torso"]
        self._nominal_power = env.robot.power
        scene: Any = env.scene  # None until the first reset
        self._gravity = scene.cpp_world.gravity  # [m/s^2], downwards; set at each reset
        low, high = self._client.getAABB(self._robot, self._torso)
        self.frontal_area = (high[1] - low[1]) * (high[2] - low[2])  # [m^2]
        self._head_wind = 0.0

    def _read(self, name: str) -> float:
        if name == "friction":
            nominal = self._nominal[self._torso][FRICTION]
            return self._dynamics(self._torso)[FRICTION] / nominal
        if name == "actuator_strength":
            return self._env.robot.power / self._nominal_power
        if name == "slope":
            world = self._client.getPhysicsEngineParameters()
            ahead, up = world["gravityAccelerationX"], world["gravityAccelerationZ"]
            return math.degrees(math.atan2(-ahead, -up))
        if name == "head_wind":
            return self._head_wind
        return self._dynamics(self._bodies[name])[MASS]

    def _set(self, values: Mapping[str, float]) -> None:
        masses = {self._bodies[name]: v for name, v in values.items() if name in self._bodies}
        client, scale = self._client, values.get("friction", 1.0)
        for link, (mass, friction) in self._nominal.items():
            client.changeDynamics(self._robot, link, lateralFriction=friction * scale)
            mass = masses.get(link, mass)
            if mass != self._dynamics(link)[MASS]:  # scales the inertia along
                client.changeDynamics(self._robot, link, mass=mass)
        self._env.robot.power = self._nominal_power * values.get("actuator_strength", 1.0)
        angle = math.radians(values.get("slope", 0.0))
        ahead, up = -self._gravity * math.sin(angle), -self._gravity * math.cos(angle)
        client.setGravity(ahead, 0, up)
        self._head_wind = float(values.get("head_wind", 0.0))

    def get_state(self) -> np.ndarray:
        """Base pose and velocities, joint angles and velocities, and what the package remembers.

        Bullet's own saveState cannot be loaded by another client; this can. It leaves out the
        solver's caches, which the next step has not been seen to depend on.
        """
        client, env = self._client, self._env
        base = client.getBasePositionAndOrientation(self._robot)
        base += client.getBaseVelocity(self._robot)
        joints = [state[:2] for state in client.getJointStates(self._robot, self._joints)]
        memory = [env.potential, env.robot.initial_z, *env.robot.feet_contact]
        return np.concatenate([*base, *joints, memory])

    def set_state(self, state: np.ndarray) -> None:
        client, env = self._client, self._env
        base, joints, memory = np.split(state, [13, 13 + 2 * len(self._joints)])
        if self._nominal[BASE][MASS] > 0:  # else the base is the world, and never moves
            client.resetBasePositionAndOrientation(self._robot, base[:3], base[3:7])
            client.resetBaseVelocity(self._robot, base[7:10], base[10:])
        for joint, (angle, speed) in zip(self._joints, joints.reshape(-1, 2), strict=True):
            client.resetJointState(self._robot, joint, angle, speed)
        env.potential, env.robot.initial_z = memory[:2]
        env.robot.feet_contact[:] = memory[2:]

    def before_step(self) -> None:
        """Wind: Bullet forgets an external force after one step."""
        if not self._head_wind:
            return
        torso, client = self._env.robot.robot_body, self._client
        against = torso.speed()[0] + self._head_wind  # [m/s]
        force = (-0.5 * AIR_DENSITY * self.frontal_area * abs(against) * against, 0, 0)
        at = torso.current_position()
        client.applyExternalForce(self._robot, self._torso, force, at, client.WORLD_FRAME)

    def _dynamics(self, link: int) -> tuple[float, float]:
        """Mass [kg] and lateral friction."""
        return self._client.getDynamicsInfo(self._robot, link)[:2]
