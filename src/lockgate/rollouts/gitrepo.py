"""Reads a branch of a git repository with the git program: what is newest, and the files of a commit.

Called by the control plane's tick and by commands, never by a request. Git gets no prompt, no hooks (nothing is
checked out: files are read object by object) and only the protocols that fetch.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path, PurePosixPath

from lockgate.errors import InputError, Unavailable

TIMEOUT = 60.0
MOST_BYTES = 200_000_000
"""Of all files of a commit together."""
MOST_FILES = 50_000


class Repository:
    """A bare mirror of one branch, kept below the state folder."""

    def __init__(self, source: str, branch: str, mirror: Path, *, token: str | None = None) -> None:
        """``source`` is a path or a URL."""
        for name, value in (("repository", source), ("branch", branch)):
            if not value or value.startswith("-") or any(ord(each) < 32 for each in value):
                raise InputError(f"gitops.{name} is {value!r}", remedy="name a path or URL, and a branch")
        self.source = source
        self.branch = branch
        self._mirror = mirror
        self._token = token

    def newest(self) -> str:
        """Fetch the branch; its newest commit. Raises :class:`Unavailable` when that cannot be had."""
        if not (self._mirror / "HEAD").is_file():
            self._mirror.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--bare", ".")
        reference = f"+refs/heads/{self.branch}:refs/heads/followed"
        self._git("fetch", "--quiet", "--no-tags", "--depth=50", "--", self._url(), reference)
        return self._git("rev-parse", "--verify", "refs/heads/followed^{commit}").decode().strip()

    def write(self, commit: str, folder: Path) -> None:
        """The commit's regular files below ``folder``, whole or not at all. Links and submodules are left out."""
        if folder.is_dir():
            return
        fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            files = self._files(commit)
            fresh.mkdir(parents=True)
            wanted = "".join(f"{blob}\n" for blob, _ in files).encode()
            out = self._git("cat-file", "--batch", stdin=wanted)
            at = 0
            for _, path in files:
                end = out.index(b"\n", at)
                size = int(out[at:end].split()[-1])
                target = fresh / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(out[end + 1 : end + 1 + size])
                at = end + size + 2
            os.rename(fresh, folder)
        except OSError as failure:
            raise Unavailable(f"commit {commit[:12]} cannot be written out: {failure}") from failure
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _files(self, commit: str) -> list[tuple[str, str]]:
        found, total = [], 0
        for line in self._git("ls-tree", "-r", "-z", "-l", "--full-tree", commit).split(b"\0"):
            if not line:
                continue
            head, _, name = line.partition(b"\t")
            mode, kind, blob, size = head.split()
            path = name.decode("utf-8", "strict")
            parts = PurePosixPath(path).parts
            if kind != b"blob" or mode == b"120000":
                continue
            if path.startswith("/") or ".." in parts or ".git" in parts or "\\" in path:
                raise InputError(f"commit {commit[:12]} has the unsafe path {path!r}", remedy="remove it")
            total += int(size)
            found.append((blob.decode(), path))
        if total > MOST_BYTES or len(found) > MOST_FILES:
            raise InputError(
                f"commit {commit[:12]} has {len(found)} files of {total} bytes",
                remedy=f"keep it below {MOST_FILES} files and {MOST_BYTES} bytes",
            )
        return found

    def _url(self) -> str:
        return str(Path(self.source).resolve()) if "://" not in self.source and ":" not in self.source else self.source

    def _git(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "file:https:http:ssh",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        }
        if self._token is not None:  # in the environment: an argument can be read by every user
            secret = base64.b64encode(f"x-access-token:{self._token}".encode()).decode()
            environment |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "http.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: Basic {secret}",
            }
        command = ["git", "--git-dir", str(self._mirror), *arguments]
        if arguments[0] == "init":
            command = ["git", "-C", str(self._mirror), *arguments]
        try:
            done = subprocess.run(
                command, input=stdin or b"", capture_output=True, timeout=TIMEOUT, env=environment, check=False
            )
        except FileNotFoundError:
            raise Unavailable("git is not installed", remedy="install git where the control plane runs") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"git {arguments[0]} took more than {TIMEOUT:.0f} s") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            if any("could not read Username" in line or "Authentication failed" in line for line in said):
                raise Unavailable(f"git {arguments[0]}: the repository wants other credentials: see gitops.token")
            raise Unavailable(f"git {arguments[0]}: {said[-1] if said else done.returncode}")
        return done.stdout
