"""One training step of every agent, a pure function of the state."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from omd_tf2.cartpole import losses
from omd_tf2.cartpole.config import CartPoleConfig
from omd_tf2.common.functional import (
    AdamState,
    Layers,
    adam_init,
    init_mlp,
    mlp_kernel,
    orthogonal_mlp,
    stacked,
)
from omd_tf2.common.inner import inner_steps, move_critics, move_model
from omd_tf2.common.solver import Health, LeastSquares, hypergradient, report
from omd_tf2.common.transition import Transition
from omd_tf2.implicit import gradient_of, loss_and_gradient
from omd_tf2.implicit.structures import ravel

OUTPUT_GAIN = 1e-2
NUM_VALUE_FUNCTIONS = 5  # of vep


class State(NamedTuple):
    """All that is learned, the optimisers, and what some agents keep fixed."""

    model: losses.Model
    critics: losses.Critics
    target: losses.Critics
    model_adam: AdamState
    critic_adam: AdamState
    value_functions: tuple[Layers, ...]  # vep's, [B, O] -> [B, 1], else ()


class Noise(NamedTuple):
    """N(0, 1) draws of one step."""

    model: tf.Tensor  # [N, B, O], a probabilistic model's on each of N batches, else [N, B, 0]
    critics: tf.Tensor  # [num_critic_draws], of which no_warm makes new ones


class Metrics(NamedTuple):
    """What one step reports, scalars."""

    critic_loss: tf.Tensor  # of the new critics on the batch they were moved on
    real_critic_loss: tf.Tensor  # of the new critics on a real batch: omd's outer loss
    q_mean: tf.Tensor  # of the new critics, on the same batch
    inner_steps: tf.Tensor


def metric_names(config: CartPoleConfig) -> tuple[str, ...]:
    """The names of what `update` returns."""
    names = tuple(f"train/{name}" for name in Metrics._fields)
    if config.agent != "qlearning":
        names = (*names, "train/model_loss")
    if config.agent == "omd":
        names = (*names, *(f"solver/{name}" for name in config.solver.reported))
    return names


def num_batches(config: CartPoleConfig) -> int:
    """Replayed batches of one step: of omd one, on which all is; else the model's and the critics'."""
    if config.agent == "omd":
        return 1
    of_model = 0 if config.agent == "qlearning" else config.model_steps
    return of_model + (1 if config.one_batch else config.inner_steps)


def num_critic_draws(state: State, config: CartPoleConfig) -> int:
    """The entries of all the critics' kernels if `no_warm` draws them anew, else 0."""
    kernels, _ = ravel([kernel for critic in state.critics for kernel, _ in critic])
    return kernels.shape[0] if config.no_warm else 0


def init_state(
    config: CartPoleConfig, obs_dim: int, num_actions: int, *, seed: int, dtype: str = "float32"
) -> State:
    """Fresh networks and optimisers; the target critics equal the critics."""
    seeds = iter(np.random.SeedSequence(seed).spawn(4 + NUM_VALUE_FUNCTIONS))
    hidden, model_hidden = [config.hidden_dim] * 2, [config.model_hidden_dim] * 2

    def network(*sizes, gain=OUTPUT_GAIN):
        return init_mlp(sizes, next(seeds), output_gain=gain, dtype=dtype)

    both, outputs = obs_dim + num_actions, obs_dim * (1 + config.prob_model)
    model = network(both, *model_hidden, outputs), network(both, *model_hidden, 1)
    critics = tuple(network(obs_dim, *hidden, num_actions) for _ in range(2 - config.no_double))
    num_values = NUM_VALUE_FUNCTIONS if config.agent == "vep" else 0
    value_functions = tuple(
        network(obs_dim, *hidden, 1, gain=config.value_gain) for _ in range(num_values)
    )
    return State(model, critics, critics, adam_init(model), adam_init(critics), value_functions)


def update(
    state: State, batches: Transition, noise: Noise, config: CartPoleConfig
) -> tuple[State, tuple[tf.Tensor, ...]]:
    """One step of the configured agent (section 4b).

    batches: N = `num_batches` real ones, [N, B, ...]: omd's, else those of the model's steps, then
    the critics'. Returns the new state and what `metric_names` names.
    """
    if config.agent == "omd":
        if config.no_warm:
            state = with_new_critics(state, noise.critics)
        return omd_update(state, _at(batches, 0), noise.model[0], config)
    has_model = config.agent != "qlearning"
    state, *loss = model_steps(state, batches, noise.model, config) if has_model else (state,)
    mine = -1 if config.one_batch else slice(-config.inner_steps, None)
    real, drawn = tf.nest.map_structure(lambda x: x[mine], (batches, noise.model))
    predicted = losses.in_model(state.model, real, drawn, config) if has_model else real
    state, steps = critic_steps(state, predicted, config)
    if not config.one_batch:
        predicted, real = _at(predicted, -1), _at(real, -1)
    return state, (*_metrics(state, predicted, real, steps, config), *loss)


def _at(batches: Transition, k: tf.Tensor | int) -> Transition:
    return tf.nest.map_structure(lambda x: x[k], batches)


def with_new_critics(state: State, draws: tf.Tensor) -> State:
    """The state with critics as `init_state` draws them, and the target equal to them.

    draws: N(0, 1), [num_critic_draws].
    """
    _, unravel = ravel([[kernel for kernel, _ in critic] for critic in state.critics])
    critics = tuple(orthogonal_mlp(x, output_gain=OUTPUT_GAIN) for x in unravel(draws))
    return state._replace(critics=critics, target=critics)


