# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""An experiment from its points to its results."""

import dataclasses
import functools
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..checkpoints.measured_cost import load_measured_cost
from ..common.files import write_json
from .carrying import Carrying
from .definition import Experiment, Scale
from .fits import readable
from .images import load_run_images
from .intervals import mean, told, with_draws
from .known import Results
from .law import axis_of, by_axis, difference_of, judge_convergence, ratio_of, reach_of
from .plan import format_plan
from .points import Choices, Planner, Point, every_run
from .report import (
    AXIS_UNITS,
    PICTURE_FILE,
    RESULTS_FILE,
    TABLE_FILE,
    by_series,
    columns_of,
    compared_title,
    describe_source,
    draw,
    fit_series,
    format_preview,
    format_report,
    format_rows,
    tabulate_comparisons,
)
from .run import Run, check_same_images, key_of, without_defaults
from .slurm import SlurmPool
from .workers import WorkerPool


DRAWN_PREFIX = "test_patch"
FAST_IMAGES = 1000  # of a data set's split, with --fast
COMPUTATION = ("training_flops", "images_seen")  # axes of which less is better
POINT_FIELDS = ("series", "group", "variant", "patch_size", "tokens", "seed", "learned", "converged")


def run_experiment(
    experiment: Experiment, scale: Scale, choices: Choices, carrying: Carrying, command: str, only_plan: bool = False
) -> int:
    """
    All points of an experiment and its report; what is finished is not repeated.

    Returns:
        The process's exit status: 1 if a run failed, while the others went on.

    Raises:
        ValueError: for whatever is asked for and cannot be had.
    """
    experiment, place = experiment.at(scale.name), place_of(scale, choices)
    results = Results(carrying.known)
    with tempfile.TemporaryDirectory(prefix="experiment-") as images_folder:
        most = FAST_IMAGES if choices.fast else None
        load = functools.partial(load_run_images, folder=Path(images_folder), most=most)
        planner = Planner(experiment, scale, choices, load)
        points = planner.points()
        runs = every_run(points)
        for run in runs:
            check_same_images(run, results.of(run), planner.images_of(run).told)
        to_do = results.to_do(runs)
        for line in planner.left_out:
            print(f"left out: {line}")
        if only_plan:
            measured = None if carrying.cost_file is None else load_measured_cost(carrying.cost_file)
            print(format_plan(experiment, place, runs, to_do, results, planner, measured))
            return 0
        folder = Path(carrying.output_dir, f"{experiment.name}-{place}" + ("-fast" if choices.fast else ""))
        seeds = len({point.run.recipe.seed for point in points})
        print(
            f"{experiment.name} at {place}: {len(points)} points of {seeds} seeds, {len(runs)} runs, {len(to_do)} "
            "of them to do.",
            flush=True,
        )

        outcome = Outcome(experiment, place, points, results, folder, command)
        errors = outcome.carry_out(to_do, carrying, images_folder)
        if choices.fast:
            print("--fast was given: it shows that all works, and the numbers mean nothing.")
        return exit_status(errors)


def exit_status(errors: dict[str, str]) -> int:
    """Names the runs that failed: the command's exit status, 1 if there is one."""
    for name, error in errors.items():
        print(f"{name} failed:\n{error}", file=sys.stderr)
    return 1 if errors else 0


def place_of(scale: Scale, choices: Choices) -> str:
    """On what an experiment is run, in a word: the scale, after the name of other images than its own."""
    path = Path(choices.dataset or "")
    name = "".join(letter if letter.isalnum() else "_" for letter in path.name)
    if name and path.is_dir():  # another folder may have the same name
        name += f"-{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:6]}"
    return f"{name}-{scale.name}" if name else scale.name


