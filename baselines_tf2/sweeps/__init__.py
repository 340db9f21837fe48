"""Many runs: plans, studies, Ray."""
