"""Log-in: accounts of the hub's own, single sign-on, and a learning platform."""
