# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Puts a folder on the hub, in one commit or not at all.

Files go up first, under their checksums and belonging to no branch, so what is there already is not sent again when a
push is repeated. The commit that makes them visible names the commit it was prepared for: whoever pushed in between is
noticed. What the hub lists afterwards is compared with the folder.
"""

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from ..cards.origin import check_repo_id
from ..checkpoints.checksums import file_checksum
from .errors import (
    LOGIN,
    MOVED_STATUSES,
    HTTPError,
    advice_for,
    cause_of,
    is_transient,
    reason_of,
    retry_after,
    status_of,
)


# Seconds before each further try, beside the tries that huggingface_hub makes for single files.
RETRY_WAITS = (2, 8, 30)
LONGEST_WAIT = 300
# By type of repository, files that an earlier version of a published folder may have left, and pickles, which nobody
# shall find beside it.
STALE = {
    "model": re.compile(
        r"[^/]+\.(safetensors|safetensors\.index\.json|py|bin|bin\.index\.json|pt|pth|ckpt|pkl|pickle|msgpack|h5)"
    ),
    "kernel": re.compile("build/.+"),
}


class PushError(ValueError):
    """A push that did not happen; the message says why, what became of the hub's side, and what to do."""


@dataclasses.dataclass(frozen=True)
class Target:
    """
    Where a folder goes.

    Args:
        repo_id: USER/NAME; made if there is none.
        revision: Branch; made from the main one if there is none.
        private: Whether only its owners see a repository that is made.
        message: Of the commit.
        repo_type: "model" or "kernel", by the hub's word.
    """

    repo_id: str
    revision: str = "main"
    private: bool = False
    message: str = "Publish checkpoint"
    repo_type: str = "model"

    def __str__(self) -> str:
        return f"{self.repo_id} (branch {self.revision})"


def push(folder: Path, target: Target, report: Callable[[str], None] = print) -> str:
    """
    Makes a branch on the hub hold the files of a folder.

    Files of the branch stay, but for weights, code and pickles that the folder does not have.

    Args:
        folder: All files in it and in folders below it.
        target: Where it goes.
        report: Gets a line of text for each thing worth knowing.

    Returns:
        The commit's id; that of the branch's head if it has these files already.

    Raises:
        ValueError: if the hub could not have a repository of that name.
        PushError: in one sentence. The branch is then as it was, unless the sentence says that this is not known.
    """
    check_repo_id(target.repo_id)
    made = Push(folder, target, report)
    try:
        return made.run()
    except (OSError, HTTPError) as error:  # for one, a repository that was removed in the middle
        raise made.explained(error, "pushing") from None


