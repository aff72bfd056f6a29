"""After the last step: read the test split once, time every network, write table, pictures and report.json."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from distill import report
from distill.artifact.step import Step
from distill.batch import Predict
from distill.console import console
from distill.data import Viewed
from distill.errors import ExportError, RecipeError
from distill.export.exported import Exported
from distill.files import sealed
from distill.measure import latency
from distill.measure.evaluation import evaluate, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.predictions import Kept, pictures
from distill.pipeline.provenance import provenance
from distill.pipeline.step_store import Finished
from distill.processes import is_first
from distill.recipe.checks import check_cache
from distill.recipe.plain import key, resolved
from distill.recipe.schema.cache import Cache
from distill.report import Guess, Report
from distill.tasks import Task

FORMAT = 2
"""Of ``final.json``: a file of another format is made again."""
GUESS = "guessing"
"""What a network must beat, among the networks that are evaluated."""
Made = Mapping[str, Finished]
Exports = Mapping[str, tuple[Step, Exported]]


def write_final_report(experiment: Experiment, made: Made, stages: Made, exported: Exports) -> tuple[Step, ...]:
    """Complete every row with its test metrics and latency, and report.

    Args:
        experiment: the run.
        made: the rows: teacher, baseline, student, and the student after each hook.
        stages: the student after each of its stages, for their curves.
        exported: the rows of the exported files.
    """
    final = evaluate_final(experiment, made, exported)
    medians = final["latency"]["median_ms"]
    rows = {name: done.step for name, done in made.items()} | {name: step for name, (step, _) in exported.items()}
    steps = tuple(
        replace(row, step=name, metrics={**row.metrics, **final["metrics"][name]}, latency_ms=medians[name])
        for name, row in rows.items()
    )
    trained = {name: done for name, done in made.items() if name != "student"} | dict(stages)
    task = experiment.task
    summary = Report(
        recipe=experiment.recipe.recipe,
        steps=steps,
        monitor=task.monitor,
        mode=task.mode,
        units=task.units,
        batch_sizes=_batch_sizes(experiment),
        quartiles_ms=final["latency"]["quartiles_ms"],
        waited=final["latency"]["waited"],
        beyond={name: file.beyond for name, (_, file) in exported.items() if file.beyond},
        coded_bytes={file.coded.name: file.coded.stat().st_size for _, file in exported.values() if file.coded},
        cached_views=experiment.recipe.cache.views if experiment.recipe.cache else 0,
        cacheable=_cacheable(experiment),
        curves={name: done.curve for name, done in trained.items() if done.curve},
        figures=final["figures"],
        classes=experiment.data.info.class_names,
        guess=Guess(**final["guess"]),
        predictions=final["predictions"],
        resolved=resolved(experiment.recipe),
        versions=provenance(),
    )
    report.write(experiment.folder, summary)
    _track(experiment, steps, final["figures"])
    console.print(report.table(summary, console.width))
    for line in report.warnings(summary):
        console.print(line, style="yellow")
    for line in report.notes(summary):
        console.print(line)
    console.print(f"report: {experiment.folder / 'report.html'}")
    return steps


def evaluate_final(experiment: Experiment, made: Made, exported: Exports) -> dict[str, Any]:
    """Test metrics, figures, predictions and latencies; kept in ``final.json``, so the test split is read once."""
    file = experiment.folder / "final.json"
    what = key(FORMAT, {name: done.key for name, done in made.items()}, list(exported), _batch_sizes(experiment))
    known = sealed.read_or_warn(file, "metrics on the test split and latencies are measured again")
    if known and known["key"] == what:
        return known
    final = {"key": what, **_tested(experiment, made, exported), "latency": _timed(experiment, made, exported)}
    sealed.write(file, final)
    return final


def _tested(experiment: Experiment, made: Made, exported: Exports) -> dict[str, Any]:
    task, test = experiment.task, experiment.data.test_dataloader()
    networks: dict[str, Predict] = {
        name: to_accelerator(deployable(done.artifact.model)) for name, done in made.items()
    }
    networks |= {name: file.predict for name, (_, file) in exported.items()}
    last, figures = list(made)[-1], task.figures()
    kept = Kept(test, len(test))
    found = evaluate({**networks, GUESS: _guess(experiment)}, kept, task, {last: figures}, reference="teacher")
    metrics = {step: {f"test/{name}": value for name, value in values.items()} for step, values in found.items()}
    return {
        "guess": {"metrics": metrics.pop(GUESS), "samples": kept.samples},
        "metrics": metrics,
        "figures": {name: _plain(figure.compute()) for name, figure in figures.items()} if kept.samples else {},
        "predictions": pictures(kept.kept, _drawn(networks, last, task), task),
    }


def _plain(figure: Tensor | dict[str, float]) -> Any:
    return figure if isinstance(figure, dict) else figure.tolist()


def _drawn(networks: Mapping[str, Predict], last: str, task: Task) -> dict[str, Predict]:
    """Whose outputs are drawn: the final network's alone, or beside those of the teacher and of the student."""
    chosen = {"teacher": "teacher", "student": "student"} if task.side_by_side else {}
    chosen["compressed" if last.startswith("compress/") else last] = last
    return {title: networks[name] for title, name in chosen.items() if name in networks}


