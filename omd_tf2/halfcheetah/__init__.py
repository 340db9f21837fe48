"""OMD on robots (2106.03273, section 5.3): soft actor-critic inside a learned model."""
