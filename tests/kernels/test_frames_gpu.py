"""frames.cu on a GPU: the same bytes as on the emulated one, and arrays that go through a model without leaving the GPU."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from impasto.images import thumbnail  # noqa: E402
from impasto.kernels import cuda_driver, frames  # noqa: E402
from impasto.runtime.gpu.arrays import view  # noqa: E402
from impasto.runtime.gpu.result import GpuArray  # noqa: E402
from impasto.runtime.inference.depths import to_rgb  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def stream():
    torch.manual_seed(0)
    torch.zeros(1, device="cuda")
    with cuda_driver.primary_context(0):
        made = cuda_driver.new_stream()
        yield made
        torch.cuda.synchronize()
        cuda_driver.destroy_stream(made)


def drawn(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")


def picture(tensor, stream, nv12=None):
    found = view(tensor, "the picture", 0, stream, nv12)
    return found.picture


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (1080, 1920)])
def test_rgb_goes_in_and_out_and_is_reflected(stream, size):
    image, border = drawn(*size, 3), 5 if min(size) > 5 else 0
    window = torch.zeros((size[0] + 2 * border, size[1] + 2 * border, 3), dtype=torch.uint8, device="cuda")
    out = torch.zeros_like(image)
    frames.read_window(picture(image, stream), picture(window, stream), -border, -border, stream)
    frames.write_part(picture(image, stream), picture(out, stream), 0, 0, stream)
    cuda_driver.synchronize(stream)
    planes = image.permute(2, 0, 1)[None].float()
    padded = torch.nn.functional.pad(planes, (border,) * 4, mode="reflect") if border else planes
    assert torch.equal(window, padded[0].permute(1, 2, 0).to(torch.uint8))
    assert torch.equal(out, image)


@pytest.mark.parametrize("matrix", frames.MATRICES)
def test_gray_survives_nv12_both_ways(stream, matrix):
    levels = torch.arange(256, dtype=torch.uint8, device="cuda").repeat_interleave(2)
    image = levels.expand(2, 512)[..., None].repeat(1, 1, 3).contiguous()
    surface, back = torch.zeros((3, 512), dtype=torch.uint8, device="cuda"), torch.zeros_like(image)
    frames.write_part(picture(image, stream), picture(surface, stream, matrix), 0, 0, stream)
    frames.read_window(picture(surface, stream, matrix), picture(back, stream), 0, 0, stream)
    cuda_driver.synchronize(stream)
    assert (surface[2] == 128).all()
    assert (back.int() - image.int()).abs().max() <= 1


def test_a_thumbnail_is_that_of_the_host(stream):
    image, small = drawn(301, 203, 3), torch.zeros((96, 96, 3), dtype=torch.uint8, device="cuda")
    frames.write_thumbnail(picture(image, stream), picture(small, stream), stream)
    cuda_driver.synchronize(stream)
    assert (small.cpu().numpy() == thumbnail(image.cpu().numpy(), 96)).all()


def test_torch_reads_a_result_without_a_copy(stream):
    result = GpuArray((4, 5, 3), "uint8", 0)
    image = drawn(4, 5, 3)
    frames.write_part(picture(image, stream), picture(result, stream), 0, 0, stream)
    result.stream = stream
    read = torch.from_dlpack(result)
    assert read.data_ptr() == result.__cuda_array_interface__["data"][0]
    assert torch.equal(read, image)


@pytest.mark.parametrize("shape", [(256, 256), (256, 256, 3)], ids=["gray", "RGB"])
def test_every_level_of_16_bits_survives_there_and_back(stream, shape):
    levels = torch.arange(65536).repeat(len(shape) * 2 - 3)[torch.randperm(65536 * (len(shape) * 2 - 3))]
    image = levels.to(torch.uint16).reshape(shape).cuda()
    window, back = torch.zeros((256, 256, 3), device="cuda"), torch.zeros_like(image)
    frames.read_window(picture(image, stream), picture(window, stream), 0, 0, stream)
    frames.write_part(picture(window, stream), picture(back, stream), 0, 0, stream)
    cuda_driver.synchronize(stream)
    assert torch.equal(back.cpu().int(), image.cpu().int())
    expected = to_rgb(image.cpu().numpy())
    assert (window.cpu().numpy() == expected).all()
    small = torch.zeros((96, 96, 3), dtype=torch.uint8, device="cuda")
    frames.write_thumbnail(picture(image, stream), picture(small, stream), stream)
    cuda_driver.synchronize(stream)
    assert (small.cpu().numpy() == thumbnail(expected, 96)).all()
