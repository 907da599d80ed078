# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""An experiment from its points to its results."""

import functools
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..checkpoints.measured_cost import MeasuredCost, load_measured_cost
from ..common.files import write_json
from .carrying import Carrying, SoFar, carry_out
from .definition import Experiment, Scale
from .fits import readable
from .images import load_run_images
from .intervals import mean, told
from .law import axis_of, by_axis, difference_of, ratio_of, reach_of
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
    format_report,
    format_rows,
    tabulate_comparisons,
)
from .run import Run, check_same_images, key_of, training_cost, training_seconds, without_defaults


DRAWN_PREFIX = "test_patch"
FAST_IMAGES = 1000  # of a data set's split, with --fast
COMPUTATION = ("training_flops", "images_seen")  # axes of which less is better
POINT_FIELDS = ("series", "group", "variant", "patch_size", "tokens", "seed", "learned", "converged")
KEPT_RESULTS = Path(__file__).parent / "results"


def _with_settings(run: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """A run of a results file with its recipe and data, of which sweeps once wrote what their runs had in common."""
    if "recipe" in run:
        return run
    recipe = content["recipes"]["-".join(part for part in (run["family"], run["decoder"]) if part is not None)]
    own = {name: run.get(name, recipe[name]) for name in ("patch_size", "seed")}
    return {**run, "recipe": {**recipe, **own}, "data": content["data"]}


class Results:
    """
    What is known of runs: what they left in their folders, and what was made elsewhere.

    Args:
        files: `results.json` of other calls, or of sweeps.

    Raises:
        ValueError: if one of them is something else.
    """

    def __init__(self, files: Iterable[str] = ()):
        self.elsewhere: dict[str, dict[str, Any]] = {}
        for file in files:
            try:
                content = json.loads(Path(file).read_text())
                runs = [_with_settings(run, content) for run in content["runs"]]
                self.elsewhere |= {key_of(run): run for run in runs}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"--known {file} was given, which has no results of an experiment ({error})."
                ) from None

    def of(self, run: Run) -> dict[str, Any] | None:
        return run.finished_metrics() or self.elsewhere.get(run.key)

    def to_do(self, runs: list[Run]) -> list[Run]:
        """The runs without results, and those whose checkpoint one of them starts from and which are not here."""
        wanted: dict[str, Run] = {}
        for run in reversed(runs):  # what starts from another one comes after it
            if self.of(run) is None or (run.key in wanted and run.finished_metrics() is None):
                wanted[run.key] = run
                if run.start is not None and run.start.finished_metrics() is None:
                    wanted[run.start.key] = run.start
        return [run for run in runs if run.key in wanted]


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
            check_same_images(run, planner.images_of(run).told)
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

        def warn(rows: list[dict[str, Any]]):
            if choices.fast:
                print("--fast was given: it shows that all works, and the numbers mean nothing.")

        return carry_out_points(
            experiment, place, points, to_do, results, carrying, images_folder, folder, command, warn
        )


