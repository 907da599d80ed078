# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Runs mutated checkpoints under guards, and judges what came of each."""

import contextlib
import functools
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fuzz_mutations as mutations
import torch
from fuzz_mutations import ANYTHING, FINITE, FOLDER_MUTATIONS, NOTHING, SAME
from PIL import Image

from training.checkpoints.checksums import write_checksums
from training.checkpoints.loading import load_checkpoint
from training.checkpoints.reading import CheckpointError
from training.foreign.conversion import convert


SECONDS_PER_CASE = 30  # on a busy machine; on a quiet one hardly any takes one
MEMORY_ABOVE_START = 3 << 30
# What no refused or loaded checkpoint has a reason to do.
FORBIDDEN_EVENTS = (
    *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.getaddrinfo"),
    *("pickle.find_class", "webbrowser.open", "shutil.rmtree", "os.remove", "os.rename", "os.symlink", "ctypes.dlopen"),
)


class TooSlow(BaseException):
    """A case that took longer than it may; not an Exception, so that nothing on the way catches it."""


class Watch:
    """Notes what the interpreter does while a case runs: files written or opened outside, programs, connections."""

    def __init__(self):
        self.folder: Path | None = None
        self.may_write = False
        self.violations: list[str] = []
        sys.addaudithook(self.note)  # stays until the process ends

    def note(self, event: str, arguments: tuple):
        if self.folder is None:
            return
        home = str(self.folder)
        if event == "open" and isinstance(arguments[0], str):
            path, mode = arguments[0], arguments[1] or ""
            writes = any(letter in mode for letter in "wax+")
            outside = str(self.folder.parent / "outside")
            if path.startswith(outside) or (writes and not (self.may_write and path.startswith(str(home)))):
                self.violations.append(f"open {path} {mode}")
        elif event == "exec" and getattr(arguments[0], "co_filename", "").startswith(home):
            self.violations.append(f"run {arguments[0].co_filename}")
        elif event in FORBIDDEN_EVENTS and not (self.may_write and event.startswith(("shutil", "os.re"))):
            self.violations.append(f"{event} {arguments[:2]}")

    @contextlib.contextmanager
    def over(self, folder: Path, may_write: bool) -> Iterator[None]:
        self.folder, self.may_write, self.violations = folder, may_write, []
        try:
            yield
        finally:
            self.folder = None