@dataclasses.dataclass(frozen=True)
class Outcome:
    """
    What the points of an experiment come to.

    Args:
        place: On what, in words.
        points: Whose runs' folders lie in one.
        results: Of their runs.
        folder: For table, picture and numbers; it is made.
        command: That made it.
    """

    experiment: Experiment
    place: str
    points: list[Point]
    results: Results
    folder: Path
    command: str

    def carry_out(self, to_do: list[Run], carrying: Carrying, images_folder: str) -> dict[str, str]:
        """
        Trains what has no results yet, shows what the points have come to whenever one more has ended, and reports in
        the end, also if some have failed.

        Args:
            to_do: Of the points' runs, and of those that they start from, the ones without results; it may be none.
            images_folder: Where images are stored.

        Returns:
            Of each run that failed, while the others went on, its error by its name.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        runs_folder = Path(self.points[0].run.folder).parent
        missing = len(self.missing())

        def show(run: Run, write: Callable[[str], None]):
            nonlocal missing
            now = len(self.missing())
            if 0 < now < missing:  # and not of a run that others start from
                by_patch = self.experiment.x == "patch_size"
                places = [point.run.recipe.patch_size for point in self.points] if by_patch else []
                write(f"\n{format_preview(self.rows(), places)}\n")
            missing = now

        started, errors, resources = time.monotonic(), {}, carrying.resources
        if to_do and carrying.slurm is not None:
            pool = SlurmPool(to_do, runs_folder, resources.launcher, carrying.slurm, carrying.cluster, finished=show)
            errors = pool.execute()
        elif to_do:
            # So many first that every curve shows its first steps early.
            short_runs = 2 * len({point.series for point in self.points})
            errors = WorkerPool(to_do, images_folder, resources, show, short_runs, self.experiment.name).execute()
        print(f"{len(to_do) - len(errors)} runs done in {time.monotonic() - started:.0f} s.")
        if rows := self.rows():
            self.write(with_draws(judge_convergence(rows), runs_folder))
        return errors

    def missing(self) -> list[Point]:
        """The points without results."""
        return [point for point in self.points if self.results.of(point.run) is None]

    def format_missing(self) -> str:
        """Which points are in nothing that is told, as of those that diverge the others would seem to be all."""
        names = [
            f"{point.series} at patch {point.run.recipe.patch_size}, seed {point.run.recipe.seed}"
            for point in self.missing()
        ]
        return f"Without results, and in nothing of this: {'; '.join(names)}." if names else ""

    def rows(self) -> list[dict[str, Any]]:
        """
        The metrics of the finished points, each with its `series`, the `group` and `variant` that this is made of, and
        the figure's `axis`. A model of many patch sizes has a row for each.
        """
        rows = []
        for point in self.points:
            metrics = self.results.of(point.run)
            if metrics is None:
                continue
            of_point = {"series": point.series, "group": point.group, "variant": point.variant}
            row = {**metrics, "patch_size": point.run.recipe.patch_size, **of_point, "axis": self.experiment.x}
            rows.append(row)
            for patch_size in point.run.recipe.patch_weights:
                prefix = f"{DRAWN_PREFIX}{patch_size}_"
                drawn = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
                if drawn:
                    tokens = point.run.recipe.tokens_per_image(patch_size)
                    tested = {f"test_{name}": value for name, value in drawn.items()}
                    rows.append({**row, **tested, "patch_size": patch_size, "tokens": tokens})
        return rows

    def write(self, rows: list[dict[str, Any]]):
        """Writes table, picture and results, and prints what they say; of the rows convergence has been judged."""
        experiment, folder = self.experiment, self.folder
        compared = compare(rows, experiment.reference) if experiment.reference else []
        front = find_front(rows) if experiment.front else []
        against = tabulate_comparisons(compared, experiment.reference, experiment.x)
        reached = find_reached(rows, experiment.reference) if experiment.x in COMPUTATION else []
        further = [format_rows(against) if against else "", format_front(front), format_reached(reached, experiment)]
        further.append(self.format_missing())
        fits = fit_series(rows)
        text = format_report(rows, fits, "\n\n".join(part for part in further if part))
        (folder / TABLE_FILE).write_text(f"# {experiment.title}\n\n{experiment.question}\n\n{text}")
        draw(rows, fits, f"{experiment.title} ({self.place})", folder / PICTURE_FILE, front)
        known = {run.key: metrics for run in every_run(self.points) if (metrics := self.results.of(run)) is not None}
        content = {
            "experiment": {
                name: getattr(experiment, name) for name in ("name", "title", "question", "paper", "x", "reference")
            },
            "scale": self.place,
            "command": self.command,
            **describe_source(rows, fits),
            "comparisons": compared,
            "reached": reached,
            "front": [{"series": row["series"], "patch_size": row["patch_size"]} for row in front],
            "points": [{"run": key_of(row), **{name: row[name] for name in row if _is_of_point(name)}} for row in rows],
            "runs": [{"key": key, **shortened(metrics)} for key, metrics in known.items()],
        }
        write_json(folder / RESULTS_FILE, content)
        print(f"\n{text}\nPicture: {folder / PICTURE_FILE}\nNumbers: {folder / RESULTS_FILE}")


def _is_of_point(name: str) -> bool:
    """Whether a row's value is the point's own: a run may stand for several points."""
    drawn = name.startswith(DRAWN_PREFIX)
    return name in POINT_FIELDS or (name.startswith("test_") and not drawn)


def shortened(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics of a run, of whose recipe only what differs from the defaults is told."""
    shorter = {**metrics, "recipe": without_defaults(metrics["recipe"])}
    if "start" in metrics:
        shorter["start"] = shortened(metrics["start"])
    return shorter


