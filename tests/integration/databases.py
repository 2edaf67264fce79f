"""PostgreSQL and Redis, really started: on loopback, in a temporary directory, as nobody special.

conftest.py has the fixtures; each server runs once per session. Neither may run as root, so where
the tests do, the servers get the rights of a system user, who then owns the directory.
"""

import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

from certificates import CA, CERTS
from helpers import LINUX, PATIENCE, WINDOWS

# A port that was free a moment ago can be taken now.
ATTEMPTS = 5


class NotInstalled(Exception):
    """The server is not here; the text says what was looked for."""


class Database:
    """A server process. Subclasses say how it is installed, started and recognised as ready."""

    name = ""
    ready = ""
    users = ()
    stop_signal = signal.SIGTERM

    def __init__(self):
        self.version = None
        self.host = "127.0.0.1"
        self.port = 0
        self.lines = []
        self._process = None
        self._reader = None
        self._changed = threading.Condition()

    # -------------------------------------------------------- what subclasses say

    def find(self):
        """Look for the programs; NotInstalled where they are not."""
        raise NotImplementedError

    def prepare(self):
        """What is done once in the new directory."""

    def command(self):
        """The command line, for `self.port`."""
        raise NotImplementedError

    # -------------------------------------------------------- start and stop

    def __enter__(self):
        if WINDOWS:
            raise NotInstalled("these tests start it as it is started on Unix")
        self.find()
        # Short, because the path of a Unix socket may have 107 characters only.
        self.directory = Path(tempfile.mkdtemp(prefix="veloop-"))
        try:
            self._own(self.directory)
            self.certificate = self._copy(CERTS / "server.pem")
            self.authority = self._copy(CA)
            self.prepare()
            for _ in range(ATTEMPTS):
                self.port = free_port()
                if self._start():
                    return self
                self._stop()
                if "in use" not in self.output:
                    break
            raise AssertionError(f"{self.name} does not start:\n{self.output}")
        except BaseException:
            self._clean_up()
            raise

    def __exit__(self, *exc_info):
        code = self._clean_up()
        assert code == 0, f"{self.name} ended with exit code {code}:\n{self.output}"

    def _clean_up(self):
        try:
            return self._stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _copy(self, path):
        """A file of ours, for the server and nobody else."""
        copy = self.directory / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        self._own(copy)
        return copy

    @property
    def output(self):
        return "\n".join(self.lines)

    def run(self, *command, check=True):
        """One program to its end, with the server's rights; its output."""
        done = subprocess.run(
            command,
            **self._rights(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def _rights(self):
        """Arguments for subprocess that make it an unprivileged user's process."""
        # What is loaded ahead of the tests, a sanitizer, is no business of the server's.
        env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        if os.geteuid() != 0:
            return {"env": env}
        user = self._user()
        return {"env": env, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _leash(self):
        """What ends the server with the tests, also where these are killed (by pytest-timeout)."""
        setpriv = shutil.which("setpriv") if LINUX else None
        return [setpriv, "--pdeathsig", self.stop_signal.name[3:], "--"] if setpriv else []

    def _user(self):
        import pwd

        for name in self.users:
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise NotInstalled(f"root may not run {self.name}, and none of {self.users} is a user here")

    def _own(self, path):
        if os.geteuid() == 0:
            user = self._user()
            os.chown(path, user.pw_uid, user.pw_gid)

    def _start(self):
        """Whether it came up."""
        self.lines.clear()
        self._process = subprocess.Popen(
            [*self._leash(), *self.command()],
            **self._rights(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name=f"{self.name} log", daemon=True)
        self._reader.start()
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready() or not self._reader.is_alive(), 60)
            return self._is_ready()

    def _is_ready(self):
        return any(self.ready in line for line in self.lines)

    def _read(self):
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.lines.append("(end of the log)")
            self._changed.notify_all()

    def _stop(self):
        """The exit code; a server that does not end by itself is killed."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(self.stop_signal)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self._reader.join(PATIENCE)
        process.stdout.close()
        return code


class PostgreSQL(Database):
    """`initdb` and `postgres`. TLS with the server's certificate of certs/, on the same port."""

    name = "PostgreSQL"
    ready = "database system is ready to accept connections"
    users = ("postgres", "nobody")
    # "Fast shutdown": it does not wait for clients.
    stop_signal = signal.SIGINT

    user = "tester"
    password_user = "secretive"
    password = "sesame"

    def find(self):
        # Debian keeps the programs of each version in a folder of its own, the newest is last.
        folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=_numbers, reverse=True)
        path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])
        found = {name: shutil.which(name, path=path) for name in ("initdb", "postgres")}
        missing = [name for name, where in found.items() if where is None]
        if missing:
            raise NotInstalled(
                f"no {' and no '.join(missing)} in PATH or /usr/lib/postgresql/*/bin"
            )
        self._initdb, self._postgres = found["initdb"], found["postgres"]

    def prepare(self):
        self._data = self.directory / "data"
        self.version = self.run(self._postgres, "--version").split()[2]
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self.run(self._initdb, "-D", str(self._data), "-U", self.user, *options)
        # The one user who needs a password comes first: the first line that fits counts.
        rules = self._data / "pg_hba.conf"
        rule = f"host all {self.password_user} 127.0.0.1/32 scram-sha-256\n"
        rules.write_text(rule + rules.read_text())

    def command(self):
        settings = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": self.directory,
            "ssl": "on",
            "ssl_cert_file": self.certificate,
            "ssl_key_file": self.certificate,
            "fsync": "off",
            "max_connections": 60,
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [self._postgres, "-D", str(self._data), *options]


class Redis(Database):
    """`redis-server`, on a TCP port, a Unix socket and, where it was built so, a port with TLS."""

    name = "Redis"
    ready = "Ready to accept connections"
    users = ("redis", "nobody")

    def find(self):
        self._server = shutil.which("redis-server")
        if self._server is None:
            raise NotInstalled("no redis-server in PATH")

    def prepare(self):
        self.unix_path = str(self.directory / "redis.sock")
        self.version = re.search(r"v=(\S+)", self.run(self._server, "--version")).group(1)
        # With nothing to listen on it ends at once; without TLS it complains of the setting before.
        complaint = self.run(self._server, "--port", "0", "--tls-port", "0", check=False)
        self.has_tls = "FATAL CONFIG" not in complaint
        self.tls_port = None

    def command(self):
        command = [self._server, "--bind", self.host, "--port", str(self.port)]
        command += ["--unixsocket", self.unix_path, "--dir", str(self.directory)]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        if self.has_tls:
            self.tls_port = free_port()
            command += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", str(self.certificate)]
            command += ["--tls-key-file", str(self.certificate)]
            command += ["--tls-ca-cert-file", str(self.authority)]
        return command


def free_port():
    """One that nobody has at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _numbers(path):
    return [int(part) for part in re.findall(r"\d+", path)]