def _guess(experiment: Experiment) -> Predict:
    """The best output that ignores the image, or an untrained network where the task knows none."""
    task, data = experiment.task, experiment.data
    constant = task.constant(data.train_labels())
    if constant is None:
        return to_accelerator(experiment.network(experiment.recipe.student).model)

    def guess(inputs: Tensor) -> Tensor:
        return constant.expand(len(inputs), *constant.shape)

    return guess


def _timed(experiment: Experiment, made: Made, exported: Exports) -> dict[str, Any]:
    """Latencies of all networks and files, measured in turns; networks of one structure share one measurement.

    A file that holds the last network and nothing else is that network's measurement: writing ONNX takes seconds.
    """
    names = [*made, *exported]
    if not is_first():
        return {"median_ms": {name: {} for name in names}, "quartiles_ms": {}, "waited": 0.0}
    images = experiment.example.inputs
    structures = {
        name: key(dict(done.artifact.network), [asdict(plan) for plan in done.artifact.plans])
        for name, done in made.items()
    }
    last = structures[list(made)[-1]]
    files = {last if file.plain else name: file.single() for name, (_, file) in exported.items()}
    structures |= {name: last for name, (_, file) in exported.items() if file.plain}
    running: dict[str, Predict] = {}
    tried = {*files}
    for name, done in made.items():
        structure = structures[name]
        if structure not in tried:
            tried.add(structure)
            try:
                running[structure] = latency.predictor(deployable(done.artifact.model), images)
            except ExportError as error:
                console.print(f"{name}: no latency, {error}")
    running |= files
    race = latency.round_robin(running, images, _batch_sizes(experiment))
    found = {name: race.timings.get(structures.get(name, name), {}) for name in names}
    return {
        "median_ms": {name: {key: one.median for key, one in row.items()} for name, row in found.items()},
        "quartiles_ms": {name: {key: [one.p25, one.p75] for key, one in row.items()} for name, row in found.items()},
        "waited": race.waited,
    }


def _cacheable(experiment: Experiment) -> bool:
    """Whether the recipe and the data would accept a cache."""
    try:
        check_cache(replace(experiment.recipe, cache=Cache()))
    except RecipeError:
        return False
    return isinstance(experiment.data, Viewed)


def _batch_sizes(experiment: Experiment) -> list[int]:
    return list(experiment.recipe.latency_batch_sizes or experiment.task.batch_sizes)


def _track(experiment: Experiment, steps: tuple[Step, ...], figures: Mapping[str, Any]) -> None:
    experiment.tracker.steps(steps)
    if "confusion" in figures:
        experiment.tracker.confusion(figures["confusion"], experiment.data.info.class_names)
    recipe = experiment.recipe.recipe
    experiment.tracker.artifact(experiment.folder / "student.safetensors", f"{recipe}-student", {"recipe": recipe})
