"""A PostgreSQL of our own: an empty cluster in a temporary directory, on a Unix socket alone, gone when it is stopped.

    python3 -m stack.postgres       prints {"url": …} when it is ready, and runs until its standard input ends

Its server refuses to run as root; then it is run as the user `postgres`, or `nobody`.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from .process import Process
from .tools import Missing, say

INSTALL = "PostgreSQL is missing. On Debian and Ubuntu: apt-get install postgresql"
# Its data dies with it: nothing has to reach a disk.
SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "listen_addresses": "", "max_connections": "300",
            "logging_collector": "off"}


def binaries() -> Path:
    """The directory of initdb and postgres, the newest that is installed."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    for directory in found:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise Missing(INSTALL)


class Postgres:
    """A running server; `database` makes databases in it."""

    def __init__(self) -> None:
        self.bin = binaries()
        self.home = Path(tempfile.mkdtemp(prefix="x402-postgres-"))
        user = self._unprivileged()
        data, run = self.home / "data", self.home / "run"
        for directory in (self.home, data, run):
            directory.mkdir(exist_ok=True, mode=0o700)
            if user:
                os.chown(directory, user.pw_uid, user.pw_gid)
        # Its clients are of the user who runs the tests.
        self.home.chmod(0o711)
        run.chmod(0o711)
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if user else []
        made = subprocess.run([*become, self.bin / "initdb", "-D", data, "-U", "x402", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
                              cwd=self.home, capture_output=True, text=True)
        if made.returncode != 0:
            raise Missing(f"initdb failed:\n{made.stdout}{made.stderr}")
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        self._serves = [*become, self.bin / "postgres", "-D", data, "-k", run, *settings]
        self.run = run
        self._databases = 0
        self.start()

    def start(self) -> None:
        """Until it answers; after `kill`, with what was committed."""
        self.process = Process(self._serves, self.home / "postgres.log", cwd=self.home)
        self.process.wait_ready(lambda: self._psql("SELECT 1"))

    def kill(self) -> None:
        """As a crash would: nobody's transaction is finished."""
        os.kill(self.process.pid, signal.SIGQUIT)
        self.process.stop(grace=10)

    @staticmethod
    def _unprivileged() -> pwd.struct_passwd | None:
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise Missing("PostgreSQL does not run as root, and there is neither a user postgres nor nobody. " + INSTALL)

    def _psql(self, sql: str) -> str:
        done = subprocess.run([self.bin / "psql", "-h", self.run, "-U", "x402", "-d", "postgres", "-Atqc", sql], capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(done.stderr)
        return done.stdout

    def url(self, database: str = "postgres") -> str:
        """Where it is."""
        return f"postgres://x402@localhost/{database}?host={self.run}"

    def database(self) -> str:
        """A new, empty database; its URL."""
        self._databases += 1
        name = f"ledger{self._databases}"
        self._psql(f"CREATE DATABASE {name}")
        return self.url(name)

    def stop(self) -> None:
        """Ends it, whoever is connected, and removes its data."""
        if self.process.running():
            os.kill(self.process.pid, signal.SIGINT)
        self.process.stop(grace=10)
        shutil.rmtree(self.home, ignore_errors=True)


def main() -> int:
    try:
        server = Postgres()
    except Missing as problem:
        say(str(problem))
        return 1
    try:
        print(json.dumps({"url": server.url()}), flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
