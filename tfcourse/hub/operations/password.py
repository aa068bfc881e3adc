"""Set a new password for an account: `make password NAME=instructor`.

This module writes to the hub's database. A running hub does not reread the database, so `make
password` restarts the hub afterwards. On a cluster, an operator runs this module in the hub's pod
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
    """Create a password, print it once, and end the user's sessions."""
    if accounts.kind() != "native":
        sys.exit("This hub has no passwords, because people log in with another service.")
    parser = argparse.ArgumentParser(prog="python -m tfcourse.hub.operations.password")
    parser.add_argument("name", help="the account's user name")
    parser.add_argument("--database", help="the database, such as sqlite:///jupyterhub.sqlite")
    options = parser.parse_args()
    name = options.name
    where = options.database or database.url(state.state_folder() / "hub")
    db = orm.new_session_factory(where)()
    # Do not look up a name with undecodable bytes. No account has such a name, and the query would
    # fail.
    info = UserInfo.find(db, name) if name.isprintable() else None
    if info is None:
        sys.exit(f"There is no account {name!r}. Give its name: make password NAME=instructor")
    password = state.new_password()
    info.password = passwords.hashed(password)
    sessions.end_sessions(db, name, sessions.Keep.SERVERS)
    say(f"""
  Name      {name}
  Password  {password}

The password is not shown again. You can use it in a few seconds, after the hub has restarted.""")


if __name__ == "__main__":
    main()
