"""How many examples are tried: few, and always the same, in the suite; many with `--hypothesis-profile=fuzz`."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile(
    "fuzz", settings.get_profile("suite"), derandomize=False, max_examples=10_000, print_blob=True
)
settings.load_profile("suite")
