"""Ways to log in: the hub's own accounts, single sign-on, or a learning platform."""
