"""What learning needs, whatever the algorithm: networks, replay, rollout, noise, statistics, loop."""
