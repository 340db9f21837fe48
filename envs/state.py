"""Taking an environment's state out, and putting it into another one of the same EnvSpec."""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import TimeLimit

from envs.wrappers import find_robot

State = list[dict[str, Any]]  # of the layers, the outermost first


def get_env_state(env: gym.Env) -> State:
    """All that the episode's rest and the coming episodes depend on, as nested tables.

    env: from make_env, reset at least once. Raises ConfigError if it is not one of ours.
    """
    find_robot(env)
    return [
        {"steps": layer._elapsed_steps} if isinstance(layer, TimeLimit) else layer.get_state()
        for layer in _layers(env)
    ]


def set_env_state(env: gym.Env, state: State) -> bool:
    """Puts back what get_env_state gave; env: reset at least once.

    False if the simulator does not go on from there to the bit (`Physics.exact_state`): its random
    streams are then put back, and the caller resets it to begin the next episode.
    """
    for layer, own in zip(_layers(env), state, strict=True):
        if isinstance(layer, TimeLimit):
            layer._elapsed_steps = own["steps"]
        else:
            layer.set_state(own)
    return find_robot(env).physics.exact_state


def _layers(env: gym.Env) -> Iterator[Any]:
    """The wrappers that have a state."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit) or hasattr(type(env), "get_state"):
            yield env
        env = env.env
