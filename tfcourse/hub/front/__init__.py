"""The visitor-facing components: HTTPS, the proxy and the hub's pages."""
