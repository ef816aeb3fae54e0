"""What is below a ledger."""

from __future__ import annotations

import csv
import io
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from stack.postgres import Postgres, binaries


class Database:
    """A file of SQLite's, or a server of PostgreSQL's."""

    def __init__(self, directory: Path, name: str) -> None:
        self.file = directory / "ledger.db"
        self.server = Postgres() if name == "postgres" else None
        self.url = self.server.database() if self.server else f"sqlite:{self.file}"

    def rows(self, query: str) -> list[list[str]]:
        """What a query finds, past the service."""
        if self.server is None:
            with closing(sqlite3.connect(self.file, timeout=60)) as connection:
                return [[str(value) for value in row] for row in connection.execute(query)]
        done = subprocess.run([binaries() / "psql", "--csv", "--tuples-only", "-qc", query, self.url], check=True, capture_output=True, text=True)
        return list(csv.reader(io.StringIO(done.stdout)))

    def stop(self) -> None:
        """It is not needed any more."""
        if self.server:
            self.server.stop()
