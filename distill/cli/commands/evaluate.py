"""Score an artifact on the test split of its data."""

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """The artifact, and where its data lies."""
    parser.add_argument("artifact", help="a .safetensors file of a run")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE", help="module of a network of yours")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="data.KEY=VALUE", help="optional, for example data.root=FOLDER"
    )


def run(options: Namespace) -> None:
    """Read the test split once and print every metric."""
    from distill.cli._artifacts import data_of, open_made_by_recipe, task_of
    from distill.console import console
    from distill.measure.evaluation import score, to_accelerator
    from distill.models.surgery import deployable

    artifact = open_made_by_recipe(options.artifact, options.allow)
    batches, task = data_of(artifact, options.overrides).test_dataloader(), task_of(artifact)
    task.check_countable(batches, "the test split")
    for name, value in score(to_accelerator(deployable(artifact.model)), batches, task).items():
        console.print(f"test/{name} {value:.4f}")
