"""The components that visitors reach first: HTTPS, the proxy and the hub's pages."""
