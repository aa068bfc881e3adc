"""Make requests to the hub that started this server, on behalf of its learner."""

import http.client
import json
import os
import urllib.error
import urllib.request

# The hub is on the server's own network, where a proxy for the internet cannot reach it.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_there():
    """Return whether a hub started this server."""
    return "JUPYTERHUB_ACTIVITY_URL" in os.environ


def ask(path, body=None, method=None, seconds=60):
    """Send a request about the learner to the hub; return the decoded JSON response.

    Raises
    ------
    urllib.error.HTTPError
        If the hub refuses the request.
    OSError
        If the hub does not respond.
    ValueError
        If the response is not JSON.
    """
    # Servers report activity to a URL below the learner's own URL in the hub's API.
    url = os.environ["JUPYTERHUB_ACTIVITY_URL"].removesuffix("activity") + path
    headers = {
        "Authorization": f"token {os.environ['JUPYTERHUB_API_TOKEN']}",
        "Content-Type": "application/json" if method is None else "application/octet-stream",
    }
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - the hub's
    with DIRECT.open(request, timeout=seconds) as response:
        return json.load(response)


def message(error):
    """Return the hub's explanation of why it refused a request."""
    try:
        return json.load(error)["message"]
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
        return f"The hub sent error {error.code}."
