"""After the last step: read the test split once, time every network, write table, pictures and report.json."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from distill import report
from distill.artifact.step import Step
from distill.batch import Predict
from distill.console import console
from distill.errors import ExportError
from distill.export.exported import Exported
from distill.files import sealed
from distill.measure import latency
from distill.measure.evaluation import evaluate, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.predictions import Kept, pictures
from distill.pipeline.provenance import provenance
from distill.pipeline.step_store import Finished
from distill.recipe.plain import key, resolved
from distill.report import Guess, Report
from distill.training.processes import is_first

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
    rows = {name: done.step for name, done in made.items()} | {name: step for name, (step, _) in exported.items()}
    steps = tuple(
        replace(row, step=name, metrics={**row.metrics, **final["metrics"][name]}, latency_ms=final["latency_ms"][name])
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
        console.print(f"[yellow]{line}[/yellow]")
    console.print("latency: median on one thread of this machine, in ONNX Runtime or in the runtime of an export")
    console.print(f"report: {experiment.folder / 'report.html'}")
    return steps


def evaluate_final(experiment: Experiment, made: Made, exported: Exports) -> dict[str, Any]:
    """Test metrics, figures, predictions and latencies; kept in ``final.json``, so the test split is read once."""
    file = experiment.folder / "final.json"
    what = key({name: done.key for name, done in made.items()}, list(exported), _batch_sizes(experiment))
    known = sealed.read_or_warn(file, "metrics on the test split and latencies are measured again")
    if known and known["key"] == what:
        return known
    final = {"key": what, **_tested(experiment, made, exported), "latency_ms": _timed(experiment, made, exported)}
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
    found = evaluate({**networks, GUESS: _guess(experiment)}, kept, task, {last: figures})
    metrics = {step: {f"test/{name}": value for name, value in values.items()} for step, values in found.items()}
    return {
        "guess": {"metrics": metrics.pop(GUESS), "samples": kept.samples},
        "metrics": metrics,
        "figures": {name: _plain(figure.compute()) for name, figure in figures.items()} if kept.samples else {},
        "predictions": pictures(kept.kept, networks[last], task),
    }


def _plain(figure: Tensor | dict[str, float]) -> Any:
    return figure if isinstance(figure, dict) else figure.tolist()


def _guess(experiment: Experiment) -> Predict:
    """The best output that ignores the image, or an untrained network where the task knows none."""
    task, data = experiment.task, experiment.data
    constant = task.constant(labels) if (labels := data.train_labels()) is not None else None
    if constant is None:
        return to_accelerator(experiment.network(experiment.recipe.student).model)

    def guess(inputs: Tensor) -> Tensor:
        return constant.expand(len(inputs), *constant.shape)

    return guess


def _timed(experiment: Experiment, made: Made, exported: Exports) -> dict[str, dict[str, float]]:
    """Latencies, all measured one after the other now, so that they compare; networks of one structure share one."""
    if not is_first():
        return {name: {} for name in (*made, *exported)}
    images, sizes, by_structure, latencies = experiment.example.inputs, _batch_sizes(experiment), {}, {}
    for name, done in made.items():
        structure = key(dict(done.artifact.network), [asdict(plan) for plan in done.artifact.plans])
        if structure not in by_structure:
            try:
                by_structure[structure] = latency.latency(deployable(done.artifact.model), images, batch_sizes=sizes)
            except ExportError as error:
                console.print(f"{name}: no latency, {error}")
                by_structure[structure] = {}
        latencies[name] = by_structure[structure]
    for name, (_, file) in exported.items():
        found = latency.timings(file.single(), images, sizes)
        latencies[name] = {key: timing.median for key, timing in found.items()}
    return latencies


def _batch_sizes(experiment: Experiment) -> list[int]:
    return list(experiment.recipe.latency_batch_sizes or experiment.task.batch_sizes)


def _track(experiment: Experiment, steps: tuple[Step, ...], figures: Mapping[str, Any]) -> None:
    experiment.tracker.steps(steps)
    if "confusion" in figures:
        experiment.tracker.confusion(figures["confusion"], experiment.data.info.class_names)
    recipe = experiment.recipe.recipe
    experiment.tracker.artifact(experiment.folder / "student.safetensors", f"{recipe}-student", {"recipe": recipe})
