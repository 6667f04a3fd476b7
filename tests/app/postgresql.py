"""A PostgreSQL of the tests' own, on a socket in a temporary folder, with a schema for every test.

with cluster() as server: address = server.new_schema()
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

# One for whom the server asks for a password; everybody else is let in.
GUARDED, PASSWORD = "guarded", "s3same-street"


@dataclass
class Cluster:
    folder: Path
    account: str | None  # whose the server is, where it is not ours
    schemas: int = 0

    def run(self, *command: str | Path) -> None:
        done = subprocess.run(
            command, cwd=self.folder, user=self.account, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr.strip() or done.stdout.strip())

    def start(self) -> None:
        settings = f"-h '' -k {self.folder} -F -c max_connections=200"
        self.run("pg_ctl", "start", "-w", "-s", "-D", self.folder / "data", "-l", self.folder / "log", "-o", settings)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-s", "-D", self.folder / "data", "-m", "immediate")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """-> the rows, of a statement that gives some"""
        with psycopg.connect(self.address().replace("+psycopg", ""), autocommit=True) as db:
            cursor = db.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def address(self, database: str = "postgres", user: str = "easel", more: str = "") -> str:
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}{more}"

    def new_schema(self) -> str:
        """The address of an empty one."""
        self.schemas += 1
        self.execute(f"CREATE SCHEMA t{self.schemas}")
        return self.address(more=f"&options=-csearch_path%3Dt{self.schemas}")


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Skips the test where there can be none."""
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("PostgreSQL's initdb and pg_ctl are not on this machine")
    # Not in pytest's folder: a socket's path is short, and the server may be another account's.
    with tempfile.TemporaryDirectory(prefix="easel-pg-") as name, contextlib.ExitStack() as stack:
        server = Cluster(Path(name), None)
        try:
            if os.getuid() == 0:  # as which PostgreSQL refuses to run
                accounts = {entry.pw_name for entry in pwd.getpwall()}
                server.account = "postgres" if "postgres" in accounts else "nobody"
                shutil.chown(server.folder, server.account)
            server.run("initdb", "-D", "data", "-U", "easel", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
            rules = server.folder / "data" / "pg_hba.conf"
            rules.write_text(f"local all {GUARDED} scram-sha-256\n{rules.read_text()}")
            server.start()
            stack.callback(server.stop)
            server.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
        except (OSError, RuntimeError, subprocess.SubprocessError, psycopg.Error) as error:
            pytest.skip(f"PostgreSQL cannot be started here: {error}")
        yield server