def carry_out_points(
    experiment: Experiment,
    place: str,
    points: list[Point],
    to_do: list[Run],
    results: Results,
    carrying: Carrying,
    images_folder: str,
    folder: Path,
    command: str,
    conclude: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> int:
    """
    Trains what has no results yet, and reports.

    Args:
        place: On what, in words.
        points: Whose runs' folders lie in one.
        to_do: Of their runs, and of those that they start from, the ones without results.
        images_folder: Where images are stored.
        folder: For table, picture and numbers; it is made.
        conclude: Called in the end with the rows of all finished points.

    Returns:
        The process's exit status: 1 if a run failed, while the others went on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = every_run(points)

    def look() -> SoFar:
        places = [point.run.recipe.patch_size for point in points] if experiment.x == "patch_size" else []
        missing = sum(results.of(point.run) is None for point in points)
        return SoFar(rows_of(experiment, points, results), missing, places)

    def report(rows: list[dict[str, Any]]):
        write_report(experiment, place, rows, runs, results, folder, command)
        conclude(rows)

    runs_folder = Path(points[0].run.folder).parent
    short_runs = 2 * len({point.series for point in points})  # so that every curve shows its first steps early
    return carry_out(to_do, carrying, images_folder, runs_folder, look, report, experiment.name, short_runs)


def place_of(scale: Scale, choices: Choices) -> str:
    """On what an experiment is run, in a word: the scale, after the name of other images than its own."""
    path = Path(choices.dataset or "")
    name = "".join(letter if letter.isalnum() else "_" for letter in path.name)
    if name and path.is_dir():  # another folder may have the same name
        name += f"-{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:6]}"
    return f"{name}-{scale.name}" if name else scale.name


def rows_of(experiment: Experiment, points: list[Point], results: Results) -> list[dict[str, Any]]:
    """
    The metrics of the finished points, each with its `series`, the `group` and `variant` that this is made of, and the
    figure's `axis`. A model of many patch sizes has a row for each.
    """
    rows = []
    for point in points:
        metrics = results.of(point.run)
        if metrics is None:
            continue
        of_point = {"series": point.series, "group": point.group, "variant": point.variant, "axis": experiment.x}
        row = {**metrics, "patch_size": point.run.recipe.patch_size, **of_point}
        rows.append(row)
        for patch_size in point.run.recipe.patch_weights:
            prefix = f"{DRAWN_PREFIX}{patch_size}_"
            drawn = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
            if drawn:
                tokens = point.run.recipe.tokens_per_image(patch_size)
                tested = {f"test_{name}": value for name, value in drawn.items()}
                rows.append({**row, **tested, "patch_size": patch_size, "tokens": tokens})
    return rows


def write_report(
    experiment: Experiment,
    place: str,
    rows: list[dict[str, Any]],
    runs: list[Run],
    results: Results,
    folder: Path,
    command: str,
):
    """Writes table, picture and results, and prints what they say."""
    compared = compare(rows, experiment.reference) if experiment.reference else []
    front = find_front(rows) if experiment.front else []
    against = tabulate_comparisons(compared, experiment.reference, experiment.x)
    reached = find_reached(rows, experiment.reference) if experiment.x in COMPUTATION else []
    further = [format_rows(against) if against else "", format_front(front), format_reached(reached, experiment)]
    fits = fit_series(rows)
    text = format_report(rows, fits, "\n\n".join(part for part in further if part))
    (folder / TABLE_FILE).write_text(f"# {experiment.title}\n\n{experiment.question}\n\n{text}")
    draw(rows, fits, f"{experiment.title} ({place})", folder / PICTURE_FILE, front)
    known = {run.key: metrics for run in runs if (metrics := results.of(run)) is not None}
    content = {
        "experiment": {
            name: getattr(experiment, name) for name in ("name", "title", "question", "paper", "x", "reference")
        },
        "scale": place,
        "command": command,
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


def format_plan(
    experiment: Experiment,
    place: str,
    runs: list[Run],
    to_do: list[Run],
    results: Results,
    planner: Planner,
    measured: MeasuredCost | None = None,
) -> str:
    """What is to be trained, and what it takes, as far as measured costs or finished runs tell."""
    rows = [("run", "patch", "tokens", "images", "FLOPs", "minutes", "")]
    total = {"flops": 0.0, "minutes": 0.0}
    speeds = Speeds(runs, results, measured)
    for run in runs:
        num_labels = planner.images_of(run).num_labels
        flops = training_cost(run, num_labels)
        minutes = speeds.seconds(run, num_labels) / 60
        if run in to_do:
            total["flops"] += flops
            total["minutes"] += minutes
        images = run.num_batches * run.recipe.total_batch_size
        numbers = (str(run.recipe.patch_size), f"{run.num_tokens:,}", f"{images:,}", f"{flops:.2e}", f"{minutes:,.1f}")
        rows.append((run.name, *numbers, "to do" if run in to_do else "done"))
    return (
        f"{experiment.name} at {place}: {experiment.question}\n\n{format_rows(rows)}\n\n"
        f"{len(to_do)} of {len(runs)} runs to do: {total['flops']:.2e} FLOP, {total['minutes'] / 60:,.1f} hours one "
        f"after the other ({'; '.join(speeds.bases)})"
    )


class Speeds:
    """
    Operations a second to expect of a run: those of runs of its family with the nearest number of tokens, finished ones
    before kept results of other machines, its task before others. Costs that were measured come before all of these.
    """

    def __init__(self, runs: list[Run], results: Results, measured: MeasuredCost | None = None):
        self.measured = measured
        self.bases: dict[str, None] = {}
        finished = [metrics for run in runs if (metrics := results.of(run)) is not None]
        finished += results.elsewhere.values()
        self.finished = [(run, "as fast as finished runs of the family") for run in finished]
        self.kept = []
        for file in sorted(KEPT_RESULTS.glob("*.json")):
            kept = json.loads(file.read_text())
            self.kept += [(run, f"as on one core of {kept['machine']['processor']}") for run in kept["runs"]]

    def seconds(self, run: Run, num_labels: int) -> float:
        """Of the whole run."""
        if self.measured is None:
            return training_cost(run, num_labels) / self.of(run)
        self.bases[f"on one device, {self.measured.describe(run.recipe.family)}"] = None
        return training_seconds(run, num_labels, self.measured)

    def of(self, run: Run) -> float:
        # The paper's recipes, whose scales alone say how often they log, are for GPUs.
        known = [] if "logging_steps" in run.how else self._alike(run)
        if not known:
            self.bases["if the devices keep up 1 TFLOP/s, and less in proportion"] = None
            return 1e12
        nearest = min(abs(other["tokens"] - run.num_tokens) for other, _ in known)
        alike = [(other, basis) for other, basis in known if abs(other["tokens"] - run.num_tokens) == nearest]
        self.bases[alike[0][1]] = None
        return mean([other["training_flops"] / max(other["seconds"], 1e-3) for other, _ in alike])

    def _alike(self, run: Run) -> list[tuple[dict[str, Any], str]]:
        """Runs to tell its speed by, each with what to say of them."""
        for same_task, runs in itertools.product((True, False), (self.finished, self.kept)):
            alike = [
                (other, basis if same_task else f"{basis} in {other['task']}")
                for other, basis in runs
                if "training_flops" in other
                and other["family"] == run.recipe.family
                and (other["task"] == run.recipe.task or not same_task)
            ]
            if alike:
                return alike
        return []
