import json
from dataclasses import asdict, dataclass, field

import pytest

from baselines_tf2.runs.experiment import (
    Experiment,
    find_experiment,
    flatten,
    make_settings,
    settings_from,
)
from envs import ConfigError


@dataclass(frozen=True)
class Agent:
    gamma: float = 0.99
    layers: int = 2
    norm: bool = False
    clip: float | None = None
    name: str = "mlp"


@dataclass(frozen=True)
class Settings:
    agent: Agent = field(default_factory=Agent)
    size: int = 5


TOY = Experiment(
    name="toy",
    description="",
    source="",
    backends=("mujoco", "pybullet"),
    settings=lambda preset, backend: Settings(Agent(name=f"{preset}-{backend}")),
    prepare=lambda settings, seed: None,
)


def settings(*overrides, preset="default", backend=None):
    return make_settings(TOY, preset, backend, overrides)


def test_overrides_keep_to_their_types():
    changed = settings(
        "agent.gamma=0.5", "agent.layers=1e3", "agent.norm=True", "agent.clip=2", "size=-7"
    )
    assert changed == Settings(Agent(0.5, 1000, True, 2.0, "default-mujoco"), -7)
    assert settings("agent.clip=none").agent.clip is None
    assert settings("agent.name=a=b").agent.name == "a=b"
    assert type(changed.agent.layers) is int


@pytest.mark.parametrize(
    "override, message",
    [
        ("agent.gama=1", "unknown override 'agent.gama'; did you mean 'agent.gamma'"),
        ("gamma=1", "did you mean 'agent.gamma'"),
        ("agent=1", "'agent' is a group of settings: set agent.gamma or agent.layers"),
        ("agent.gamma", "write --set=name=value"),
        ("agent.gamma=big", "must be a number"),
        ("agent.layers=2.5", "must be a whole number"),
        ("agent.layers=inf", "must be a whole number"),
        ("agent.layers=none", "must be a whole number"),
        ("agent.norm=1", "must be true or false"),
        ("zzz=1", "known: agent.gamma, agent.layers"),
    ],
)
def test_wrong_overrides_are_one_clear_line(override, message):
    with pytest.raises(ConfigError, match=message) as error:
        settings(override)
    assert "\n" not in str(error.value)


def test_an_override_given_twice_is_refused():
    with pytest.raises(ConfigError, match="'size' is given twice"):
        settings("size=1", "size=2")


def test_what_names_the_run_is_not_overridden():
    with pytest.raises(ConfigError, match="'env.task' follows from --exp: use that flag"):
        settings("env.task=hopper")


def test_preset_and_backend_reach_the_settings():
    assert settings(preset="original", backend="pybullet").agent.name == "original-pybullet"
    with pytest.raises(ConfigError, match="unknown preset 'orignal'; did you mean 'original'"):
        settings(preset="orignal")
    with pytest.raises(ConfigError, match="unknown backend of toy 'bullet'; did you mean 'pybul"):
        settings(backend="bullet")


def test_the_nearest_experiment_is_suggested():
    with pytest.raises(ConfigError, match="unknown experiment 'to'; did you mean 'toy'"):
        find_experiment({"toy": TOY}, "to")


def test_flatten_names_every_leaf():
    assert flatten(Settings())["agent.gamma"] == 0.99
    assert len(flatten(Settings())) == 6


def test_settings_come_back_from_json():
    before = Settings(Agent(gamma=0.5, clip=2.0), 7)
    values = json.loads(json.dumps(asdict(before)))
    assert settings_from(Settings, values) == before
    del values["agent"]["norm"], values["agent"]["gamma"]  # an older run's: as the class has them
    assert settings_from(Settings, values) == Settings(Agent(clip=2.0), 7)
    values["agent"]["gama"] = 1
    with pytest.raises(ConfigError, match="did you mean 'gamma'"):
        settings_from(Settings, values)
