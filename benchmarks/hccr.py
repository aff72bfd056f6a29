"""How fast the published network for handwritten characters gets: low rank, integers, and both. Speed alone.

    python -m benchmarks.hccr [--macs 0.11]

``hccr_cnn9`` for 96x96 pixels with random weights, which decide nothing about speed: what accuracy is left needs
CASIA's files and the recipe ``characters/hwdb``. One image at a time on one thread of ONNX Runtime, networks in turns.
Prints a Markdown table.
"""

import argparse

import torch

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
from students import hccr_cnn9

SIZE, CLASSES = 96, 3755


def networks(samples: list[Batch], macs: float) -> dict[str, Artifact]:
    """The dense network and what hooks make of it."""
    torch.manual_seed(0)
    dense = Artifact(hccr_cnn9().eval(), network={"name": "hccr_cnn9"})
    svd, int8 = hook.find("svd"), hook.find("int8")
    settings = {"max_macs": macs, "aim": "speed", "weighting": "none", "layers": ["stage*"]}
    low_rank = svd(dense, lambda _: 0.0, samples, **settings)
    made = {"dense": dense, f"svd, {macs:g} of the MACs": low_rank}
    return made | {f"{name}, int8": int8(artifact, samples, lambda _: 0.0) for name, artifact in made.items()}


def main() -> None:
    """Compress, time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--macs", type=float, default=0.11, help="what low rank leaves, as a part of all")
    options = parser.parse_args()
    quiet_libraries()
    samples = [Batch(torch.randn(16, 1, SIZE, SIZE), torch.zeros(16), torch.arange(16))]
    task = Classification(DataInfo(1, (SIZE, SIZE), (0.5,), (0.5,), tuple(map(str, range(CLASSES)))))
    artifacts = networks(samples, options.macs)
    runs = {name: runnable(artifact, samples, task) for name, artifact in artifacts.items()}
    times = race(runs, samples[0].inputs, batches=(1,))
    whole = cost.macs(deployable(artifacts["dense"].model), samples[0].inputs)
    lines = []
    for name, artifact in artifacts.items():
        model = deployable(artifact.model)
        macs = cost.macs(model, samples[0].inputs)
        speed = [f"{times[name][key]['batch1']:.2f}" for key in ("milliseconds", "times_as_fast")]
        lines.append([name, f"{cost.params(model):,}", f"{macs:,}", f"{whole / macs:.1f}", *speed])
    say(table(["network", "parameters", "MACs", "times fewer", "ms", "times as fast"], lines))
    say(f"\n{measured_here()}")


if __name__ == "__main__":
    main()
