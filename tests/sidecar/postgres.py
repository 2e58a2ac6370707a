"""A real PostgreSQL for OpenBao's database engine, from the distribution's packages."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.openbao import OpenBao
from tests.support.ports import free_port
from tests.support.until import until

PASSWORD = "of-the-database-engine"
_CREATE = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"


def program(name: str) -> str:
    """Its path; skips, with the reason, where it is missing."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    path = str(found[0]) if found else shutil.which(name)
    if path is None:
        pytest.skip(packages.without("postgresql"))
    return path


@dataclass
class Postgres:
    """A running server on loopback; `user` is whom its processes run as."""

    port: int
    user: str

    def accepts(self, name: str, password: str) -> bool:
        """Whether somebody can log in."""
        command = [
            program("psql"),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            name,
            "-d",
            "postgres",
            "-Atc",
            "SELECT 1",
        ]
        environment = {"PGPASSWORD": password, "PGCONNECT_TIMEOUT": "60", "PATH": os.environ["PATH"]}
        return subprocess.run(command, env=environment, capture_output=True).returncode == 0

    def offer(self, server: OpenBao, role: str, ttl: str, max_ttl: str) -> None:
        """The database engine at `database`, with a role of this name."""
        if "database/" not in server.done("GET", "sys/mounts")["data"]:
            server.done("POST", "sys/mounts/database", {"type": "database"})
        server.done(
            "POST",
            "database/config/shop",
            {
                "plugin_name": "postgresql-database-plugin",
                "allowed_roles": "*",
                "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{self.port}/postgres?sslmode=disable",
                "username": self.user,
                "password": PASSWORD,
            },
        )
        body = {"db_name": "shop", "creation_statements": [_CREATE], "default_ttl": ttl, "max_ttl": max_ttl}
        server.done("POST", f"database/roles/{role}", body)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Initialised and started; stopped at the end. It refuses to run as root, so root makes it somebody else's."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _running(Path(folder))


def _running(folder: Path) -> Iterator[Postgres]:
    initdb, server = program("initdb"), program("postgres")
    user = _unprivileged()
    (folder / "password").write_text(PASSWORD)
    data = folder / "data"
    data.mkdir(0o700)
    if os.getuid() == 0:
        for each in (folder, data, folder / "password"):
            shutil.chown(each, user)
    as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    made = subprocess.run(
        [initdb, "-D", data, "-U", user, "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"],
        capture_output=True,
        text=True,
        cwd="/",
        **as_user,  # type: ignore[call-overload]
    )
    assert made.returncode == 0, made.stderr
    port = free_port()
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    command = [server, "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]
    log = folder / "postgres.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd="/", **as_user)  # type: ignore[call-overload]
    try:
        until(lambda: process.poll() is not None or "ready to accept connections" in log.read_text())
        assert process.poll() is None, log.read_text()
        yield Postgres(port, user)
    finally:
        process.send_signal(signal.SIGINT)  # "fast": it does not wait for those who are connected
        process.wait(120)


def _unprivileged() -> str:
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("no PostgreSQL: this machine has neither a user postgres nor nobody for it to run as")
