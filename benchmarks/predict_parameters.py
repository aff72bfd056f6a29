"""Predicted parameters (Denil et al., arXiv:1306.0543) beside svd at equal size, before and after fine-tuning.

    python -m benchmarks.predict_parameters [--networks lenet300 ...] [--parts 0.5 0.25] [--seeds 3]

Trains the networks as the recipes of deep compression for Fashion-MNIST do, keeps a part of their parameters by each
hook, and trains what is left for two epochs. A dictionary that is stored counts as parameters. Finished steps are kept
in ``OUTPUT``; each network, hook and seed is a line of ``benchmarks/results/predict_parameters.jsonl`` and is not
measured again. `python -m benchmarks.tables` makes the table of docs/benchmarks/predict_parameters.md.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks import _results
from benchmarks._command import command, described
from benchmarks._jobs import parsed, say
from benchmarks._over_seeds import grouped, middle, shown
from benchmarks._results import RESULTS, Row, kept
from benchmarks.compression import test
from distill.errors import RecipeError
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_student
from distill.recipe.loading import load

FILE = RESULTS / "predict_parameters.jsonl"
IDENTITY = ("network", "part", "hook", "seed")
NETWORKS = ("lenet300", "lenet5")
HOOKS = {
    "svd": "svd: {{{}}}",
    "predict_parameters": "predict_parameters: {{{}}}",
    "predict_parameters, spatial": "predict_parameters: {{kernel: spatial, {}}}",
    "predict_parameters, covariance": "predict_parameters: {{kernel: covariance, {}}}",
}
FINETUNE = "finetune: {epochs: 2, optimizer: {lr: 0.01, weight_decay: 5e-4, nesterov: true}}"


def measure(network: str, part: float, hook: str, seed: int, output: Path) -> Row:
    """One hook on one network: bytes, and accuracy in percent on the test split before it (``dense``), right after it
    (``plain``) and after fine-tuning (``tuned``)."""
    found = []
    for training in ("", FINETUNE):
        entry = HOOKS[hook].format(", ".join(filter(None, [f"max_params: {part}", training])))
        settings = [f"seed={seed}", f"output={output}", "tracking.mode=disabled", f"compress={{{entry}}}"]
        with Experiment.open(load(f"fashion_mnist/deep_compression_{network}", settings)) as experiment:
            trained = list(train_student(experiment, {}).values())[-1]
            (done,) = compress(experiment, trained, {}).values()
            found.append((done.step.bytes, *(test(experiment, one.artifact.model) for one in (trained, done))))
    (size, dense, plain), (*_, tuned) = found
    return {"bytes": size, "dense": dense, "plain": plain, "tuned": tuned}


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table by its name on pages, if there are rows for it."""
    lines = []
    for (network, part, hook), seeds in grouped(rows, "network", "part", "hook").items():
        cells = [network, f"{part:g}", hook]
        if "error" in seeds[0]:
            lines.append([*cells, seeds[0]["error"], "", "", ""])
        else:
            size = middle(seeds, lambda row: row["bytes"])
            lines.append([*cells, f"{size:,.0f}", *(shown(seeds, name) for name in ("dense", "plain", "tuned"))])
    head = ["network", "part of parameters", "hook", "bytes", "dense, %", "after the hook, %", "after fine-tuning, %"]
    return {"predict_parameters": f"{_results.table(head, lines)}\n\n{_results.measured(rows)}"} if rows else {}


def attempted(network: str, part: float, hook: str, seed: int, output: Path) -> Row:
    """Measured, or why it cannot be: small layers have no option that is a so small part of them."""
    try:
        return measure(network, part, hook, seed, output)
    except RecipeError as error:
        return {"error": str(error)}


@command
def main() -> None:
    """Measure what is missing."""
    parser = described(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--parts", nargs="+", type=float, default=[0.5, 0.25])
    options = parsed(parser, FILE)
    for network, part, hook, seed in product(options.networks, options.parts, HOOKS, range(options.seeds)):
        named = {"network": network, "part": part, "hook": hook, "seed": seed}
        row = kept(options.results, named, partial(attempted, **named, output=options.output))
        say(f"{network}, {part}, {hook}, seed {seed}: {row.get('tuned', row.get('error'))}")


if __name__ == "__main__":
    main()
