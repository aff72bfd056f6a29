"""The commands of ``python -m distill``, one function each; a function's first line is its help text."""

import inspect as signatures
from argparse import Namespace
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.markup import escape
from rich.table import Table

from distill.artifact import Artifact, open_artifact
from distill.cli.terminal import recipe_arguments
from distill.codecs import codec
from distill.compress import hook
from distill.console import console
from distill.data import DataInfo, data
from distill.errors import ArtifactError, RecipeError
from distill.export import exporter, onnx_file
from distill.losses import loss
from distill.measure import latency
from distill.measure.evaluation import score, to_accelerator
from distill.models import cost
from distill.models.surgery import deployable
from distill.recipe import files, loading
from distill.recipe.plain import resolved
from distill.recipe.schema import Component as Named
from distill.registry import Component, Registry, options, schema
from distill.tasks import task
from students import student

Command = Callable[[Namespace], None]
LONGEST_SETTING = 300
"""Characters; the packed layers of an imported network are no reading matter."""
KINDS: dict[str, Registry | None] = {
    "recipes": None,
    "losses": loss,
    "students": student,
    "hooks": hook,
    "codecs": codec,
    "data": data,
    "exports": exporter,
}


def evaluate(options: Namespace) -> None:
    """Score an artifact on the test split of its data."""
    artifact = _open(options.artifact, options.allow)
    samples = _data(artifact, options.overrides)
    meaning = _build(task, artifact.about["task"], samples.info)
    batches = samples.test_dataloader()
    for name, value in score(to_accelerator(deployable(artifact.model)), batches, meaning).items():
        console.print(f"test/{name} {value:.4f}")


def inspect(options: Namespace) -> None:
    """Show what an artifact holds: network, hooks, and how each tensor is stored."""
    artifact = _open(options.artifact, options.allow, needed=())
    size = Path(options.artifact).stat().st_size
    settings = {key: value for key, value in artifact.network.items() if len(str(value)) < LONGEST_SETTING}
    console.print(f"network  {settings}")
    console.print(f"data     {artifact.about.get('info')}")
    console.print(f"total    {cost.params(artifact.model):,} parameters, {size:,} bytes")
    for step in artifact.history:
        scores = "  ".join(f"{key} {value:.4f}" for key, value in step.metrics.items())
        console.print(f"history  {step.step}: {step.params:,} parameters, {step.bytes:,} bytes  {scores}")
    for plan in artifact.plans:
        console.print(f"changed  {plan.hook}: {len(plan.layers)} layers")
    table = Table("parameter", "shape", "stored as", "bytes", "bits per value", box=None, pad_edge=False)
    for name, parameter in artifact.model.named_parameters():
        form = artifact.stored.get(name)
        size = form.nbytes() if form else parameter.numel() * parameter.element_size()
        kind = type(form).__name__ if form else str(parameter.dtype).removeprefix("torch.")
        bits = 8 * size / parameter.numel()
        table.add_row(name, "x".join(map(str, parameter.shape)), kind, f"{size:,}", f"{bits:.2f}")
    console.print(table)


def export(options: Namespace) -> None:
    """Write an artifact in a format that a phone or a server runs, and check it on real samples."""
    artifact = _open(options.artifact, options.allow)
    component = exporter.find(options.to)
    samples = _data(artifact, []).calibration(512)
    folder = Path(options.output) if options.output else Path(options.artifact).parent
    meaning = _build(task, artifact.about["task"], DataInfo.from_json(artifact.about["info"]))
    made = component(artifact, folder, samples, meaning)
    console.print(
        f"{made.path}: {made.nbytes:,} bytes, differs from the artifact by {made.difference:.1e}, "
        f"{meaning.agreement_name} {100 * made.agreement:.1f} %"
    )