@contextlib.contextmanager
def bounded_memory(more: int = MEMORY_ABOVE_START) -> Iterator[None]:
    """An allocation of more than `more` bytes above what the process has now fails."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def bounded_time(seconds: int = SECONDS_PER_CASE) -> Iterator[None]:
    def stop(*_):
        raise TooSlow

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@dataclass
class Report:
    """What came of the cases of a run."""

    outcomes: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [f"{sum(self.outcomes.values())} cases in {self.seconds:.0f} s, the slowest {self.slowest:.2f} s"]
        lines += [f"{count:6d}  {name}: {outcome}" for (name, outcome), count in sorted(self.outcomes.items())]
        return "\n".join([*lines, f"{len(self.failures)} failures", *self.failures])


@torch.no_grad()
def outputs_of(folder: Path) -> torch.Tensor:
    """What the model of a folder makes of a picture that its processor takes, as one tensor."""
    model, processor = load_checkpoint(str(folder))
    picture = Image.radial_gradient("L").resize((40, 30)).convert("RGB")
    processor(picture, return_tensors="pt")
    height, width = (
        model.config.image_size if isinstance(model.config.image_size, list) else [model.config.image_size] * 2
    )
    pixels = torch.randn(1, model.config.num_channels, height, width, generator=torch.Generator().manual_seed(0))
    outputs = model(pixel_values=pixels)
    return torch.cat([part.flatten().float() for part in outputs.to_tuple() if isinstance(part, torch.Tensor)])


@torch.no_grad()
def outputs_of_converted(source: Path) -> torch.Tensor:
    model = convert(source, source.parent / "converted")
    height, width = (
        model.config.image_size if isinstance(model.config.image_size, list) else [model.config.image_size] * 2
    )
    pixels = torch.randn(1, model.config.num_channels, height, width, generator=torch.Generator().manual_seed(0))
    return model.float()(pixels)[0].flatten()


def raised_by_image_processor(error: BaseException) -> bool:
    """Whether our image processor raised it, whose settings may be sound and still fit no picture of this test."""
    path = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return path.parent.name == "modeling_pixelvit" and path.name.startswith("image_")


def judge(case: Path, run: Callable[[], torch.Tensor], allowed: str, expected: torch.Tensor) -> tuple[str, str, str]:
    """
    Runs a case.

    Returns:
        Its outcome, the sentence of a refusal, and what is wrong with it ("": nothing).
    """
    marker = case / "marker"
    try:
        with bounded_time():
            outputs = run()
    except CheckpointError as error:
        wrong = "" if "\n" not in str(error) and 20 < len(str(error)) < 2000 else f"no sentence: {str(error)!r:.300}"
        return "refused", str(error), wrong or ("code ran" if marker.exists() else "")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, ValueError) and raised_by_image_processor(error) and "\n" not in str(error):
            return "refused the image", str(error), "code ran" if marker.exists() else ""
        return "escaped", "", f"{type(error).__name__}: {str(error)[:300]}"
    wrong = "code ran" if marker.exists() else ""
    if allowed == NOTHING:
        wrong = "it was to be refused"
    elif allowed == SAME and not torch.equal(outputs, expected):
        wrong = "other outputs"
    elif allowed == FINITE and not outputs.isfinite().all():
        wrong = "outputs are not finite"
    return "loaded", "", wrong


def fuzz_folders(bases: dict[str, Path], cases: int, seed: int, work: Path, watch: Watch) -> Report:
    """
    Loads mutated copies of checkpoint folders.

    Args:
        bases: Checkpoint folders; half of the copies get checksums before they are mutated.
        cases: How many.
        seed: Of all that is drawn.
        work: An empty folder.
        watch: Notes what must not happen.
    """
    report, began = Report(), time.monotonic()
    expected = {name: outputs_of(folder) for name, folder in bases.items()}
    names, shares = list(FOLDER_MUTATIONS), [share for _, share in FOLDER_MUTATIONS.values()]
    for number in range(cases):
        rng = random.Random(f"{seed}-{number}")
        base, name = rng.choice(sorted(bases)), rng.choices(names, shares)[0]
        case = work / f"case{number}"
        folder = case / "checkpoint"
        shutil.copytree(bases[base], folder)
        shutil.copytree(bases["pixelvit"], case / "outside")
        has_checksums = rng.random() < 0.5
        if has_checksums:
            write_checksums(folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        allowed = FOLDER_MUTATIONS[name][0](rng, folder)
        if has_checksums and (folder / "checksums.json").is_file() and allowed != NOTHING:
            kept = all((folder / key).is_file() and (folder / key).read_bytes() == files[key] for key in files)
            touched_list = (folder / "checksums.json").read_bytes() != files["checksums.json"]
            allowed = SAME if kept else (FINITE if touched_list else NOTHING)
        with watch.over(folder, may_write=False):
            began_case = time.monotonic()
            outcome, reason, wrong = judge(case, functools.partial(outputs_of, folder), allowed, expected[base])
            record(report, f"{seed}-{number} {base}, {name}", name, (outcome, reason, wrong), began_case, watch)
        shutil.rmtree(case)
    report.seconds = time.monotonic() - began
    return report


def record(report: Report, case: str, name: str, result: tuple[str, str, str], began: float, watch: Watch):
    outcome, reason, wrong = result
    report.slowest = max(report.slowest, time.monotonic() - began)
    report.outcomes[name, outcome] += 1
    report.reasons[reason] += 1
    if wrong or watch.violations:
        report.failures.append(f"{case}: {outcome}: {wrong} {watch.violations[:3]}")


CONVERT_MUTATIONS: dict[str, tuple[dict[str, int], bool]] = {
    # Form of the source -> shares of its mutations, and whether it is a folder.
    ".pth": ({"pth_bits": 5, "pth_pickle": 6, "file_cut": 1}, False),
    ".safetensors": ({"weights_header": 5, "weights_bits": 3, "weights_length": 1, "weights_cut": 1}, False),
    "": ({"config_values": 5, "processor_values": 2, "json_bytes": 2, "weights_header": 2, "index_names": 1}, True),
}


def fuzz_conversion(sources: list[Path], cases: int, seed: int, work: Path, watch: Watch) -> Report:
    """
    Converts mutated copies of other people's files and folders.

    Args:
        sources: `.pth` and `.safetensors` files, and folders.
        cases, seed, work, watch: As of `fuzz_folders`.
    """
    report, began = Report(), time.monotonic()
    for number in range(cases):
        rng = random.Random(f"{seed}-convert-{number}")
        source = rng.choice(sources)
        shares, is_folder = CONVERT_MUTATIONS["" if source.is_dir() else source.suffix]
        name = rng.choices(list(shares), list(shares.values()))[0]
        case = work / f"case{number}"
        (case / "outside").mkdir(parents=True)
        copy = case / source.name
        if is_folder:
            shutil.copytree(source, copy)
        else:
            shutil.copy(source, copy)
        allowed = getattr(mutations, name)(rng, copy)
        # Another config may make another model, and an index names nothing where one file is enough.
        allowed = ANYTHING if allowed == FINITE else allowed
        with watch.over(case, may_write=True):
            began_case = time.monotonic()
            result = judge(case, functools.partial(outputs_of_converted, copy), allowed, torch.zeros(0))
            left = sorted(path.name for path in case.iterdir()) if result[0] == "refused" else []
            if set(left) - {"outside", copy.name}:
                result = ("refused", "", f"left behind {left}")
            record(
                report, f"{seed}-convert-{number} {source.name}, {name}", f"convert, {name}", result, began_case, watch
            )
        shutil.rmtree(case)
    report.seconds = time.monotonic() - began
    return report