def compare(rows: list[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
    """
    Of each place on the axis that a curve has in common with the reference of its group: the ratio of their test losses
    over the seeds that both have, with its interval, and by how much the first score is higher, in points.
    """
    found = []
    for group, variant, members, others in _with_reference(rows, reference):
        others = by_axis(others)
        for place, same in by_axis(members).items():
            if place not in others:
                continue
            ratio = ratio_of(same, others[place])
            if ratio is None:
                continue
            score = next(iter(columns_of(same[0])))
            gain, intervals = difference_of(same, others[place], f"test_{score}") or (None, {})
            found.append(
                {
                    "group": group,
                    "variant": variant,
                    "place": place,
                    "seeds": ratio.seeds,
                    "ratio": ratio.ratio,
                    "interval": ratio.interval,
                    "intervals": ratio.intervals,
                    "score_gain": gain,
                    "score_interval": told(intervals),
                    "score": columns_of(same[0])[score],
                }
            )
    return found


def _with_reference(rows: list[dict[str, Any]], reference: str | None) -> Iterator[tuple[str, str, list, list]]:
    """Group, variant and rows of each curve but the reference, and the rows of its group's reference."""
    curves = {(members[0]["group"], members[0]["variant"]): members for members in by_series(rows).values()}
    for (group, variant), members in curves.items():
        if variant != reference and (group, reference) in curves:
            yield group, variant, members, curves[group, reference]


def find_reached(rows: list[dict[str, Any]], reference: str | None) -> list[dict[str, Any]]:
    """Of each curve over computation, how much of it takes it to the loss that its group's reference ends with."""
    found = ((group, variant, reach_of(*curves)) for group, variant, *curves in _with_reference(rows, reference))
    return [{"group": group, "variant": variant, **vars(reach)} for group, variant, reach in found if reach is not None]


def format_reached(reached: list[dict[str, Any]], experiment: Experiment) -> str:
    """A line for each curve."""
    lines = []
    for one in reached:
        if one["mean"] is not None:
            low, high = one["interval"] or (None, None)
            share = f"{one['mean']:.0%}" + ("" if low is None else f" [{low:.0%}, {high:.0%}]") + " of these"
        else:
            words = {None: f"more than {one['most']:.0%}", one["least"]: f"{one['least']:.0%} or less"}
            told = (words.get(share) or f"{share:.0%}" for share in one["shares"].values())
            share = f"{', '.join(told)} of these, seed by seed"
        place = AXIS_UNITS[experiment.x].format(readable(one["place"]))
        lines.append(f"{compared_title(one)}: the test loss of {experiment.reference} at {place} is reached at {share}")
    return "\n".join(lines)


def find_front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Of the points, means over the seeds, those that no other one beats or equals in test loss with as little of the
    axis: the compute-optimal front, from the least computation on. Each is the row of one seed with the mean loss.
    """
    means = [
        {**same[0], "test_loss": mean([run["test_loss"] for run in same])}
        for members in by_series(rows).values()
        for same in by_axis(members).values()
    ]
    front: list[dict[str, Any]] = []
    for row in sorted(means, key=lambda row: (row[axis_of(row)], row["test_loss"])):
        if not front or row["test_loss"] < front[-1]["test_loss"]:
            front.append(row)
    return front


def format_front(front: list[dict[str, Any]]) -> str:
    if not front:
        return ""
    steps = [f"{row['series']} at patch {row['patch_size']} ({row['test_loss']:.3f})" for row in front]
    return f"Best at their computation, from the least on: {', '.join(steps)}."
