# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Pushing folders to a local server that speaks the hub's API, and what becomes of pushes that fail."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import hub_server_xet  # noqa: F401 (teaches the server Xet)
import huggingface_hub.constants
import pytest
from hub_server import TOKEN, Fault

from training.hub import upload as publish_upload
from training.hub.upload import PushError, Target, push


REPO = "tester/model"
TARGET = Target(REPO, message="Publish a test")
WEIGHTS = "model-00001-of-00002.safetensors"
COMMIT = rf"/api/models/{REPO}/commit/"


@pytest.fixture
def waits(monkeypatch):
    """Nobody waits; what would have been waited is listed."""
    seconds = []
    monkeypatch.setattr(publish_upload.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "folder")


def write_folder(path, weights=b"w" * 100_000, **files):
    path.mkdir()
    (path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (path / "config.json").write_text("{}")
    (path / WEIGHTS).write_bytes(weights)
    (path / "model-00002-of-00002.safetensors").write_bytes(b"second" + weights)
    for name, content in files.items():
        (path / name).write_text(content)
    return path


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_folder_becomes_one_commit(hub, folder):
    lines = []
    commit = push(folder, TARGET, lines.append)
    assert hub.files(REPO) == read(folder)
    assert [(made.oid, made.title) for made in hub.commits(REPO)] == [(commit, "Publish a test")]
    assert hub.bytes_received[sha256(folder / WEIGHTS)] == 100_000
    assert lines == [f"made the repository {REPO}"] and not hub.repositories[REPO].private


def test_same_folder_again_makes_no_commit_and_sends_nothing(hub, folder):
    first = push(folder, TARGET)
    received = hub.bytes_received.copy()
    assert push(folder, TARGET) == first
    assert len(hub.commits(REPO)) == 1 and hub.bytes_received == received


def test_changed_folder_replaces_weights_and_code_but_keeps_other_files(hub, folder, tmp_path):
    repository = hub.make(REPO)
    theirs = {"notes.txt": b"mine", "images/cat.jpg": b"cat", "pytorch_model.bin": b"\x80\x02", "old.py": b"old"}
    repository.add("main", "theirs", {**hub.head(REPO).files, **theirs})
    push(folder, TARGET)
    changed = write_folder(tmp_path / "changed", weights=b"v" * 1000)
    (changed / WEIGHTS).rename(changed / "model.safetensors")
    (changed / "model-00002-of-00002.safetensors").unlink()
    push(changed, TARGET)
    assert hub.files(REPO) == {**read(changed), "notes.txt": b"mine", "images/cat.jpg": b"cat"}
    assert len(hub.commits(REPO)) == 3


def test_large_files_go_in_parts(hub, folder):
    hub.part_bytes = 30_000
    push(folder, TARGET)
    assert hub.files(REPO) == read(folder)
    assert len(hub.parts[sha256(folder / WEIGHTS)]) == 4


def test_long_listings_are_read_to_their_end(hub, folder):
    hub.page_size = 2
    push(folder, TARGET)
    assert hub.files(REPO) == read(folder)


def test_branch_is_made_and_the_main_one_stays(hub, folder):
    hub.make(REPO)
    before = hub.head(REPO)
    push(folder, Target(REPO, revision="experiment"))
    assert hub.files(REPO, "experiment") == read(folder) and hub.head(REPO) is before


def test_private_repository(hub, folder):
    push(folder, Target(REPO, private=True))
    assert hub.repositories[REPO].private
    hub.make("tester/public")
    with pytest.raises(PushError, match="is there already and is public"):
        push(folder, Target("tester/public", private=True))
    assert hub.commits("tester/public") == []


@pytest.mark.parametrize(
    "path", ["whoami", r"/api/models/tester/model$", "validate-yaml", COMMIT, "preupload", "batch"]
)
@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429, "headers": {"Retry-After": "7"}}, {}])
def test_passing_faults_are_waited_out(hub, folder, waits, path, fault):
    method = "GET" if "$" in path or path == "whoami" else "POST"
    hub.faults = [Fault(method, path, **fault)]
    push(folder, TARGET)
    assert hub.files(REPO) == read(folder) and len(hub.commits(REPO)) == 1 and waits
    # Those two are tried again by huggingface_hub, of which earlier versions do not ask how long.
    if "headers" in fault and path not in ("preupload", "batch"):
        assert waits[0] >= 7


