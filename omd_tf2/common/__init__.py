"""What OMD's deep settings share: networks as plain weights, solver settings, the agent's frame."""
