"""Stages are built alike, whatever the process did before."""

import torch

from distill.pipeline.build import build_distiller, data_and_task
from distill.recipe.loading import load
from tests.nets import ConvNet


def test_what_losses_learn_does_not_depend_on_what_ran_before() -> None:
    hint = "stages.distill.losses={fitnet: {student: [stage2], teacher: [stage2]}}"
    recipe = load("smoke", [hint])
    data, task = data_and_task(recipe)
    built = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # as if another step had been trained in this process, or none
        build = build_distiller(recipe, data, task, ConvNet(), ConvNet(width=8), recipe.stages["distill"])
        built.append(list(build.method.terms.parameters()))
    assert built[0]
    assert all(torch.equal(*pair) for pair in zip(*built, strict=True))
