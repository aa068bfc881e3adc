"""End a user's sessions when the user logs out, is blocked, or gets a new password."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum

from jupyterhub import orm
from jupyterhub.handlers import LogoutHandler
from sqlalchemy.orm import Session

# The OAuth client ID of tokens for scripts and servers. Tokens for browsers have other client IDs.
HUB = "jupyterhub"


class Keep(Enum):
    """The tokens that remain valid when a user's sessions end."""

    SCRIPTS = "the tokens that people made themselves, and those of running servers"
    SERVERS = "the tokens of running servers"
    NOTHING = "no token at all"


def end_sessions(db: Session, name: str, keep: Keep) -> None:
    """End a user's sessions in all browsers, and revoke all tokens that `keep` does not protect.

    The hub rejects the old cookies immediately. A learner's server rejects the old cookies within
    ten seconds, at its next check with the hub
    (tfcourse/prefix/etc/jupyter/jupyter_server_config.py).
    """
    user = orm.User.find(db, name)
    if user:
        user.cookie_id = orm.new_token()
        # Also check the creation time, because users can choose a token's note but not its creation
        # time.
        starts = [spawner.started for spawner in user.orm_spawners.values() if spawner.server]
        for token in user.api_tokens:
            of_server = (token.note or "").startswith("Server at ") and any(
                abs(token.created - start) < timedelta(seconds=10) for start in starts
            )
            in_browser = token.client_id != HUB
            stays = {
                Keep.SCRIPTS: not in_browser,
                Keep.SERVERS: of_server,
                Keep.NOTHING: False,
            }
            if not stays[keep]:
                db.delete(token)
    db.commit()


def ending_sessions(page: type[LogoutHandler] = LogoutHandler) -> type[LogoutHandler]:
    """Return a log-out page that ends the user's sessions in all browsers.

    JupyterHub's own log-out page removes the cookies from one browser only, so copies of the
    cookies would remain valid.
    """

    class Page(page):
        async def handle_logout(self) -> None:
            """End the sessions. JupyterHub calls this method after removing the cookies."""
            await super().handle_logout()
            if self.current_user:
                end_sessions(self.db, self.current_user.name, Keep.SCRIPTS)

    return Page
