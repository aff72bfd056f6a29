"""torchdistill's distillation box (pip install torchdistill) for the work of `benchmarks.distillation_speed`.

Yoshitomo Matsubara: torchdistill, arXiv:2011.12913. Set up as its sample configurations for ilsvrc2012/at and kr do.
"""

import logging
from typing import Any

import torch
from torch import nn
from torch.utils.data import RandomSampler
from torchdistill.common.constant import def_logger
from torchdistill.core.distillation import DistillationBox, get_distillation_box

from benchmarks._work import OneByOne, Workload, shapes

FORWARD = {"forward_proc": "forward_batch_only"}
OUTPUT = {"student_module_path": ".", "student_module_io": "output"}
FROM_LABELS = {"input": {"is_from_teacher": False, "module_path": ".", "io": "output"}, "target": {"uses_label": True}}


def distillation_box(
    work: Workload, data: OneByOne, sgd: dict[str, float], weights: dict[str, float], temperature: float
) -> DistillationBox:
    """Ready for its first epoch."""
    def_logger.setLevel(logging.WARNING)
    student, teacher = work.networks()
    ours, theirs = work.paths
    terms = _review(work, weights) if work.loss == "reviewkd" else _kd_at(work, weights, temperature)
    entropy = {"criterion": {"key": "CrossEntropyLoss", "kwargs": {"reduction": "mean"}}, "weight": 1.0}
    terms["ce"] = {**entropy, "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": FROM_LABELS}}
    review = _fusions(work, student, teacher) if work.loss == "reviewkd" else {}
    loading = {"batch_size": work.batch, "num_workers": 2 * work.loads, "drop_last": True}
    device = torch.device(work.device)
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "noise",
            "sampler": {"class_or_func": RandomSampler, "kwargs": None},
            "kwargs": loading,
        },
        "teacher": {**FORWARD, "forward_hook": {"output": theirs}, "requires_grad": False},
        "student": {**FORWARD, "forward_hook": {"output": ours}} | review,
        "optimizer": {"key": "SGD", "kwargs": dict(sgd)},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
    }
    return get_distillation_box(teacher, student, {"noise": data}, config, device, None, False, 1)


def _kd_at(work: Workload, weights: dict[str, float], temperature: float) -> dict[str, Any]:
    teacher = {"teacher_module_path": ".", "teacher_module_io": "output"}
    kd = {**OUTPUT, **teacher, "temperature": temperature, "alpha": 0.0, "reduction": "batchmean"}
    pairs = {
        f"pair{number}": {"student": {"path": ours, "io": "output"}, "teacher": {"path": theirs, "io": "output"}}
        for number, (ours, theirs) in enumerate(work.taps)
    }
    # Without cross entropy of its own it leaves out the square of the temperature.
    soft = {"kd": {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": temperature**2 * weights["kd"]}}
    maps = {"at": {"criterion": {"key": "ATLoss", "kwargs": {"at_pairs": pairs}}, "weight": weights["at"]}}
    return soft | (maps if pairs else {})


def _review(work: Workload, weights: dict[str, float]) -> dict[str, Any]:
    """The wrapper numbers its fusions from the deepest."""
    terms = {}
    for number, (_, theirs) in enumerate(reversed(work.taps)):
        paths = {"student_module_path": f"abf_modules.{number}", "teacher_module_path": theirs}
        settings = {**paths, "student_module_io": "output", "teacher_module_io": "output"}
        terms[theirs] = {
            "criterion": {"key": "HierarchicalContextLoss", "kwargs": settings},
            "weight": weights["reviewkd"],
        }
    return terms


def _fusions(work: Workload, student: nn.Module, teacher: nn.Module) -> dict[str, Any]:
    """A student with the fusions of knowledge review around it."""
    ours, theirs = work.paths
    found = (shapes(student, ours, work.side), shapes(teacher, theirs, work.side))
    pairs = list(zip(ours, *found, strict=True))
    inner = min(512, pairs[-1][1][1])  # as in distill.losses.reviewkd
    fusions = [
        {
            "path": f"student_model.{path}",
            "io": "output",
            "kwargs": {"in_channels": s[1], "mid_channels": inner, "out_channels": t[1]},
        }
        for path, s, t in pairs
    ]
    sizes = [s[2] for _, s, _ in reversed(pairs)]
    hooks = [f"student_model.{path}" for path in ours] + [f"abf_modules.{number}" for number in range(len(ours))]
    return {
        "auxiliary_model_wrapper": {"key": "Student4KnowledgeReview", "kwargs": {"abfs": fusions, "sizes": sizes}},
        "forward_hook": {"output": hooks},
    }
