"""Mutated recipes and overrides: each loads, or is refused by a RecipeError of one line. Nothing is trained."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from benchmarks.faults._faults import Faults, WrongResultError
from distill.errors import RecipeError
from distill.recipe.files import RECIPES, names
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


def mutated(text: str, chance: Random) -> str:
    """The text of a recipe with one to four faults."""
    for _ in range(chance.randint(1, 4)):
        text = chance.choice(MUTATIONS)(text, chance)
    return text


def _character(text: str, chance: Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(CHARACTERS) + text[at + chance.randint(0, 1) :]


def _line(text: str, chance: Random) -> str:
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


def _value(text: str, chance: Random) -> str:
    """What stands behind a colon becomes something else."""
    places = [at for at, character in enumerate(text) if character == ":"]
    if not places:
        return text
    start = chance.choice(places) + 1
    ends = [end for end in (text.find(stop, start) for stop in ",}\n") if end >= 0]
    return f"{text[:start]} {chance.choice(VALUES)}{text[min(ends, default=len(text)) :]}"


def _key(text: str, chance: Random) -> str:
    """A letter of a word is lost, or a word becomes another word of the text."""
    words = text.split()
    if not words:
        return text
    word = chance.choice(words)
    other = chance.choice(words) if chance.random() < 0.5 else word[: len(word) // 2] + word[len(word) // 2 + 1 :]
    return text.replace(word, other, 1)


def _cut(text: str, chance: Random) -> str:
    return text[: chance.randrange(len(text) + 1)]


MUTATIONS: tuple[Callable[[str, Random], str], ...] = (_character, _line, _line, _value, _value, _key, _cut)


def case(kind: str, chance: Random) -> tuple[str, list[str]]:
    """The text of a recipe and overrides; one of them, or for ``both`` each of them, is random."""
    text = (RECIPES / f"{chance.choice(SOURCES)}.yaml").read_text(encoding="utf-8")
    if kind != "override":
        text = mutated(text, chance)
    if kind == "text":
        return text, []
    return text, [f"{chance.choice(OVERRIDES)}={chance.choice(VALUES)}" for _ in range(chance.randint(1, 2))]


def attempt(folder: Path, kind: str, chance: Random) -> None:
    """Load one case.

    Raises:
        RecipeError: it is refused.
        WrongResultError: it is refused in more than one line.
    """
    text, overrides = case(kind, chance)
    file = folder / "mutated.yaml"
    file.write_text(text, encoding="utf-8", newline="")
    try:
        load(str(file), overrides)
    except RecipeError as error:
        if "\n" in str(error):
            raise WrongResultError(f"several lines: {str(error)!r}, of {overrides} and\n{text}") from None
        raise


def valid(_: Path) -> None:
    """Load every recipe of the repository, with what reads most: Lightning's source, and OmegaConf's grammar."""
    for name in names():
        load(name, ["trainer.log_every_n_steps=1", "output=${oc.env:HOME,runs}/${student.name}/${oc.decode:'1'}"])


FAULTS = Faults(
    kinds={"text": 0.4, "override": 0.4, "both": 0.2},
    count=5000,
    prepare=lambda folder: folder,
    valid=valid,
    attempt=attempt,
)
