"""Where feature maps lie on the device, and which ways of reading them their strides allow."""

from __future__ import annotations

from dataclasses import dataclass

ELEMENT_BYTES = {"f16": 2, "bf16": 2, "tf32": 4, "f32": 4}
"""Bytes of an element by the kernel's dtype. tf32 and f32 both read float32: rounded to TF32, or in full precision."""


@dataclass(frozen=True)
class BulkTensor:
    """Feature maps of 16-bit elements as Hopper's bulk copies see them: an inner axis, an outer axis, and images."""

    pointer: int
    dtype: str
    """f16 or bf16."""
    extents: tuple[int, int, int]
    """Elements along the inner axis, the outer axis, and images."""
    strides: tuple[int, int]
    """Bytes along the outer axis and from image to image. Multiples of 16."""


@dataclass(frozen=True)
class FeatureMap:
    """Feature maps (or their gradients) on the device."""

    pointer: int
    shape: tuple[int, int, int, int]
    """N, C, H, W. All >= 1."""
    strides: tuple[int, int, int, int]
    """In elements."""

    @property
    def pixel_strides(self) -> tuple[int, int]:
        """Strides by image row and column. Where H or W is 1, its stride is chosen so that pixels are evenly spaced."""
        _, _, H, W = self.shape
        row, column = self.strides[2:]
        if W == 1:
            return row, row
        return (row if H > 1 else W * column), column

    @property
    def is_evenly_spaced(self) -> bool:
        """Whether one stride leads through all pixels of a channel."""
        row, column = self.pixel_strides
        return row == self.shape[3] * column

    @property
    def layout(self) -> str:
        """The axis that a kernel reads along: `nhwc` where channels are neighbours and pixels are not, else `nchw`."""
        pixels_are_neighbours = self.is_evenly_spaced and self.pixel_strides[1] == 1
        return "nhwc" if self.strides[1] == 1 and self.shape[1] > 1 and not pixels_are_neighbours else "nchw"

    def has_vectors(self, layout: str, element_bytes: int) -> bool:
        """Whether every row along the inner axis starts on 16 bytes, as asynchronous copies need."""
        N, C, H, W = self.shape
        image, channel = self.strides[:2]
        pixel = self.pixel_strides[1]
        if layout == "nchw":
            inner, outer, rows = pixel, channel, C
        else:
            inner, outer, rows = channel, pixel, H * W
        aligned = self.pointer % 16 == 0
        aligned = aligned and (rows == 1 or outer * element_bytes % 16 == 0)
        aligned = aligned and (N == 1 or image * element_bytes % 16 == 0)
        return aligned and self.is_evenly_spaced and inner == 1

    def bulk_tensor(self, layout: str, dtype: str) -> BulkTensor | None:
        """These maps for bulk copies; None where bulk copies cannot read them."""
        if dtype not in ("f16", "bf16") or not self.has_vectors(layout, 2):
            return None
        N, C, H, W = self.shape
        image, channel = self.strides[:2]
        (inner, outer), stride = ((H * W, C), channel) if layout == "nchw" else ((C, H * W), self.pixel_strides[1])
        # The stride of an axis of one element may be anything; a legal one takes its place.
        stride = stride if outer > 1 else -(-inner // 8) * 8
        image = image if N > 1 else stride * outer
        if stride < inner or image < stride * outer or 2 * image >= 2**40:
            return None
        return BulkTensor(self.pointer, dtype, (inner, outer, N), (2 * stride, 2 * image))
