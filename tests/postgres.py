"""A PostgreSQL server in a container, for tests."""

from __future__ import annotations

import io
import secrets

import docker
import psutil
import psycopg
from hubs import IMAGE, free_ports, run_in, wait_until

POSTGRES = """
FROM debian:trixie-slim
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/*
USER postgres
"""
SERVE = """
PATH=$PATH:$(echo /usr/lib/postgresql/*/bin); cd /tmp
if [ ! -d data ]; then
    echo "$PASSWORD" >password
    initdb --pgdata data --username hub --pwfile password --auth scram-sha-256 >/dev/null
fi
exec postgres -D data -c port="$PORT" -c unix_socket_directories=/tmp
"""


class Postgres:
    """A PostgreSQL server that accepts connections only from this machine."""

    def __init__(self, engine: docker.DockerClient):
        self.engine, self.port, self.password = engine, free_ports(), secrets.token_hex()
        self.url = f"postgresql://hub:{self.password}@127.0.0.1:{self.port}/postgres"
        self.container = None

    def start(self) -> None:
        image, _ = self.engine.images.build(
            fileobj=io.BytesIO(POSTGRES.encode()), tag=f"{IMAGE}-postgres", rm=True
        )
        self.container = self.engine.containers.run(
            image,
            ["sh", "-c", SERVE],
            environment={"PASSWORD": self.password, "PORT": str(self.port)},
            network_mode="host",
            detach=True,
        )
        wait_until(self.answers, "the server answers")

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def process(self) -> psutil.Process:
        """Return the server's main process, which is the parent of its other processes."""
        self.container.reload()
        return psutil.Process(self.container.attrs["State"]["Pid"])

    def run(self, command: str) -> str:
        """Run a shell command in the container with access to the database; return its output."""
        place = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PORT": str(self.port)}
        who = {"PGUSER": "hub", "PGPASSWORD": self.password, "PGDATABASE": "postgres"}
        return run_in(self.container, "sh", "-c", f"cd /tmp\n{command}", **place, **who)

    def remove(self) -> None:
        """If the server was started, remove its container and volumes."""
        if self.container:
            self.container.remove(force=True, v=True)
