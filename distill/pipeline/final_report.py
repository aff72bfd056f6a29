"""After the last step: read the test split once, time every network, write table, pictures and report.json."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from distill import report, sealed
from distill.artifact.step import Step
from distill.console import console
from distill.errors import ExportError
from distill.export.exported import Exported
from distill.measure import latency
from distill.measure.evaluation import evaluate, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.provenance import provenance
from distill.pipeline.step_store import Finished
from distill.recipe.plain import key, resolved
from distill.report import Report
from distill.training.processes import is_first

CONFUSION = "the final network's confusion matrix"
Made = Mapping[str, Finished]
Exports = Mapping[str, tuple[Step, Exported]]


def write_final_report(experiment: Experiment, made: Made, stages: Made, exported: Exports) -> tuple[Step, ...]:
    """Complete every row with its test metrics and latency, and report.

    Args:
        experiment: the run.
        made: the rows: teacher, student alone, student, and the student after each hook.
        stages: the student after each of its stages, for their curves.
        exported: the rows of the exported files.
    """
    final = judge(experiment, made, exported)
    rows = {name: done.step for name, done in made.items()} | {name: step for name, (step, _) in exported.items()}
    steps = tuple(
        replace(row, step=name, metrics={**row.metrics, **final["metrics"][name]}, latency_ms=final["latency_ms"][name])
        for name, row in rows.items()
    )
    trained = {name: done for name, done in made.items() if name != "student"} | dict(stages)
    summary = Report(
        recipe=experiment.recipe.recipe,
        steps=steps,
        monitor=experiment.task.monitor,
        curves={name: done.curve for name, done in trained.items() if done.curve},
        confusion=final["confusion"],
        classes=experiment.data.info.class_names,
        resolved=resolved(experiment.recipe),
        versions=provenance(),
    )
    report.write(experiment.folder, summary)
    _track(experiment, steps, final["confusion"])
    console.print(report.table(summary))
    console.print("latency: median on one thread of this machine, in ONNX Runtime or in the runtime of an export")
    console.print(f"report: {experiment.folder / 'report.html'}")
    return steps


def judge(experiment: Experiment, made: Made, exported: Exports) -> dict[str, Any]:
    """Test metrics, confusion matrix and latencies; kept in ``final.json``, so the test split is never read twice."""
    file = experiment.folder / "final.json"
    what = key({name: done.key for name, done in made.items()}, list(exported))
    known = sealed.read_or_warn(file, "metrics on the test split and latencies are measured again")
    if known and known["key"] == what:
        return known
    final = {"key": what, **_tested(experiment, made, exported), "latency_ms": _timed(experiment, made, exported)}
    sealed.write(file, final)
    return final


def _tested(experiment: Experiment, made: Made, exported: Exports) -> dict[str, Any]:
    predict = {name: to_accelerator(deployable(done.artifact.model)) for name, done in made.items()}
    predict |= {name: file.predict for name, (_, file) in exported.items()}
    task = experiment.task
    if task.confusion():
        predict[CONFUSION] = predict[list(made)[-1]]
    scores = evaluate(
        predict,
        experiment.data.test_dataloader(),
        lambda name: (name == CONFUSION and task.confusion()) or task.metrics(),
    )
    confusion: Any = scores.pop(CONFUSION).compute() if CONFUSION in scores else torch.zeros(0)
    metrics = {
        step: {f"test/{name}": float(value) for name, value in score.compute().items()}
        for step, score in scores.items()
    }
    return {"metrics": metrics, "confusion": confusion.tolist()}


def _timed(experiment: Experiment, made: Made, exported: Exports) -> dict[str, dict[str, float]]:
    """Latencies, all measured one after the other now, so that they compare; networks of one structure share one."""
    if not is_first():
        return {name: {} for name in (*made, *exported)}
    images, by_structure, latencies = experiment.example.inputs, {}, {}
    for name, done in made.items():
        structure = key(dict(done.artifact.network), [asdict(plan) for plan in done.artifact.plans])
        if structure not in by_structure:
            try:
                by_structure[structure] = latency.latency(deployable(done.artifact.model), images)
            except ExportError as error:
                console.print(f"{name}: no latency, {error}")
                by_structure[structure] = {}
        latencies[name] = by_structure[structure]
    for name, (_, file) in exported.items():
        latencies[name] = {key: timing.median for key, timing in latency.timings(file.single(), images).items()}
    return latencies


def _track(experiment: Experiment, steps: tuple[Step, ...], confusion: list[list[int]]) -> None:
    experiment.tracker.steps(steps)
    if confusion:
        experiment.tracker.confusion(confusion, experiment.data.info.class_names)
    recipe = experiment.recipe.recipe
    experiment.tracker.artifact(experiment.folder / "student.safetensors", f"{recipe}-student", {"recipe": recipe})
