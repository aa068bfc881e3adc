"""The entry point that pytest loads in every session: options, and the rest once it is asked for."""

pytest_plugins = [f"nbval_tolerance.{name}" for name in ("plugin", "report", "changed")]