def omd_update(
    state: State, real: Transition, noise: tf.Tensor, config: CartPoleConfig
) -> tuple[State, tuple[tf.Tensor, ...]]:
    """Critic steps in the model, then the model's by the implicit function theorem."""
    if not config.warm_opt:
        state = state._replace(critic_adam=adam_init(state.critics))
    predicted = losses.in_model(state.model, real, noise, config)
    state, steps = critic_steps(state, predicted, config)
    metrics = _metrics(state, predicted, real, steps, config)
    prediction_loss = losses.mle_loss(state.model, real, noise, config)
    _, gradient, health = model_gradient(state, real, noise, config)
    metrics = *metrics, prediction_loss, *report(config.solver, health)
    return move_model(state, gradient, config.lr), metrics


def model_steps(
    state: State, batches: Transition, noise: tf.Tensor, config: CartPoleConfig
) -> tuple[State, tf.Tensor]:
    """Adam steps of the model of mle, vep or vaml, each on its own batch; the last one's loss."""

    def optimality_fn(k, state):
        return model_loss_and_gradient(state, _at(batches, k), noise[k], config)

    def step_fn(k, state, loss_gradient):
        loss, gradient = loss_gradient
        return move_model(state, gradient, config.lr), loss

    moved, none = ("model", "model_adam"), tf.zeros([], noise.dtype)
    state, _, loss = inner_steps(
        optimality_fn, step_fn, state, moved, config.model_steps, 0.0, none
    )
    return state, loss


def model_loss_and_gradient(
    state: State, real: Transition, noise: tf.Tensor, config: CartPoleConfig
) -> tuple[tf.Tensor, losses.Model]:
    """The loss of the model of mle, vep or vaml, and its gradient in the model."""
    arms: dict[str, tuple[Any, ...]] = {
        "mle": (losses.mle_loss,),
        "vep": (losses.vep_loss, state.value_functions),
        "vaml": (losses.vaml_loss, state.target),
    }
    loss, *fixed = arms[config.agent]
    return loss_and_gradient(loss, state.model, *fixed, real, noise, config)


def critic_steps(
    state: State, batch: Transition, config: CartPoleConfig
) -> tuple[State, tf.Tensor]:
    """K Adam steps of the critics, each followed by a soft target update.

    batch: one for all, [B, ...], or one for each, [K, B, ...]. Returns the new state and the number
    of steps, fewer where `inner_tol` was reached.
    """
    shared = batch.rewards.shape.rank == 1

    def optimality_fn(k, state):
        # The norm after the last step, which a tolerance asks for, is taken on the last batch.
        own = batch if shared else _at(batch, tf.minimum(k, config.inner_steps - 1))
        targets = losses.critic_targets(state.target, own, config)
        return gradient_of(losses.critic_loss)(state.critics, own, targets)

    def step_fn(k, state, gradient):
        return (move_critics(state, gradient, config.inner_lr, config.tau),)

    moved = "critics", "target", "critic_adam"
    return inner_steps(optimality_fn, step_fn, state, moved, config.inner_steps, config.inner_tol)


def model_critic_loss(
    critics: losses.Critics,
    model: losses.Model,
    state: State,
    real: Transition,
    noise: tf.Tensor,
    config: CartPoleConfig,
) -> tf.Tensor:
    """The inner loss: the critic loss on the model's transitions, of critics and model alone.

    The target critics are the state's and held constant.
    """
    return _critic_loss(critics, state, losses.in_model(model, real, noise, config), config)


def _critic_loss(critics, state, batch, config):
    targets = losses.critic_targets(state.target, batch, config)
    return losses.critic_loss(critics, batch, targets)


def model_gradient(
    state: State, real: Transition, noise: tf.Tensor, config: CartPoleConfig
) -> tuple[tf.Tensor, losses.Model, Health]:
    """The outer loss, its gradient in the model by the implicit function theorem, and the health.

    It is the critic loss on the real batch. f is the gradient of `model_critic_loss` in the
    critics, at the state's critics and target; the target's own dependence on them is ignored.
    """
    targets = losses.critic_targets(state.target, real, config)
    outer_loss, cotangent = loss_and_gradient(losses.critic_loss, state.critics, real, targets)

    def optimality_fn(critics, model):
        return gradient_of(model_critic_loss)(critics, model, state, real, noise, config)

    def targets_in(model):
        predicted = losses.in_model(model, real, noise, config)
        return losses.critic_targets(state.target, predicted, config)

    def problem():
        return LeastSquares(
            weight=2 / len(state.critics),  # the loss is the mean over critics of (Q - y)^2
            values=losses.values(state.critics, real.obs0, real.actions),
            targets_fn=targets_in,
            outer_targets=targets,
            kernel=mlp_kernel(stacked(state.critics), real.obs0, real.actions),
        )

    found = hypergradient(
        config.solver, optimality_fn, state.critics, state.model, cotangent, problem
    )
    return outer_loss, *found


def _metrics(state, batch, real, steps, config):
    loss, real_loss = (_critic_loss(state.critics, state, x, config) for x in (batch, real))
    q_mean = tf.reduce_mean(losses.values(state.critics, real.obs0, real.actions))
    return Metrics(loss, real_loss, q_mean, tf.cast(steps, q_mean.dtype))
