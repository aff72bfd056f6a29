"""Other libraries on the same networks and images, beside our hooks: NNCF, torch-pruning, TensorLy-Torch.

    pip install -e '.[openvino]' nncf torch-pruning tensorly-torch
    python -m benchmarks.compression        # first: what is compared with, and the students
    python -m benchmarks.peers [--students resnet20 ...] [--peers nncf ...] [--seeds 3] [--jobs 2]

A peer changes a student that `benchmarks.compression` trained; then it is trained as ours was after the hook beside it.
Networks are kept in ``OUTPUT/peers``. Those of seed 0 are timed against ours. Each network, and the times of each
student, are a line of ``benchmarks/results/peers.jsonl``, and what is there is not measured again;
`python -m benchmarks.tables` makes the tables of docs/benchmarks/peers.md.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import _race, _results, compression
from benchmarks._command import command
from benchmarks._jobs import at_once, say
from benchmarks._over_seeds import grouped, shown
from benchmarks._results import RESULTS, Row, kept, read
from benchmarks.compression import arguments, artifact_of, calibration, opened, sizes, teacher, test
from distill.artifact import open_artifact
from distill.batch import Batch
from distill.console import console
from distill.errors import DistillError
from distill.export import onnx_file
from distill.export.openvino import runner
from distill.measure.evaluation import score
from distill.models import cost
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_student, train_teachers

FILE = RESULTS / "peers.jsonl"
IDENTITY = ("student", "peer", "seed", "race")
CLASSES = 10


def torch_pruning(model: nn.Module, images: Tensor) -> nn.Module:
    """Half of the MACs, or a little less: the least part of all channels, in multiples of 8, that does it."""
    import torch_pruning as pruning

    allowed = cost.macs(model, images) / 2
    low, high, found = 0.0, 1.0, model
    for _ in range(8):
        part = (low + high) / 2
        pruned = copy.deepcopy(model)
        pruning.pruner.MagnitudePruner(
            pruned,
            images[:1],
            importance=pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=part,
            ignored_layers=[layer for layer in pruned.modules() if _answers(layer)],
            round_to=8,
        ).step()
        if cost.macs(pruned, images) <= allowed:
            high, found = part, pruned
        else:
            low = part
    return found


def tensorly_torch(kind: str) -> Callable[[nn.Module, Tensor], nn.Module]:
    """Half of the parameters, or a little less: the largest part of every convolution that has more than a channel to
    sum over that does it. What its ``rank`` keeps of a layer is not that part of its parameters."""

    def factorised(model: nn.Module, part: float, *, values: bool) -> nn.Module:
        from tltorch import FactorizedConv

        model = copy.deepcopy(model)
        for path, layer in list(model.named_modules()):
            if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.in_channels > 1:
                parent, _, name = path.rpartition(".")
                made = FactorizedConv.from_conv(
                    layer, rank=part, factorization=kind, decompose_weights=values, implementation="factorized"
                )
                setattr(model.get_submodule(parent), name, made)
        return model

    def halved(model: nn.Module, _: Tensor) -> nn.Module:
        low, high = 0.0, 4.0
        for _ in range(9):
            part = (low + high) / 2
            # The values of a train cut its ranks further; those of a sum of cubes take minutes, and change no rank.
            if cost.params(factorised(model, part, values=kind == "tt")) <= cost.params(model) / 2:
                low = part
            else:
                high = part
        return factorised(model, low, values=True)

    return halved


@dataclass(frozen=True)
class Peer:
    """A library's way, and ours with the same budget and training."""

    change: Callable[[nn.Module, Tensor], nn.Module] | None
    """None: NNCF, which changes no PyTorch network but OpenVINO's."""
    ours: tuple[str, ...]
    """Ways of `benchmarks.compression`."""


PEERS = {
    "nncf": Peer(None, ("int8",)),
    "torch-pruning": Peer(torch_pruning, ("prune_channels", "prune_channels, speed")),
    "tensorly-torch, cp": Peer(tensorly_torch("cp"), ("cp",)),
    "tensorly-torch, tucker": Peer(tensorly_torch("tucker"), ("tucker",)),
    "tensorly-torch, tt": Peer(tensorly_torch("tt"), ("tensor_train",)),
}


def _answers(layer: nn.Module) -> bool:
    """Whether that is the layer that tells classes apart."""
    return CLASSES in (getattr(layer, "out_features", None), getattr(layer, "out_channels", None))


def judged(options: argparse.Namespace, student: str, name: str, seed: int, folder: Path) -> Row:
    """Let a peer change a student, train it again and judge it."""
    peer = PEERS[name]
    with opened(options, student, peer.ours[0], seed) as experiment:
        teachers = train_teachers(experiment)
        trained = list(train_student(experiment, teachers).values())[-1].artifact.copy_model().eval()
        images = experiment.data.calibration(8)[0].inputs
        if peer.change is None:
            return quantized(experiment, trained, folder)
        torch.manual_seed(seed)
        changed = peer.change(trained, images)
        spec = next(iter(experiment.recipe.compress.values()))
        stage = experiment.recipe.recovery(spec)
        assert stage
        tuned = experiment.train(changed, stage, name, folder, teachers).student.eval()
        file = folder / "network.pt"
        torch.save(tuned, file)
        size = len(onnx_file.serialize(tuned, images))
        return _row(test(experiment, tuned), cost.params(tuned), cost.macs(tuned, images), size)


