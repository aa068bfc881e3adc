"""What visitors meet first: HTTPS, the proxy, and the hub's pages."""
