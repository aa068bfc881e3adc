"""What nbval lacks for trained notebooks: `pytest --nbval -p tfcourse.regression`.

`compare` decides, in pure functions, whether a new output says the same as the stored one;
`plugin` lets nbval's own items ask it; `execute` is the only thing that writes stored outputs.
"""

pytest_plugins = [f"tfcourse.regression.{name}" for name in ("plugin", "report", "changed")]
