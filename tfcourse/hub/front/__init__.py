"""The components that visitors reach first, namely HTTPS, the proxy and the hub's pages."""
