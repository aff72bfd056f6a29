"""How fast networks for characters get: low rank, integers, and both. Speed alone.

    python -m benchmarks.character_speed character_cnn --macs 0.25
    python -m benchmarks.character_speed hccr_cnn9 --macs 0.11

For 3,755 classes with random weights, which decide nothing about speed; `benchmarks.stages` measures what accuracy is
left. One image at a time on one thread of ONNX Runtime, networks in turns. Prints a Markdown table.
"""

import argparse
import inspect

import torch

import students
from benchmarks._jobs import say
from benchmarks._page import measured_here
from benchmarks._results import table
from benchmarks.stages import race, runnable
from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress import hook
from distill.console import quiet_libraries
from distill.data.info import DataInfo
from distill.models import cost
from distill.models.surgery import deployable
from distill.tasks.classification import Classification

CLASSES = 3755


def networks(name: str, samples: list[Batch], macs: float, layers: list[str] | None) -> dict[str, Artifact]:
    """The dense network and what hooks make of it."""
    torch.manual_seed(0)
    dense = Artifact(getattr(students, name)(num_classes=CLASSES).eval(), network={"name": name})
    low_rank = hook.find("svd")(dense, lambda _: 0.0, samples, max_macs=macs, aim="speed", layers=layers)
    made = {"dense": dense, "svd": low_rank}
    return made | {f"{name} + int8": hook.find("int8")(one, samples, lambda _: 0.0) for name, one in made.items()}


def main() -> None:
    """Compress, time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["character_cnn", "hccr_cnn9"])
    parser.add_argument("--macs", type=float, default=0.25, help="what low rank leaves, as a part of all")
    parser.add_argument("--layers", nargs="+", help="globs of the layers that become low rank; all without any")
    options = parser.parse_args()
    quiet_libraries()
    size = inspect.signature(getattr(students, options.network)).parameters["input_size"].default
    samples = [Batch(torch.randn(32, 1, size, size), torch.zeros(32), torch.arange(32))]
    task = Classification(DataInfo(1, (size, size), (0.5,), (0.5,), tuple(map(str, range(CLASSES)))))
    artifacts = networks(options.network, samples, options.macs, options.layers)
    runs = {name: runnable(artifact, samples, task) for name, artifact in artifacts.items()}
    times = race(runs, samples[0].inputs, batches=(1,))
    whole = cost.macs(deployable(artifacts["dense"].model), samples[0].inputs)
    lines = []
    for name, artifact in artifacts.items():
        model = deployable(artifact.model)
        macs = cost.macs(model, samples[0].inputs)
        speed = [f"{times[name][key]['batch1']:.3f}" for key in ("milliseconds", "times_as_fast")]
        lines.append([name, f"{cost.params(model):,}", f"{macs:,}", f"{whole / macs:.1f}", *speed])
    say(table([options.network, "parameters", "MACs", "times fewer", "ms, batch 1", "times as fast"], lines))
    say(f"\n{measured_here()}")


if __name__ == "__main__":
    main()
