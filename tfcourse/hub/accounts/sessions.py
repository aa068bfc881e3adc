"""End a user's sessions when the user logs out, is blocked, or gets a new password."""

from __future__ import annotations

from enum import Enum
from typing import Any

from jupyterhub import orm
from jupyterhub.handlers import LogoutHandler
from jupyterhub.spawner import Spawner
from jupyterhub.user import User
from sqlalchemy.orm import Session
from tornado.httputil import HTTPServerRequest

from tfcourse.hub.front.bounds import SERVER

# The OAuth client ID of tokens for scripts and servers. Tokens for browsers have other client IDs.
HUB = "jupyterhub"


class Keep(Enum):
    """The tokens that remain valid when a user's sessions end."""

    SCRIPTS = "the tokens that people made themselves, and those of running servers"
    SERVERS = "the tokens of running servers"
    NOTHING = "no token at all"


class MarkedServers:
    """A mixin for an authenticator: it marks the token of each server that starts.

    `end_sessions` and `bounds.replace_oldest` recognise servers' tokens by this mark.
    """

    def pre_spawn_start(self, user: User, spawner: Spawner) -> Any:
        """Mark the server's token. JupyterHub calls this method before each start."""
        orm.APIToken.find(user.db, spawner.api_token).session_id = SERVER
        return super().pre_spawn_start(user, spawner)


def keep_token(db: Session, token: str, in_place_of: str) -> None:
    """Accept a running server's token, with the rights of the token for a new server."""
    new = orm.APIToken.find(db, in_place_of)
    if orm.APIToken.find(db, token) is None:
        what = {"scopes": new.scopes, "note": new.note, "session_id": SERVER}
        orm.APIToken.new(token, user=new.user, generated=False, **what)


def end_sessions(db: Session, name: str, keep: Keep) -> None:
    """End a user's sessions in all browsers, and revoke all tokens that `keep` does not protect.

    The hub rejects the old cookies immediately. A learner's server caches the hub's decisions, so
    it rejects the old cookies within ten seconds. It closes open connections within a minute
    (tfcourse/prefix/etc/jupyter/jupyter_server_config.py).
    """
    user = orm.User.find(db, name)
    if user:
        user.cookie_id = orm.new_token()
        # Otherwise, a server could still redeem the OAuth code of an unfinished log-in.
        db.query(orm.OAuthCode).filter_by(user_id=user.id).delete()
        for token in user.api_tokens:
            in_browser = token.client_id != HUB
            stays = {
                Keep.SCRIPTS: not in_browser,
                Keep.SERVERS: not in_browser and token.session_id == SERVER,
                Keep.NOTHING: False,
            }
            if not stays[keep]:
                db.delete(token)
    db.commit()


def ending_sessions(page: type[LogoutHandler] = LogoutHandler) -> type[LogoutHandler]:
    """Return a log-out page that ends the user's sessions in all browsers.

    JupyterHub's own log-out page only removes the cookies from the current browser, so copies of
    the cookies would remain valid.
    """

    class Page(page):
        async def get(self) -> None:
            """Log the user out; if another site or an image caused the request, ask first."""
            if self.current_user and not is_own_navigation(self.request):
                self.finish(await self.render_template("logout.html", ask=True))
            else:
                await super().get()

        async def handle_logout(self) -> None:
            """End the sessions. JupyterHub calls this method after removing the cookies."""
            await super().handle_logout()
            if self.current_user:
                end_sessions(self.db, self.current_user.name, Keep.SCRIPTS)

    return Page


def is_own_navigation(request: HTTPServerRequest) -> bool:
    """Return whether the user opened the page from this site, a bookmark or the address bar.

    Browsers send this information in headers, but only over HTTPS or to a hub on the same machine.
    Old browsers never send it.
    """
    return (
        request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")
        and request.headers.get("Sec-Fetch-Dest", "document") == "document"
    )