@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_connection_that_breaks_within_an_upload(hub, folder, waits, when):
    hub.faults = [Fault("PUT", sha256(folder / WEIGHTS), when=when)]
    push(folder, TARGET)
    assert hub.files(REPO) == read(folder) and len(hub.commits(REPO)) == 1
    sent = hub.bytes_received[sha256(folder / WEIGHTS)]
    assert sent == (200_000 if when == "after" else 100_000)


def test_commit_whose_answer_gets_lost_is_not_made_twice(hub, folder, waits):
    hub.faults = [Fault("POST", COMMIT, when="after")]
    commit = push(folder, TARGET)
    assert [made.oid for made in hub.commits(REPO)] == [commit] and hub.files(REPO) == read(folder)


@pytest.mark.parametrize(
    "fault, words",
    [
        (Fault("PUT", "/lfs/", status=500, times=99), "files that have arrived are not sent again"),
        (Fault("PUT", "/lfs/", when="within", times=99), "files that have arrived are not sent again"),
        (Fault("PUT", "/lfs/", status=403, times=99, message="Private storage is full"), "Private storage is full"),
        (Fault("POST", COMMIT, status=500, times=99), "Give the same command again later"),
        (Fault("POST", COMMIT, times=99), "Give the same command again later"),
        (Fault("POST", COMMIT, status=403, message="no rights"), "may write to tester/model"),
        (Fault("POST", COMMIT, status=401), "hf auth login"),
        (Fault("POST", COMMIT, status=409), "pushed there in the meantime"),
        (Fault("POST", COMMIT, status=412), "pushed there in the meantime"),
        (Fault("POST", COMMIT, status=400, message="invalid path"), "invalid path"),
        (Fault("POST", "preupload", status=404), "Check --repo-id"),
        (Fault("GET", "/tree/", status=502, times=99), "Give the same command again later"),
    ],
)
def test_push_that_fails_leaves_the_branch_and_says_so(hub, folder, waits, fault, words):
    hub.make(REPO)
    before = hub.head(REPO)
    hub.faults = [fault]
    with pytest.raises(PushError) as caught:
        push(folder, TARGET)
    message = str(caught.value)
    assert words in message and message.endswith(f"Branch main of {REPO} is as it was.") and "\n" not in message
    assert hub.head(REPO) is before and hub.commits(REPO) == []
    hub.faults = []
    push(folder, TARGET)
    assert hub.files(REPO) == read(folder) and len(hub.commits(REPO)) == 1


def test_only_errors_that_pass_are_tried_again(hub, folder, waits):
    hub.faults = [Fault("POST", COMMIT, status=403, times=99)]
    with pytest.raises(PushError):
        push(folder, TARGET)
    assert waits == [] and [path for method, path in hub.requests if "/commit/" in path] == [f"{COMMIT}main"]


def test_new_repository_is_named_if_the_push_into_it_fails(hub, folder, waits):
    hub.faults = [Fault("PUT", "/lfs/", status=500, times=99)]
    with pytest.raises(PushError, match="tester/model was made, and has no files of this folder yet"):
        push(folder, TARGET)


def test_what_has_arrived_is_not_sent_again(hub, folder, waits):
    second = sha256(folder / "model-00002-of-00002.safetensors")
    hub.faults = [Fault("PUT", second, status=500, times=99)]
    with pytest.raises(PushError):
        push(folder, TARGET)
    hub.faults = []
    push(folder, TARGET)
    assert hub.bytes_received[sha256(folder / WEIGHTS)] == 100_000


def test_push_of_others_in_between_is_not_overwritten(hub, folder):
    hub.make(REPO)

    def other_push():
        hub.repositories[REPO].add("main", "theirs", {**hub.head(REPO).files, "theirs.txt": b"theirs"})

    hub.faults = [Fault("POST", "validate-yaml", action=other_push)]
    with pytest.raises(PushError, match="Somebody else pushed to tester/model"):
        push(folder, TARGET)
    assert hub.files(REPO) == {"theirs.txt": b"theirs"}
    push(folder, TARGET)
    assert hub.files(REPO) == {**read(folder), "theirs.txt": b"theirs"}


def test_others_who_push_the_same_are_no_error(hub, folder):
    hub.make(REPO)
    hub.faults = [Fault("POST", "validate-yaml", action=lambda: push(folder, TARGET))]
    push(folder, TARGET)
    assert hub.files(REPO) == read(folder) and len(hub.commits(REPO)) == 1