def bench(options: Namespace) -> None:
    """Time an artifact in ONNX Runtime: median and quartiles."""
    artifact = _open(options.artifact, options.allow, needed=("info",))
    info = DataInfo.from_json(artifact.about["info"])
    example = torch.zeros(1, info.channels * info.images, *info.image_size)
    file = onnx_file.serialize(deployable(artifact.model), example)
    timings = latency.file_latency(file, example, batch_sizes=options.batch_sizes, threads=options.threads, seconds=2.0)
    table = Table("ONNX Runtime", "median ms", "25 %", "75 %", "images/s", box=None, pad_edge=False)
    for name, timing in timings.items():
        images = 1000 * int(name.removeprefix("batch")) / timing.median
        table.add_row(name, f"{timing.median:.3f}", f"{timing.p25:.3f}", f"{timing.p75:.3f}", f"{images:,.0f}")
    console.print(table)


def list_(options: Namespace) -> None:
    """List what a recipe may name."""
    table = Table(box=None, pad_edge=False, show_header=False)
    registry = KINDS[options.kind]
    if registry is None:
        for name in files.names():
            table.add_row(name, files.summary(name))
    else:
        for name in registry.names():
            component = registry.find(name)
            cost = _cost(component) if registry is student else ()
            table.add_row(
                name, *cost, escape(_settings(component)), escape(_source(component))
            )  # list[str] is no markup
    console.print(table)


def show(options: Namespace) -> None:
    """Print a recipe with everything filled in."""
    name, overrides = recipe_arguments(options.arguments)
    console.print(resolved(loading.load(name, overrides)), markup=False, soft_wrap=True)


def cache(options: Namespace) -> None:
    """Fill a recipe's cache ahead of its training; goes on where it was stopped."""
    from distill.pipeline.precompute import fill

    name, overrides = recipe_arguments(options.arguments)
    fill(loading.load(name, overrides))


def sweep(options: Namespace) -> None:
    """Run a sweep file in W&B's format on this machine, with Optuna."""
    from distill.sweep import sweep as run_sweep

    run_sweep(
        Path(options.file),
        trials=options.trials,
        jobs=options.jobs,
        storage=options.storage,
        overrides=options.overrides,
    )


def _open(path: str, allow: Collection[str], needed: Collection[str] = ("task", "data", "info")) -> Artifact:
    artifact = open_artifact(Path(path), allow=allow)
    if missing := set(needed) - set(artifact.about):
        raise ArtifactError(f"'{path}' does not say its {', '.join(sorted(missing))}: it was not made by a recipe")
    return artifact


def _data(artifact: Artifact, overrides: Sequence[str]) -> Any:
    """The artifact's data set; ``data.root=FOLDER`` says where it lies on this machine."""
    node = OmegaConf.create({"data": artifact.about["data"]})
    for override in overrides:
        if not override.startswith("data.") or "=" not in override:
            raise RecipeError(f"'{override}' is not of the form data.KEY=VALUE")
    return _build(data, OmegaConf.merge(node, OmegaConf.from_dotlist(list(overrides))).data, 0)


def _build(registry: Registry, node: Any, *supplied: Any) -> Any:
    component = registry.find(node["name"])
    typed = OmegaConf.merge(OmegaConf.structured(schema(component, Named)), node)
    return component(*supplied, **options(component, OmegaConf.to_object(typed)))


def _settings(component: Component) -> str:
    """The keyword-only parameters and their defaults, as a recipe would write them."""
    parameters = signatures.signature(component).parameters.values()
    return ", ".join(str(p).replace(" = ", "=") for p in parameters if p.kind is p.KEYWORD_ONLY)


def _cost(network: Component) -> tuple[str, str]:
    """Parameters, and millions of MACs on images of the size that its paper has; both at the default settings."""
    parameters = signatures.signature(network).parameters
    with torch.device("meta"):
        model = network()
        for size in (224,) if "small_images" in parameters else (32, 28):
            with suppress(RuntimeError):  # the LeNets take one size alone
                macs = cost.macs(model, torch.empty(1, parameters["channels"].default, size, size))
                return f"{cost.params(model):,}", f"{macs / 1e6:,.1f}M at {size}"
    return f"{cost.params(model):,}", ""


def _source(component: Component) -> str:
    """The first line of the component's own text, or of its file: what it is and where it is from."""
    text = signatures.getdoc(signatures.getmodule(component)) or ""
    return text.partition("\n")[0]
