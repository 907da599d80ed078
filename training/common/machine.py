# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a measured result depends on: processor, packages and the revision of the code."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


PACKAGES = ("torch", "transformers", "numpy", "scikit-learn", "datasets")


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe_machine() -> dict[str, Any]:
    """What seconds depend on."""
    system = f"{platform.system()} {platform.machine()}"
    return {"processor": processor_name(), "cores": os.cpu_count(), "system": system}


def describe_versions() -> dict[str, str]:
    """Of Python, and of the packages that results depend on, where they are installed."""
    found = {package: installed_version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **{name: version for name, version in found.items() if version}}


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def code_revision() -> str | None:
    """The git commit of this checkout, with "+" if tracked files differ from it; None outside of one."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return commit and commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