def test_hub_that_lists_something_else_afterwards(hub, folder):
    def change():
        hub.commits(REPO)[-1].files["config.json"] = b"[]"

    # The listing after the commit; the one before is of its parent.
    hub.faults = [Fault("GET", "/tree/", skip=1, action=change)]
    with pytest.raises(PushError, match=r"lists config\.json of commit .* do not use this commit"):
        push(folder, TARGET)


@pytest.mark.parametrize(
    "repo_id", ["model", "a/b/c", "../up", "user/na me", "user/-x", "user/x.git", "user/" + "x" * 97, ""]
)
def test_names_that_the_hub_cannot_have(repo_id, folder):
    with pytest.raises(ValueError, match="give USER/NAME"):
        push(folder, Target(repo_id))


def test_login(hub, folder, monkeypatch):
    with pytest.raises(PushError, match="but tester is logged in, who writes to tester, team"):
        hub.organizations = ["team"]
        push(folder, Target("stranger/model"))
    hub.role = "read"
    with pytest.raises(PushError, match="may only read"):
        push(folder, TARGET)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PushError, match=r"hf auth login.*as it was"):
        push(folder, TARGET)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "none"))
    with pytest.raises(PushError, match="hf auth login"):
        push(folder, TARGET)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(PushError, match="Unset HF_HUB_OFFLINE"):
        push(folder, TARGET)
    assert hub.repositories == {}


def test_no_network(hub, folder, waits, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match=r"ConnectError.*again later.*is as it was\.$"):
        push(folder, TARGET)
    assert waits == list(publish_upload.RETRY_WAITS)


def test_team_and_moved_repository(hub, folder):
    hub.organizations = ["team"]
    push(folder, Target("team/model"))
    hub.moved["tester/old"] = "team/model"
    with pytest.raises(PushError, match="tester/old has moved to team/model; give --repo-id team/model"):
        push(folder, Target("tester/old"))


PUSHES = f"""
import sys
from pathlib import Path
from training.hub import upload
upload.RETRY_WAITS = ()
for line in sys.stdin:
    try:
        upload.push(Path(sys.argv[1]), upload.Target({REPO!r}), lambda line: None)
    except upload.PushError as error:
        print(str(error).splitlines()[-1], flush=True)
    else:
        print("done", flush=True)
"""


def start_pushes(hub, folder, home, **environment):
    """A process of its own that pushes for each line that it is given, without waiting before it gives up."""
    return subprocess.Popen(
        [sys.executable, "-c", PUSHES, str(folder)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask_for_push(process):
    process.stdin.write("push\n")
    process.stdin.flush()


def test_push_that_is_killed_goes_on(hub, folder, tmp_path):
    """SIGKILL while the second of two large files goes up: nothing is visible, and the first one is not sent again."""
    second = sha256(folder / "model-00002-of-00002.safetensors")
    hub.make(REPO)
    before = hub.head(REPO)
    hub.held_path = f"/lfs/{second}"
    hub.hold.clear()
    process = start_pushes(hub, folder, tmp_path / "home", HF_HUB_DISABLE_XET="1")
    ask_for_push(process)
    assert hub.held.wait(60)
    while sha256(folder / WEIGHTS) not in hub.objects:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.hold.set()
    assert hub.head(REPO) is before
    push(folder, TARGET)
    assert hub.files(REPO) == read(folder) and len(hub.commits(REPO)) == 1
    assert hub.bytes_received[sha256(folder / WEIGHTS)] == 100_000


def test_xet(hub, tmp_path):
    """As `huggingface_hub` sends large files where `hf_xet` is installed: other requests, one commit all the same."""
    pytest.importorskip("hf_xet")
    folder = write_folder(tmp_path / "folder", weights=os.urandom(100_000))
    hub.transfer = "xet"
    hub.make(REPO)
    before = hub.head(REPO)
    quick = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms"}
    with start_pushes(hub, folder, tmp_path / "home", **quick) as process:
        for path, status, words in [
            ("xet-write-token", 403, "may write to tester/model"),
            ("shards", 503, "again later"),
        ]:
            hub.faults = [Fault("GET" if "token" in path else "POST", path, status=status, times=99)]
            ask_for_push(process)
            message = process.stdout.readline().strip()
            assert str(status) in message and words in message and message.endswith("is as it was.")
            assert hub.head(REPO) is before
        hub.faults = []
        ask_for_push(process)
        assert process.stdout.readline() == "done\n"
    assert hub.files(REPO) == read(folder) and len(hub.commits(REPO)) == 1
    assert hub.blocks and not any(path.startswith("/lfs/") for _, path in hub.requests)
