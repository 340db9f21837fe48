"""What every algorithm of the project shares: networks, replay, noise, loop, logs, experiments."""
