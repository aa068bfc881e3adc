"""What a visitor meets first: HTTPS, the proxy, and the hub's pages."""
