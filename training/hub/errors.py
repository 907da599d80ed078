# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What an error of a push means: whether another try may help, and what to tell the user."""

import json
import re

from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled


TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)
MOVED_STATUSES = (409, 412)
# How Xet's errors tell the status; their types do not.
XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")
LOGIN = "Log in by `hf auth login`, or set HF_TOKEN, with a token that may write"


def cause_of(error: BaseException) -> BaseException:
    """The HTTP error that another error was raised from, if there is one."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, (HTTPError, OSError)):
            return found
        found = found.__cause__
    return error


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the hub, or Xet's server, answered with."""
    cause = cause_of(error)
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code
    found = XET_STATUS.search(str(cause))
    return int(found[1]) if found else None


def is_transient(error: BaseException) -> bool:
    """Whether another try may go through: the connection broke, or the hub is busy."""
    cause, status = cause_of(error), status_of(error)
    if status is not None:
        return status in TRANSIENT_STATUSES
    if isinstance(cause, (OfflineModeIsEnabled, LocalTokenNotFoundError, FileNotFoundError, PermissionError)):
        return False
    # A gateway's page instead of the hub's answer; or the connection itself.
    return isinstance(cause, (json.JSONDecodeError, HTTPError, ConnectionError, TimeoutError))


def retry_after(error: BaseException) -> float:
    """The seconds that the hub asks to wait, 0 if it does not."""
    cause = cause_of(error)
    text = cause.response.headers.get("retry-after", "") if isinstance(cause, HfHubHTTPError) else ""
    return float(text) if text.isdigit() else 0.0


def reason_of(error: BaseException) -> str:
    """What the hub or the connection said, on one line."""
    cause = cause_of(error)
    if isinstance(cause, HfHubHTTPError):
        said = cause.server_message or cause.response.headers.get("x-error-message") or ""
        return f"the hub answers {cause.response.status_code}{': ' if said else ''}{one_line(said)}"
    return one_line(f"{type(cause).__name__}: {cause}")


def one_line(text: str, limit: int = 300) -> str:
    line = " ".join(str(text).split()).rstrip(".")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def advice_for(error: BaseException, repo_id: str, repo_type: str = "model") -> str:
    """What to do about an error of a push."""
    status = status_of(error)
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return LOGIN
    if isinstance(error, OfflineModeIsEnabled):
        return "Unset HF_HUB_OFFLINE to push"
    if status == 403 and repo_type == "kernel":
        return (
            "The hub lets those publish kernels who have asked for it, at https://huggingface.co/settings/account; who "
            f"has takes a token that may write to {repo_id}"
        )
    if status == 403:
        return (
            f"Take a token that may write to {repo_id}, or make room if it is full; see the token's permissions "
            "at https://huggingface.co/settings/tokens"
        )
    if status == 404:
        return "Check --repo-id and --revision"
    if status in MOVED_STATUSES:
        return "Look at what was pushed there in the meantime, and give the same command again"
    if is_transient(error):
        return "Give the same command again later: files that have arrived are not sent again"
    return "Mend what it names, and give the same command again"
