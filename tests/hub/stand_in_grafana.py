"""A stand-in for Grafana, so that tests do not need the Grafana image.

The stand-in uses the OAuth settings in grafana.ini to log visitors in through the hub, then greets
them by name. It shows no dashboard.
"""

from __future__ import annotations

import configparser
import json
import os
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SETTINGS = configparser.ConfigParser(interpolation=None)
with open(os.environ["GF_PATHS_CONFIG"]) as file:
    SETTINGS.read_file(file)
SERVER, OAUTH = SETTINGS["server"], SETTINGS["auth.generic_oauth"]
PROVISIONED = os.path.exists(os.environ["GF_PATHS_PROVISIONING"] + "/dashboards/course.yaml")
ROOT = SERVER["root_url"]
CALLBACK = ROOT + "login/generic_oauth"


class Handler(BaseHTTPRequestHandler):
    """Serve `/services/grafana/` and its OAuth callback."""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == CALLBACK:
            name = who(query["code"])
            self.answer(200, f"Hello {name}, provisioned: {PROVISIONED}")
        else:
            ask = {"client_id": OAUTH["client_id"], "redirect_uri": CALLBACK}
            ask |= {"response_type": "code", "state": "unforeseeable"}
            self.answer(302, "", Location=f"{OAUTH['auth_url']}?{urllib.parse.urlencode(ask)}")

    def answer(self, status: int, text: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())


def who(code: str) -> str:
    """Exchange the hub's OAuth code for a token; return the name of the token's owner."""
    form = {"client_id": OAUTH["client_id"], "client_secret": OAUTH["client_secret"]}
    form |= {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(OAUTH["token_url"], data) as reply:
        token = json.load(reply)["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(OAUTH["api_url"], headers=headers)) as reply:
        return json.load(reply)[OAUTH["login_attribute_path"]]


ThreadingHTTPServer((SERVER["http_addr"], int(SERVER["http_port"])), Handler).serve_forever()
