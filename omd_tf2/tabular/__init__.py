"""Optimal model design on a two-state MDP, where every part of it is solved exactly.

Reproduces the three tabular analyses of Nikishin et al. (arXiv 2106.03273). All the
settings and seeds of an analysis are N instances of the same small problem, trained in one batch:
arrays carry the axes of the MDP first and the instances last, `[S, A, N]`, so that every operation
is elementwise over the instances.

A gradient is a function of the model's numbers alone, and so is each of its parts:

Examples:
    >>> import numpy as np, tensorflow as tf
    >>> from omd_tf2.tabular import mdp, solve, update
    >>> rng, N = np.random.default_rng(0), 3
    >>> truth = mdp.paper_mdp()
    >>> weights = rng.random((2, 2, 2, N)), rng.random((2, 2, N))  # or another program's
    >>> model = mdp.Model(*map(tf.constant, weights))  # logits [A, S, S', N], rewards [S, A, N]
    >>> loss, gradient = update.mle_loss(model, truth), update.mle_gradient(model, truth)
    >>> loss.shape, gradient.logits.shape
    (TensorShape([3]), TensorShape([2, 2, 2, 3]))
    >>> inside = mdp.induced_mdp(model, truth)
    >>> solution = solve.solve_fixed_point(inside, tf.zeros([2, N], tf.float64))  # of Q = B Q
    >>> float(solution.residual) < 1e-13
    True
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(solution.q)
    ...     outer_loss = update.bellman_loss(solution.q, truth)
    >>> cotangent, exact = tape.gradient(outer_loss, solution.q), tf.fill([N], True)
    >>> gradient, info = solve.fixed_point_vjp(model, truth, solution.q, cotangent, exact)
    >>> bool(info.converged), gradient.rewards.shape
    (True, TensorShape([2, 2, 3]))
"""

from omd_tf2.tabular.experiments import EXPERIMENTS
