"""What the commands do with an artifact: open it, and build what it names."""

from collections.abc import Collection, Sequence
from pathlib import Path

from distill import registry
from distill.artifact import Artifact, open_artifact
from distill.data import DataInfo, DataModule
from distill.errors import ArtifactError, RecipeError
from distill.recipe.overrides import apply_override
from distill.recipe.typed import built
from distill.tasks import Task, injectable


def open_made_by_recipe(path: str, allow: Collection[str]) -> Artifact:
    """The artifact in a file.

    Raises:
        ArtifactError: it is damaged, or no recipe made it.
    """
    artifact = open_artifact(Path(path), allow=allow)
    if missing := {"task", "data", "info"} - set(artifact.about):
        raise ArtifactError(f"'{path}' does not say its {', '.join(sorted(missing))}: it was not made by a recipe")
    return artifact


def info_of(artifact: Artifact) -> DataInfo:
    """What the artifact says about the images that it reads."""
    return DataInfo.from_json(artifact.about["info"])


def task_of(artifact: Artifact) -> Task:
    """The task that the artifact's network was trained for."""
    task: Task = built(artifact.about["task"], registry.task, injectable(info_of(artifact)))
    return task


def data_of(artifact: Artifact, overrides: Sequence[str]) -> DataModule:
    """The artifact's data set; ``data.root=FOLDER`` says where it lies on this machine.

    Raises:
        RecipeError: an override that is no setting of the data set.
        DataError: the data set is not there.
    """
    tree = {"data": dict(artifact.about["data"])}
    for override in overrides:
        if not override.startswith("data."):
            raise RecipeError(f"'{override}' is not of the form data.KEY=VALUE")
        apply_override(override, tree)
    data: DataModule = built(tree["data"], registry.data, {"seed": lambda: 0})
    return data