class Push:
    """One push; see `push`."""

    def __init__(self, folder: Path, target: Target, report: Callable[[str], None]):
        self.target, self.report = target, report
        self.api = HfApi(library_name="modeling_pixelvit")
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        self.files = {path.relative_to(folder).as_posix(): path for path in paths}
        self.made_repository = False
        self.situation = f"Branch {target.revision} of {target.repo_id} is as it was"  # what errors end with
        self.checksums: dict[str, str] = {}

    def run(self) -> str:
        self.check_login()
        parent = self.find_head()
        # Made once: they remember what has been sent, so that another try does not send it again.
        additions = [CommitOperationAdd(name, str(path)) for name, path in self.files.items()]
        commit = self.commit(parent, additions)
        self.situation = (
            f"Commit {commit[:12]} was made, but not yet compared with the folder: the same command does that"
        )
        wrong = self.differing_files(commit)
        if wrong:
            raise PushError(
                f"The hub lists {wrong[0]} of commit {commit[:12]} with another size or checksum than the file here; "
                "give the same command again, and do not use this commit."
            )
        return commit

    def check_login(self):
        """Who is logged in, and whether the repository can be theirs."""
        user = self.tried("asking who is logged in", self.api.whoami)
        name, owner = user.get("name"), self.target.repo_id.partition("/")[0]
        token = (user.get("auth") or {}).get("accessToken") or {}
        if token.get("role") == "read":
            raise PushError(f"The token of {name} may only read. {LOGIN}; nothing has changed on the hub.")
        owners = [name, *(organization.get("name") for organization in user.get("orgs") or ())]
        if owner.lower() not in [str(known).lower() for known in owners]:
            raise PushError(
                f"--repo-id {self.target.repo_id} was given, but {name} is logged in, who writes to "
                f"{', '.join(owners)}; give one of these, or log in as somebody else. Nothing has changed on the hub."
            )

    def find_head(self) -> str | None:
        """The branch's last commit; repository and branch are made if need be."""
        target = self.target
        try:
            info = self.look_for_repository()
        except RepositoryNotFoundError:
            self.tried(
                "making the repository",
                lambda: self.api.create_repo(
                    target.repo_id, private=target.private, exist_ok=True, repo_type=target.repo_type
                ),
            )
            self.made_repository = True
            self.situation = f"{target.repo_id} was made, and has no files of this folder yet"
            self.report(f"made the {'private ' if target.private else ''}repository {target.repo_id}")
            info = self.look_for_repository()
        if info.id.lower() != target.repo_id.lower():
            raise PushError(
                f"{target.repo_id} has moved to {info.id}; give --repo-id {info.id}. Nothing has changed on the hub."
            )
        if target.private and not self.made_repository and not info.private:
            raise PushError(
                f"{target.repo_id} is there already and is public; make it private in its settings on the hub, or "
                "leave out --private. Nothing has changed on the hub."
            )
        try:
            return self.head()
        except RevisionNotFoundError:
            self.tried(
                "making the branch",
                lambda: self.api.create_branch(
                    target.repo_id, branch=target.revision, exist_ok=True, repo_type=target.repo_type
                ),
            )
            self.report(f"made the branch {target.revision}")
            return self.head()

    def look_for_repository(self) -> Any:
        target = self.target
        return self.tried(
            "looking for the repository", lambda: self.api.repo_info(target.repo_id, repo_type=target.repo_type)
        )

    def head(self) -> str | None:
        target = self.target
        info = self.tried(
            "looking for the branch",
            lambda: self.api.repo_info(target.repo_id, revision=target.revision, repo_type=target.repo_type),
        )
        return info.sha

    def commit(self, parent: str | None, additions: list[CommitOperationAdd]) -> str:
        """Sends the files and makes the commit, in as many tries as it takes and make sense."""
        target = self.target

        def once() -> str:
            pattern = STALE[target.repo_type]
            stale = [name for name in self.listed(parent) if pattern.fullmatch(name) and name not in self.files]
            operations = [*additions, *(CommitOperationDelete(name, is_folder=False) for name in stale)]
            info = self.api.create_commit(
                target.repo_id,
                operations,
                commit_message=target.message,
                revision=target.revision,
                parent_commit=parent,
                repo_type=target.repo_type,
            )
            return info.oid

        for wait in (*RETRY_WAITS, None):
            try:
                return once()
            except Exception as error:
                landed = self.landed(parent, error)
                if landed is not None:
                    return landed
                if wait is None or not is_transient(error):
                    raise self.explained(error, "uploading") from None
                self.pause(wait, error)
        raise AssertionError("the last try returns or raises")

    def landed(self, parent: str | None, error: Exception) -> str | None:
        """
        The head if it holds the folder's files after a try that failed: only the answer got lost, or somebody else
        pushed the same.

        Raises:
            PushError: if the head has moved and holds something else, or the hub cannot be asked.
        """
        cause = cause_of(error)
        if not is_transient(cause) and status_of(cause) not in MOVED_STATUSES:
            return None
        before = self.situation
        self.situation = "Whether the commit arrived before is not known: the same command finds out"
        head = self.head()
        if head == parent:
            self.situation = before
            return None
        if not self.differing_files(head):
            return head
        raise PushError(
            f"Somebody else pushed to {self.target} in the meantime: its head is {str(head)[:12]}, and was "
            f"{str(parent)[:12]}. Theirs was not overwritten; look at it, and give the same command again if yours "
            "shall follow."
        )

    def listed(self, revision: str | None) -> dict[str, RepoFile]:
        """The files of a commit; those in folders left out, where the folder has none."""
        if revision is None:
            return {}
        target, recursive = self.target, any("/" in name for name in self.files)
        entries = self.tried(
            "listing the files",
            lambda: list(
                self.api.list_repo_tree(
                    target.repo_id, revision=revision, recursive=recursive, repo_type=target.repo_type
                )
            ),
        )
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def differing_files(self, revision: str | None) -> list[str]:
        """Files of the folder that a commit does not have, or has with another size or checksum."""
        listed = self.listed(revision)
        return [name for name, path in self.files.items() if not self.is_same(path, listed.get(name))]

    def is_same(self, path: Path, entry: RepoFile | None) -> bool:
        if entry is None or entry.size != path.stat().st_size:
            return False
        if entry.lfs is not None:
            return entry.lfs.sha256 == self.checksum(path, "sha256")
        return entry.blob_id == self.checksum(path, "git")

    def checksum(self, path: Path, kind: str) -> str:
        """SHA-256, or git's own of a file that is not in large file storage."""
        key = f"{kind} {path}"
        if key not in self.checksums:
            self.checksums[key] = file_checksum(path) if kind == "sha256" else git_checksum(path)
        return self.checksums[key]

    def tried(self, doing: str, request: Callable[[], Any]) -> Any:
        """What a request returns, tried again while it may help."""
        for wait in (*RETRY_WAITS, None):
            try:
                return request()
            except (RepositoryNotFoundError, RevisionNotFoundError) as error:
                if doing.startswith("looking"):
                    raise
                raise self.explained(error, doing) from None
            except (OSError, HTTPError, json.JSONDecodeError) as error:
                if wait is None or not is_transient(error):
                    raise self.explained(error, doing) from None
                self.pause(wait, error)
        raise AssertionError("the last try returns or raises")

    def pause(self, wait: float, error: Exception):
        seconds = max(wait, min(LONGEST_WAIT, retry_after(error)))
        self.report(f"{reason_of(error)}; trying again in {seconds:g} seconds")
        time.sleep(seconds)

    def explained(self, error: Exception, doing: str) -> PushError:
        """One sentence or two: what failed, what to do, and how the hub's side is."""
        cause = cause_of(error)
        what = f"{doing[0].upper()}{doing[1:]} failed: {reason_of(cause)}"
        return PushError(f"{what}. {advice_for(cause, self.target.repo_id, self.target.repo_type)}. {self.situation}.")


def git_checksum(path: Path) -> str:
    """What git names a file's content by; read whole, since only small files are not in large file storage."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
