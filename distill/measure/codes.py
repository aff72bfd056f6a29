"""Integer codes of the weights in a file: what an artifact stores, or made of floats by pruning and quantizing."""

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from distill.artifact import open_artifact
from distill.artifact.storage import Encoded
from distill.container.file_format import KEY
from distill.errors import ArtifactError, RecipeError


def read(path: Path, prune: float = 0.0, bits: int = 8, allow: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Names and codes of the weights in an artifact, a safetensors file or a state dict saved by PyTorch.

    Args:
        path: the file.
        prune: see `codes`; only for weights that are floats.
        bits: likewise.
        allow: modules that an artifact's network may be imported from.

    Raises:
        ArtifactError: the file is missing, damaged or of another kind, or holds no weights.
        RecipeError: ``prune`` or ``bits`` is out of range.
    """
    if not 0 <= prune < 1 or not 2 <= bits <= 16:
        raise RecipeError(f"--prune is at least 0 and below 1 and --bits 2 to 16, not {prune} and {bits}")
    found = {}
    for name, tensor in _tensors(path, allow).items():
        if tensor.is_floating_point() and not _wide(tensor).isfinite().all():
            raise ArtifactError(f"{path}: '{name}' holds NaN or Inf, which has no code")
        found[name] = codes(tensor, prune, bits)
    if not found:
        raise ArtifactError(f"{path} holds no weights: no integers, and no floats of two or more axes")
    return found


def codes(tensor: Tensor, prune: float, bits: int) -> np.ndarray:
    """Integers as they are; of floats, the smallest part in magnitude becomes 0, and the rest the nearest of
    ``2**bits - 1`` multiples of one scale, symmetric about 0.

    Args:
        tensor: of any shape; without NaN and Inf.
        prune: how large that part is.
        bits: of a code.
    """
    if not tensor.is_floating_point():
        return tensor.cpu().numpy()
    values = _wide(tensor.detach()).cpu().numpy()
    sizes = np.abs(values)
    if prune and values.size:
        values = np.where(sizes <= np.quantile(sizes, prune), 0, values)
    most = 2 ** (bits - 1) - 1
    scale = sizes.max(initial=0) / most or 1.0
    return np.round(values / scale).astype(np.int8 if bits <= 8 else np.int16)


def _tensors(path: Path, allow: Collection[str]) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        if _is_artifact(path):
            artifact = open_artifact(path, allow)
            stored = {name: _stored_codes(form) for name, form in artifact.stored.items()}
            found = {name: tensor for name, tensor in stored.items() if tensor is not None}
            return _weights(dict(artifact.model.named_parameters())) | found
        return _weights(safetensors.torch.load_file(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        # of `torch.load` the first sentence counts, and a key that is missing says nothing
        reason = "" if isinstance(error, KeyError) else str(error).partition("\n")[0].partition(". ")[0]
        reason = reason or type(error).__name__
        raise ArtifactError(f"{path} is no state dict that can be read without running code: {reason}") from None
    if not isinstance(state, Mapping):
        raise ArtifactError(f"{path} holds a {type(state).__name__}, not a state dict")
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    return _weights(state)


def _wide(tensor: Tensor) -> Tensor:
    """Floats of a type with all operations that holds their values."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _is_artifact(path: Path) -> bool:
    try:
        with safetensors.safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {str(error.strerror or error).partition(':')[0]}") from None
    except safetensors.SafetensorError as error:
        raise ArtifactError(f"{path} is truncated, damaged or not a safetensors file ({error})") from None


def _stored_codes(form: Any) -> Tensor | None:
    """None for a form without codes, such as a mask and floats."""
    if isinstance(form, Encoded):
        return form.codes()
    inner = getattr(form, "inner", None)
    return form.codes if hasattr(form, "codes") else _stored_codes(inner) if inner is not None else None


def _weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of weights: floats of two or more axes, and integers of one or more."""
    tensors = {
        name: _plain(name, value) for name, value in state.items() if isinstance(value, Tensor) and value.numel()
    }
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.dim() >= (2 if tensor.is_floating_point() else 1) and not tensor.is_complex()
    }


def _plain(name: str, tensor: Tensor) -> Tensor:
    """Dense; quantized values as their codes, truth values as 0 and 1.

    Raises:
        ArtifactError: the tensor has no values.
    """
    if tensor.is_meta:
        raise ArtifactError(f"'{name}' is on PyTorch's meta device, where tensors have no values: save it from another")
    if tensor.is_quantized:
        return tensor.int_repr()
    dense = tensor if tensor.layout is torch.strided else tensor.to_dense()
    return dense.to(torch.uint8) if dense.dtype == torch.bool else dense
