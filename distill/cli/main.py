"""python -m distill COMMAND: everything that is done with a recipe or an artifact beside running it."""

import argparse
from collections.abc import Sequence

from distill.cli.terminal import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; answers the exit code."""
    parser = _parser()
    # argparse looks for no positional arguments after an option: of `sweep FILE --jobs 2 seed=1` it leaves the last.
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return guarded(lambda: options.work(options), debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    from distill.cli import codecs, commands

    parser = argparse.ArgumentParser(prog="python -m distill", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def verb(work: commands.Command) -> argparse.ArgumentParser:
        summary = (work.__doc__ or "").partition("\n")[0]
        added = verbs.add_parser(work.__name__.rstrip("_"), parents=[common], help=summary, description=summary)
        added.set_defaults(work=work)
        return added

    for work in (commands.evaluate, commands.inspect, commands.export, commands.bench):
        added = verb(work)
        added.add_argument("artifact", help="a .safetensors file of a run")
        added.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of your own network")
        if work is commands.evaluate:
            added.add_argument("overrides", nargs="*", metavar="data.KEY=VALUE", help="for example data.root=FOLDER")
        if work is commands.export:
            added.add_argument("--to", default="onnx", metavar="FORMAT", help="default: onnx")
            added.add_argument("--output", metavar="FOLDER", help="default: beside the artifact")
        if work is commands.bench:
            added.add_argument("--threads", type=int, default=1, help="default: 1")
            added.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    codecs.add_arguments(verb(codecs.codecs))
    verb(commands.list_).add_argument("kind", choices=sorted(commands.KINDS))
    for work in (commands.show, commands.cache):
        verb(work).add_argument("arguments", nargs="+", metavar="recipe=NAME key.path=value")
    sweep = verb(commands.sweep)
    sweep.add_argument("file", help="a sweep file in W&B's format")
    sweep.add_argument("overrides", nargs="*", metavar="key.path=value", help="set in every trial")
    sweep.add_argument("--trials", type=int, help="how many in all; default: the file's run_cap, or the whole grid")
    sweep.add_argument("--jobs", type=int, default=1, help="how many at a time")
    sweep.add_argument(
        "--storage", metavar="URL", help="any SQL database that Optuna can use; several machines may share it"
    )
    return parser
