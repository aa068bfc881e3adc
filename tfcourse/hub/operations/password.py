"""Give an account a new password: `make password NAME=instructor`.

This module writes to the hub's database. A running hub does not read the database again, so
`make password` then restarts the hub. On a cluster, an operator runs this module in the hub's pod
(docs/kubernetes.md).
"""

from __future__ import annotations

import argparse
import sys

from jupyterhub import orm
from nativeauthenticator.orm import UserInfo

from tfcourse.hub import database, say, state
from tfcourse.hub.accounts import passwords, sessions
from tfcourse.hub.accounts import setup as accounts


def main() -> None:
    """Create the password, show it once, and log the account's owner out."""
    if accounts.kind() != "native":
        sys.exit("This hub has no passwords, because people log in with another service.")
    parser = argparse.ArgumentParser(prog="python -m tfcourse.hub.operations.password")
    parser.add_argument("name", help="the account's user name")
    parser.add_argument("--database", help="the database, such as sqlite:///jupyterhub.sqlite")
    options = parser.parse_args()
    name = options.name
    where = options.database or database.url(state.state_folder() / "hub")
    db = orm.new_session_factory(where)()
    # No account's name has bytes that are not text, and a query with such bytes would fail.
    info = UserInfo.find(db, name) if name.isprintable() else None
    if info is None:
        sys.exit(f"There is no account {name!r}. Give its name: make password NAME=instructor")
    password = state.new_password()
    info.password = passwords.hashed(password)
    sessions.end_sessions(db, name, sessions.Keep.SERVERS)
    say(f"""
  Name      {name}
  Password  {password}

The password is not shown again. It works once the hub has restarted, which takes a few seconds.""")


if __name__ == "__main__":
    main()
