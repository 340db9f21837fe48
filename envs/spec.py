"""EnvSpec: everything that defines an environment, as scalars that fit on a command line."""

from dataclasses import dataclass

from envs.ensemble import Ensemble, Uniform
from envs.errors import ConfigError, Natural, NonNegative, check_fields, check_known
from envs.physics import PARAMETERS, REWARD_OFFSET, check_value, check_values, parse_physics
from envs.uncertainty import uncertainty_set

# Gymnasium's id of the environment under each of ours, and the nominal mass [kg] of what the
# default ensembles and grids vary: the torso, the pendulum, or cartpole's pole.
ROBOTS = {
    ("cheetah", "mujoco"): ("HalfCheetah-v5", 6.2502),
    ("hopper", "mujoco"): ("Hopper-v5", 3.6652),
    ("walker", "mujoco"): ("Walker2d-v5", 3.6652),
    ("ant", "mujoco"): ("Ant-v5", 0.32725),
    ("cheetah", "pybullet"): ("HalfCheetahBulletEnv-v0", 9.4573),
    ("hopper", "pybullet"): ("HopperBulletEnv-v0", 3.6652),
    ("walker", "pybullet"): ("Walker2DBulletEnv-v0", 3.6652),
    ("ant", "pybullet"): ("AntBulletEnv-v0", 65.45),
    ("pendulum", "classic"): ("Pendulum-v1", 1.0),
    ("cartpole", "classic"): ("CartPole-v1", 0.1),
}
ORIGINALS = {which: original for which, (original, _) in ROBOTS.items()}
NOMINAL_MASS = {which: mass for which, (_, mass) in ROBOTS.items()}

NAMED_SETS = {"rrls1": 1, "rrls2": 2, "rrls3": 3}  # as an ensemble: their number of parameters

TASKS = tuple(dict.fromkeys(task for task, _ in ORIGINALS))
CONTINUOUS_TASKS = tuple(task for task in TASKS if task != "cartpole")  # its actions are 0 and 1


@dataclass(frozen=True)
class EnvSpec:
    """One environment. Raises ConfigError, naming the field, for anything impossible."""

    task: str  # one of TASKS
    backend: str  # the simulator: one of backends_of(task)
    # Drawn at each episode's start: "name:mean,std,low,high" or "name:low,high", joined by ";", or
    # rrls1, rrls2, rrls3 (uncertainty.py), which is written out at once. "" draws none.
    ensemble: str = ""
    ensemble_size: Natural = (
        0  # robots of each environment, which return; 0: a new one each episode
    )
    physics: str = ""  # "name:value;..." fixed parameters, in physics.py's units
    target: str = ""  # "name:value;..." of the robot that training moves the ensemble towards
    bare_mass: bool = False  # a mass leaves inertia and derived constants nominal; MuJoCo only
    distractors: Natural = 0  # N(0, 1) numbers appended to the observation
    observation_noise: NonNegative = 0.0  # std of observation * (1 + noise * N(0, 1)), no unit
    action_noise: NonNegative = 0.0  # the same for a continuous action, then clipped to its bounds

    def __post_init__(self) -> None:
        check_fields(self)
        check_known(f"backend of {self.task}", self.backend, backends_of(self.task))
        if self.action_noise and self.task not in CONTINUOUS_TASKS:
            raise ConfigError(f"action_noise must be 0: {self.task}'s actions are discrete")
        if self.bare_mass and self.backend != "mujoco":
            raise ConfigError(f"bare_mass is mujoco's alone: {self.backend} has none")
        object.__setattr__(self, "ensemble", self._written_out())
        self._check_parameters()

    def _written_out(self) -> str:
        if not self.ensemble.startswith("rrls"):
            return self.ensemble
        if ";" in self.ensemble:
            raise ConfigError(f"ensemble '{self.ensemble}': a named set stands alone, write it out")
        check_known("ensemble", self.ensemble, NAMED_SETS)
        if self.backend != "mujoco":
            raise ConfigError(f"{self.ensemble} is a set of mujoco's robots: name the parameters")
        return str(uncertainty_set(self.task, NAMED_SETS[self.ensemble]))

    def _check_parameters(self) -> None:
        ensemble, fixed = Ensemble.parse(self.ensemble), parse_physics(self.physics)
        if self.ensemble_size and not ensemble:
            raise ConfigError("ensemble_size needs an ensemble: set ensemble too")
        if both := sorted(ensemble.keys() & fixed.keys()):
            raise ConfigError(f"'{both[0]}' is in ensemble and in physics: leave one out")
        self._check_target(ensemble)
        known = PARAMETERS[self.task if self.backend == "classic" else self.backend]
        if self.backend != "classic":  # the bodies' names are the simulator's: make_env checks
            known += tuple(name for name in (*ensemble, *fixed) if name.startswith("mass/"))
        for drawn in ensemble.ends():
            check_values(fixed | drawn, (*known, REWARD_OFFSET), f"{self.task} on {self.backend}")

    def _check_target(self, ensemble: Ensemble) -> None:
        target = parse_physics(self.target, "target")
        for name, value in target.items():
            check_value(name, value)
            if name == REWARD_OFFSET:
                raise ConfigError("target names reward_offset, which observations do not show")
            if name not in ensemble:
                message = "which ensemble does not vary: add it there"
                raise ConfigError(f"target names '{name}', {message}")
        for name, one in ensemble.items():
            if target and isinstance(one, Uniform):
                message = "cannot move to a target: write mean,std,low,high"
                raise ConfigError(f"a uniform {name} {message}")
        if target and self.ensemble_size:
            raise ConfigError("robots that return cannot move to a target: leave ensemble_size 0")


def backends_of(task: str) -> tuple[str, ...]:
    """The simulators which have `task`; ConfigError if there is no such task."""
    check_known("task", task, TASKS)
    return tuple(backend for known, backend in ORIGINALS if known == task)


def default_ensemble(task: str, backend: str) -> str:
    """The ensemble to train on, as EnvSpec.ensemble takes it: masses in kg.

    EPOpt's own for MuJoCo's cheetah and hopper (1610.01283); for the others the same
    shape around the nominal mass m: mean m, std m/4, in [m/2, 3m/2].
    """
    EnvSpec(task, backend)  # raises what is wrong with the pair
    if backend == "mujoco" and task in ("cheetah", "hopper"):
        return "torso_mass:6,1.5,3,9"
    mass = NOMINAL_MASS[task, backend]
    name = {"pendulum": "mass", "cartpole": "pole_mass"}.get(task, "torso_mass")
    numbers = ",".join(f"{mass * factor:.6g}" for factor in (1, 0.25, 0.5, 1.5))
    return f"{name}:{numbers}"
