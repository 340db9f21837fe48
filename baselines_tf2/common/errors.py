"""What stops a run on purpose; a user's mistakes are `envs.errors.ConfigError`."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the quantity and the step in one line."""
