"""Mutated recipes: each loads, or is refused by a RecipeError of one line; anything else is a fault.

    python -m benchmarks.faults.recipes [--count 5000] [--seed 0]

Nothing is trained. The exit code is 1 if there was a fault, or if a case took more than ten seconds.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from distill.errors import RecipeError
from distill.recipe.files import RECIPES
from distill.recipe.loading import load

SOURCES = ("smoke", "quickstart", "digits/hybrid", "fashion_mnist/methods/ensemble", "fashion_mnist/hundred")
VALUES = (
    *("", "null", "[]", "{}", "true", "0", "-1", "3", "1e30", "-.inf", ".nan", "0.5", "text", "'quoted: text'"),
    *("[1, two]", "{a: 1}", "{name: kd}", "{name:kd}", "${seed}", "${nothing}", "${oc.env:NO_SUCH_VARIABLE}", "${"),
    *("2024-01-01", "2024-99-99", "0x1F", "0b2", "1_000", "9" * 400, "!!set {a}", "!!binary aGk=", "&a [*a]", "*b"),
    *("? [a]", "???", "~", "2:4", "\u00e9\u4e16", "a.b.c", "math:pi", "no_such_module:x", "x" * 5000),
)
CHARACTERS = "\t\n :-[]{}#&*!|>'\"%@`,?\\\0\x07\ufeff\u2028.=$0aZ"
OVERRIDES = (
    *("seed", "task", "data", "data.val", "data.limit", "student", "student.name", "student.width", "teacher"),
    *("stages", "stages.distill", "stages.distill.epochs", "stages.distill.losses", "stages.distill.losses.kd.weight"),
    *("stages.distill.teacher", "stages.distill.stochastic_depth", "stages.distill.train.0", "stages.hint.blocks"),
    *("compress", "compress.svd", "compress.svd.finetune", "export", "export.onnx", "cache", "cache.views", "tracking"),
    *("optimizer.lr", "optimizer.lr_factors", "schedule.milestones", "trainer", "trainer.devices", "trainer.precision"),
    *("output", "recipe", "+stages.extra", "+compress.more", "+seed", "a..b", ".", "teachers.x.weights", "base"),
)
SECONDS = 10.0


def mutated(text: str, chance: random.Random) -> str:
    """The text of a recipe with one to four faults."""
    for _ in range(chance.randint(1, 4)):
        text = chance.choice(MUTATIONS)(text, chance)
    return text


def _character(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(CHARACTERS) + text[at + chance.randint(0, 1) :]


def _line(text: str, chance: random.Random) -> str:
    """A line is lost, doubled, moved, or indented otherwise."""
    lines = text.splitlines() or [""]
    at = chance.randrange(len(lines))
    match chance.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            lines.insert(chance.randrange(len(lines)), lines.pop(at))
        case _:
            lines[at] = " " * chance.randrange(8) + lines[at].lstrip()
    return "\n".join(lines)


def _value(text: str, chance: random.Random) -> str:
    """What stands behind a colon becomes something else."""
    places = [at for at, character in enumerate(text) if character == ":"]
    if not places:
        return text
    start = chance.choice(places) + 1
    ends = [end for end in (text.find(stop, start) for stop in ",}\n") if end >= 0]
    return f"{text[:start]} {chance.choice(VALUES)}{text[min(ends, default=len(text)) :]}"


def _key(text: str, chance: random.Random) -> str:
    """A letter of a word is lost, or a word becomes another word of the text."""
    words = text.split()
    if not words:
        return text
    word = chance.choice(words)
    other = chance.choice(words) if chance.random() < 0.5 else word[: len(word) // 2] + word[len(word) // 2 + 1 :]
    return text.replace(word, other, 1)


def _cut(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(len(text) + 1)]


MUTATIONS: tuple[Callable[[str, random.Random], str], ...] = (_character, _line, _line, _value, _value, _key, _cut)


def cases(count: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Texts of recipes and overrides; at least one of the two is random."""
    chance = random.Random(seed)
    texts = [(RECIPES / f"{name}.yaml").read_text(encoding="utf-8") for name in SOURCES]
    for _ in range(count):
        text, overrides = chance.choice(texts), []
        if chance.random() < 0.5:
            text = mutated(text, chance)
        if chance.random() < 0.5 or text in texts:
            overrides = [f"{chance.choice(OVERRIDES)}={chance.choice(VALUES)}" for _ in range(chance.randint(1, 2))]
        yield text, overrides


def outcome(file: Path, overrides: list[str]) -> str:
    """``loads``, ``RecipeError``, or what else happened."""
    try:
        load(str(file), overrides)
    except RecipeError as error:
        return "RecipeError" if "\n" not in str(error) else f"fault: {str(error)!r} has several lines"
    except Exception as error:
        return f"fault: {type(error).__name__}: {error}"
    return "loads"


def run(count: int, seed: int) -> Counter[str]:
    """Try ``count`` cases and count outcomes; every fault is printed with its case."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mutated.yaml")
        for number, (text, overrides) in enumerate(cases(count, seed)):
            file.write_text(text, encoding="utf-8", newline="")
            start = time.perf_counter()
            result = outcome(file, overrides)
            if time.perf_counter() - start > SECONDS:
                result = f"fault: took {time.perf_counter() - start:.1f} s"
            if result.startswith("fault"):
                print(f"case {number} of seed {seed}: {result}\n{text}\n{overrides}\n", file=sys.stderr)
            counts[result.partition(":")[0]] += 1
    return counts


def main() -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = run(options.count, options.seed)
    print("  ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return min(counts["fault"], 1)


if __name__ == "__main__":
    sys.exit(main())
