"""OMD on CartPole (2106.03273, section 5.2): soft Q-learning inside a learned model.

Every loss, gradient and step is a function of the weights, a batch and the noise alone, so that
another program's numbers can be put in, and compared with what comes out:

Examples:
    >>> import numpy as np, tensorflow as tf
    >>> from omd_tf2.cartpole import config, losses, update
    >>> from omd_tf2.common import solver, transition
    >>> from omd_tf2.implicit import loss_and_gradient
    >>> rng, B, O, A = np.random.default_rng(0), 8, 4, 2
    >>> settings = config.CartPoleConfig(solver=solver.SolverConfig("gauss_newton", ridge=0.1))
    >>> state = update.init_state(settings, O, A, seed=0, dtype="float64")
    >>> weights = tf.nest.map_structure(lambda x: x.numpy(), state.critics)  # or another program's
    >>> state = state._replace(critics=tf.nest.map_structure(tf.constant, weights))
    >>> arrays = rng.normal(size=(B, O)), np.eye(A)[[0, 1] * 4], np.ones(B), rng.normal(size=(B, O))
    >>> real = transition.Transition(*map(tf.constant, arrays), terminals1=tf.zeros(B, "float64"))
    >>> noise = tf.constant(rng.normal(size=(B, O)))  # what a probabilistic model draws with

    >>> grad = loss_and_gradient  # of any loss, in its first argument
    >>> loss, model_gradient = grad(losses.mle_loss, state.model, real, noise, settings)
    >>> predicted = losses.in_model(state.model, real, noise, settings)
    >>> state, steps = update.critic_steps(state, predicted, settings)
    >>> targets = losses.critic_targets(state.target, real, settings)
    >>> outer_loss, cotangent = grad(losses.critic_loss, state.critics, real, targets)
    >>> outer_loss, hypergradient, health = update.model_gradient(state, real, noise, settings)
    >>> bool(health.converged)
    True
    >>> batches = tf.nest.map_structure(lambda x: x[None], real)  # a whole step, as trained
    >>> state, metrics = update.update(state, batches, update.Noise(noise[None], []), settings)
    >>> len(metrics) == len(update.metric_names(settings))
    True
"""
