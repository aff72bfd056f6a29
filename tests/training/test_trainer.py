"""What a machine lacks is said before anything is trained; batch norms share their statistics where they can."""

from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from distill.errors import RecipeError
from distill.training import batch_norms, hardware, trainer
from distill.training.trainer import build_trainer, require_trainer
from tests.nets import ConvNet

CPU = {"accelerator": "cpu"}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"precision": "16-mixed", **CPU}, "CPUs do not compute with precision=16-mixed: choose bf16-mixed"),
        ({"precision": 16, **CPU}, "CPUs do not compute with precision=16"),
        ({"precision": "float8"}, "Precision 'float8' is invalid"),
        ({"accelerator": "abacus"}, "unknown accelerator 'abacus'. There are: auto, cpu, cuda, gpu, mps, tpu"),
        ({"accelerator": None}, "unknown accelerator 'None'"),
        ({"accelerator": "tpu"}, "finds no tpu on this machine: choose one of auto, cpu"),
        ({"strategy": "fsdp", **CPU}, "fsdp needs a GPU, and none is used: choose auto or ddp"),
        ({"strategy": "dpd"}, "unknown strategy 'dpd'. Did you mean 'ddp'"),
        ({"devices": 99, **CPU}, "devices=99 are that many processes, but this machine has 4 CPU cores .* at most 4"),
        ({"devices": 0, **CPU}, "devices=0, but on a CPU devices are processes"),
        ({"devices": -1, **CPU}, "devices=-1, but .* at least 1, or auto"),
        ({"devices": -3, **CPU}, "devices=-3, but .* at least 1, or auto"),
        ({"devices": [0], **CPU}, r"devices=\[0\], but"),
        ({"devices": "two", **CPU}, "devices=two, but"),
        ({"num_nodes": 0}, "num_nodes"),
        ({"num_nodes": 2, "devices": 1, **CPU}, "num_nodes=2, but nothing says where the other machines are"),
        ({"limit_train_batches": 7.5}, "limit_train_batches"),
    ],
)
def test_what_this_machine_cannot_do_is_one_line(
    settings: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cores", lambda: 4)
    with pytest.raises(RecipeError, match=rf"at trainer(\.\w+)?: .*{complaint}") as raised:
        require_trainer(settings)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(
        RecipeError, match="at trainer.accelerator: PyTorch .* finds no gpu on this machine: choose one of auto"
    ):
        require_trainer({"accelerator": "gpu"})


@pytest.mark.parametrize("strategy", [{}, {"strategy": "ddp"}, {"strategy": "ddp_spawn"}])
@pytest.mark.parametrize("partial", [False, True])
def test_stages_that_train_a_part_wait_for_no_gradients_of_the_rest(strategy: dict[str, Any], partial: bool) -> None:
    made = build_trainer({"devices": 2, **strategy, **CPU}, partial=partial, logger=False).strategy
    assert isinstance(made, DDPStrategy)
    assert made._ddp_kwargs.get("find_unused_parameters", False) == partial
    assert made.launcher is not None
    assert ("Multi" in type(made.launcher).__name__) == ("ddp_spawn" in strategy.values())
    assert made.process_group_backend is None  # gloo on CPUs


def test_gpus_gather_what_lies_on_the_cpu_too() -> None:
    resolved = DDPStrategy()
    resolved.root_device = torch.device("cuda")
    made = trainer._ddp(resolved, "ddp", partial=False)
    assert made.process_group_backend == "cpu:gloo,cuda:nccl"


def two(device: str) -> Any:
    """A Trainer of two processes; ``device`` stands for the one that it would compute on."""
    made = build_trainer({"devices": 2, "strategy": "ddp", **CPU}, logger=False)
    made.strategy.root_device = torch.device(device)
    return made


@pytest.fixture(autouse=True)
def settable_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DDPStrategy, "root_device", torch.device("cpu"))


def kinds(net: nn.Module) -> set[type]:
    return {type(module) for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}


def test_on_gpus_batch_norms_are_synchronized_while_they_train_and_stay_the_same_objects() -> None:
    net = ConvNet()
    before = dict(net.named_modules())
    with batch_norms.synchronized([net], two("cuda"), None):
        assert kinds(net) == {nn.SyncBatchNorm}
        assert dict(net.named_modules()) == before
    assert kinds(net) == {nn.BatchNorm2d}
    assert vars(net.stage1[1]).keys() == vars(ConvNet().stage1[1]).keys()


class NormAct(nn.BatchNorm2d):
    """Does more than a batch norm, as timm's does."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).relu()


def test_a_batch_norm_of_another_kind_computes_what_it_will_when_it_ships(caplog: pytest.LogCaptureFixture) -> None:
    batch_norms._warn_once.cache_clear()
    net, images = nn.Sequential(nn.Conv2d(1, 3, 1), NormAct(3), nn.BatchNorm2d(3)).eval(), torch.randn(2, 1, 4, 4)
    expected = net[:2](images)
    with batch_norms.synchronized([net], two("cuda"), None):
        assert kinds(net) == {NormAct, nn.SyncBatchNorm}
        assert torch.equal(net[:2](images), expected)
    assert "NormAct cannot be synchronized" in caplog.text


@pytest.mark.parametrize(("device", "wanted", "lines"), [("cpu", None, 1), ("cpu", False, 0), ("cuda", False, 0)])
def test_elsewhere_they_are_not_and_it_is_said(
    device: str, wanted: bool | None, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    batch_norms._warn_once.cache_clear()
    net = ConvNet()
    with batch_norms.synchronized([net], two(device), wanted):
        assert kinds(net) == {nn.BatchNorm2d}
    assert len([line for line in caplog.messages if "each process's own share" in line]) == lines
