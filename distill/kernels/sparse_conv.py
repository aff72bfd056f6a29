"""Park et al.: Faster CNNs with Direct Sparse Convolutions and Guided Pruning. arXiv:1608.01409, section 2.1: every
non-zero weight is multiplied with the part of the input that it meets, without lowering the input to a matrix.

A non-zero's place in its filter becomes an offset into the padded input; all that it meets lies in rows from there on.
Output positions wait in registers while the non-zeros of their filter pass by. A stride splits the padded input into
as many smaller images, so that rows stay contiguous.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.kernels import _native
from distill.kernels.geometry import FLOAT, Geometry


class SparseConv2d(nn.Module):
    """A convolution that keeps and multiplies only its non-zero weights: compressed sparse rows, one to a filter.

    For inference: images (batch, channels, height, width) in float32 on the CPU run in the compiled kernel. All else,
    and gradients with respect to the images, run as a dense convolution with the same weights.

    Args:
        geometry: of the convolution.
        values: the non-zeros, filter by filter.
        columns: int32, the place of each within its filter, flattened (channel, row, column).
        starts: int32 (out_channels + 1), where in ``values`` each filter begins.
        bias: (out_channels), or None.
    """

    values: Tensor
    columns: Tensor
    starts: Tensor
    bias: Tensor | None

    def __init__(
        self, geometry: Geometry, values: Tensor, columns: Tensor, starts: Tensor, bias: Tensor | None = None
    ) -> None:
        super().__init__()
        self.geometry = geometry
        for name, tensor in {"values": values, "columns": columns, "starts": starts, "bias": bias}.items():
            self.register_buffer(name, tensor)
        self._offsets: tuple[tuple[int, ...], Tensor] | None = None

    @classmethod
    def from_dense(cls, conv: nn.Conv2d) -> "SparseConv2d":
        """The same function, whose zeros are neither kept nor multiplied with.

        Raises:
            ValueError: the layer pads with something else than zeros, or not alike on opposite sides.
        """
        rows = conv.weight.detach().flatten(1)
        counts = (rows != 0).sum(1)
        return cls(
            Geometry.of(conv),
            rows[rows != 0],
            (rows != 0).nonzero()[:, 1].int(),
            F.pad(counts.cumsum(0), (1, 0)).int(),
            None if conv.bias is None else conv.bias.detach().clone(),
        )

    def deploy(self) -> nn.Conv2d:
        """The dense layer, for runtimes that have no such kernel."""
        conv = self.geometry.dense(self.bias is not None).to(self.values)
        with torch.no_grad():
            conv.weight.copy_(self.dense_weight())
            if conv.bias is not None and self.bias is not None:
                conv.bias.copy_(self.bias)
        return conv

    def dense_weight(self) -> Tensor:
        """(out_channels, in_channels of a group, height, width), zeros written out."""
        shape = self.geometry.weight_shape
        weight = self.values.new_zeros(shape[0], shape[1] * shape[2] * shape[3])
        return weight.index_put((self._rows(), self.columns.long()), self.values).view(shape)

    @property
    def density(self) -> float:
        """The part of the weights that are not zero."""
        return len(self.values) / self.geometry.weights

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates for one image of that size: each non-zero once for every output position."""
        above, across = self.geometry.output_size(height, width)
        return len(self.values) * above * across

    def workspace_bytes(self, height: int, width: int) -> int:
        """What the kernel needs beside its output: one padded image."""
        return FLOAT * self._padded_size(height, width)

    def forward(self, input: Tensor) -> Tensor:
        g = self.geometry
        if not _native.runs(input, self.values) or input.dim() != 4 or not g.takes(*input.shape[1:]):
            return F.conv2d(input, self.dense_weight(), self.bias, g.stride, g.padding, g.dilation, g.groups)
        images, _, height, width = input.shape
        output = input.new_empty(images, g.out_channels, *g.output_size(height, width))
        padded = input.new_empty(self._padded_size(height, width))
        phase_height, phase_width = self._phase(height, width)
        shape = g.shape(
            images, height, width, phase_height=phase_height, phase_width=phase_width, threads=torch.get_num_threads()
        )
        offsets = self._stretched(height, width)
        tensors = (input.contiguous(), padded, self.values, offsets, self.starts, self.bias, output)
        _native.call("sparse_conv", shape, *tensors)
        return output

    def extra_repr(self) -> str:
        """What a dense layer says of itself, and the density."""
        g = self.geometry
        return f"{g.in_channels}, {g.out_channels}, kernel_size={g.kernel_size}, density={self.density:.3f}"

    def _rows(self) -> Tensor:
        return torch.repeat_interleave(self.starts.diff().long(), output_size=len(self.values))

    def _phase(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the padded input, split by stride.

        With stride 1 the zeros left of a row are also those right of the row before it.
        """
        g = self.geometry
        above, across = (
            -(-(size + 2 * padding) // stride)
            for size, padding, stride in zip((height, width), g.padding, g.stride, strict=True)
        )
        if g.stride[1] == 1:
            across = max(across - g.padding[1], g.output_size(height, width)[1])
        return above, across

    def _padded_size(self, height: int, width: int) -> int:
        above, across = self._phase(height, width)
        kernels = _native.library()
        slack = kernels.sparse_slack() if kernels else 0
        return self.geometry.in_channels * self.geometry.stride[0] * self.geometry.stride[1] * above * across + slack

    def _stretched(self, height: int, width: int) -> Tensor:
        """The columns as offsets into the padded input of images of that size; remembered for the next such image."""
        key = (height, width, self.columns._version, self.columns.data_ptr())
        if self._offsets is None or self._offsets[0] != key:
            self._offsets = (key, self._stretch(*self._phase(height, width)))
        return self._offsets[1]

    def _stretch(self, above: int, across: int) -> Tensor:
        g, columns = self.geometry, self.columns.long()
        channel, place = (
            columns // (g.kernel_size[0] * g.kernel_size[1]),
            columns % (g.kernel_size[0] * g.kernel_size[1]),
        )
        row, column = place // g.kernel_size[1] * g.dilation[0], place % g.kernel_size[1] * g.dilation[1]
        group = self._rows() // (g.out_channels // g.groups)
        plane = (channel + group * (g.in_channels // g.groups)) * g.stride[0] + row % g.stride[0]
        phase = plane * g.stride[1] + column % g.stride[1]
        return ((phase * above + row // g.stride[0]) * across + column // g.stride[1]).int()
