"""Log-in methods: the hub's own accounts, single sign-on and learning platforms."""