def quantized(experiment: Experiment, model: nn.Module, folder: Path) -> Row:
    """NNCF's quantization after training, at its defaults, judged in OpenVINO."""
    import nncf
    import openvino

    batches = experiment.data.calibration(512)
    network = openvino.Core().read_model(onnx_file.serialize(model, batches[0].inputs))
    images = [image[None].numpy() for batch in batches for image in batch.inputs]
    network = nncf.quantize(network, nncf.Dataset(images), subset_size=len(images))
    file = folder / "network.xml"
    openvino.save_model(network, file, compress_to_fp16=False)
    parts = [file, file.with_suffix(".bin")]
    predict = runner(*(part.read_bytes() for part in parts), threads=1)
    counts = cost.params(model), cost.macs(model, batches[0].inputs)
    accuracy = 100 * score(predict, experiment.data.test_dataloader(), experiment.task)["accuracy"]
    return _row(accuracy, *counts, sum(part.stat().st_size for part in parts))


def _row(accuracy: float, params: int, macs: int, size: int) -> Row:
    return {"test": accuracy, "params": params, "macs": macs, "bytes": size}


def place(options: argparse.Namespace, student: str, name: str, seed: int) -> Path:
    return options.output / "peers" / f"{student}-{name.replace(', ', '-')}-{seed}"


def attempted(options: argparse.Namespace, student: str, name: str, seed: int) -> Row:
    """Measured, or why the peer cannot do it."""
    folder = place(options, student, name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return judged(options, student, name, seed, folder)
    except (DistillError, ZeroDivisionError, RuntimeError) as error:  # whatever a peer cannot do
        return {"error": f"{type(error).__name__}: {error}"}


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Accuracy and size, ours below each peer, and the race of each student."""
    races = {f"peers race {row['student']}": _race.table(row) for row in rows if "race" in row}
    ours = grouped(read(compression.FILE, compression.IDENTITY), "student", "way")
    lines = []
    networks = grouped((row for row in rows if "race" not in row), "student", "peer")
    for (student, name), theirs in networks.items():
        own = {f"ours: {way}": ours[student, way] for way in PEERS[name].ours if (student, way) in ours}
        for title, some in {name: theirs, **own}.items():
            right = [row for row in some if "error" not in row]
            cells = [shown(right, "test"), *sizes(right[0])] if right else ["fails", "", ""]
            lines.append([student, title, *cells])
    below = _results.measured(row for theirs in networks.values() for row in theirs)
    head = ["student", "by", "test, %", "parameters", "MACs"]
    return races | ({"peers": f"{_results.table(head, lines)}\n\n{below}"} if lines else {})


def timed(options: argparse.Namespace, student: str, samples: list[Batch]) -> Row:
    """The networks of seed 0 against each other and the student that they were made from."""
    plain = open_artifact(artifact_of(options.output, student, "fp32"))
    entrants: dict[str, _race.Entrant] = {"fp32": _race.exported(plain, samples)}
    for name in options.peers:
        folder = place(options, student, name, 0)
        if (file := folder / "network.xml").exists():
            parts = file.read_bytes(), file.with_suffix(".bin").read_bytes()
            entrants[name] = {"OpenVINO": {n: partial(runner, *parts, threads=n) for n in _race.THREADS}}
        elif (file := folder / "network.pt").exists():
            model = torch.load(file, weights_only=False)
            entrants[name] = _race.exported(replace(plain, model=model, stored={}), samples)
        for way in PEERS[name].ours:
            if (file := artifact_of(options.output, student, way)).exists():
                entrants[f"ours: {way}"] = _race.exported(open_artifact(file), samples)
    return _race.race(entrants, samples[0].inputs, "fp32")


@command
def main() -> None:
    """Measure what is missing."""
    parser = arguments(__doc__, FILE)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS, metavar="PEER")
    options = parser.parse_args()
    console.quiet = True
    if options.teacher:
        for student, name, seed in product(options.students, options.peers, range(options.seeds)):
            named = {"student": student, "peer": name, "seed": seed}
            kept(options.results, named, partial(attempted, options, student, name, seed))
        return
    weights = teacher(options.output, compression.FILE)
    shared = [f"--output={options.output}", f"--results={options.results}", f"--teacher={weights}"]
    shared += [f"--limit={options.limit}", f"--seeds={options.seeds}"]
    parts = {student: [*shared, "--students", student, "--peers", *options.peers] for student in options.students}
    at_once(parts, options.output / "peers", options.jobs, "benchmarks.peers")
    if not options.no_race:
        samples = calibration()
        for student in options.students:
            named = {"student": student, "race": "peers"}
            say(_race.table(kept(options.results, named, partial(timed, options, student, samples))))


if __name__ == "__main__":
    main()
