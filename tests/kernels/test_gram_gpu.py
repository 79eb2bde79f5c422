"""The CUDA kernel against float64: every dtype, layout, odd shape and mask, with fresh inputs and poisoned memory."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial

import pytest

torch = pytest.importorskip("torch")
from support import gram_checks  # noqa: E402
from support.gram_checks import LAYOUTS, TOLERANCE, as_is, channels_last, error, unaligned  # noqa: E402

from impasto.kernels import binaries, build, gram, launch, module, operators, reference, style_loss  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (1, 17, 9, 11),
    (2, 64, 32, 40),
    (1, 65, 13, 17),
    (3, 128, 24, 20),
    (2, 130, 16, 16),
    (1, 192, 31, 33),
    (2, 256, 40, 24),
    (1, 512, 14, 14),
]


def loss_and_gradients(features, targets, weights, masks, tf32, upstream):
    features = [feature.detach().requires_grad_() for feature in features]
    loss = style_loss(features, targets, weights, masks=masks, tf32=tf32)
    return loss.detach(), torch.autograd.grad(loss * upstream, features)


GPU = gram_checks.Kernel(lambda features, mask, tf32: gram(features, mask, tf32=tf32), loss_and_gradients)
drawn = partial(gram_checks.drawn, device="cuda")
check_gram, check_loss = partial(gram_checks.check_gram, GPU), partial(gram_checks.check_loss, GPU)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Whatever torch.empty hands out holds NaN: an element that nobody writes shows."""
    torch.full((64 << 20,), float("nan"), device="cuda")
    for size in (1, 128, 4096, 1 << 18):
        torch.full((size,), float("nan"), device="cuda")


@pytest.fixture(autouse=True)
def kernel_alone(monkeypatch):
    """`gram` runs the kernel also where cuBLAS is faster."""
    monkeypatch.setattr(operators, "product_is_faster", lambda *_: False)


@pytest.mark.parametrize("shape", [(1, 64, 32, 40), (1, 512, 14, 14), (4, 256, 40, 24)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_where_cublas_is_chosen_it_gives_the_same(monkeypatch, dtype, shape):
    if not hasattr(torch.ops.aten.bmm, "dtype"):
        pytest.skip("this torch gives no float32 products of halves")
    monkeypatch.setattr(operators, "product_is_faster", lambda *_: True)
    features = drawn(shape, dtype, as_is)
    assert operators._takes_product(features, None)
    check_gram(features, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gram_equals_float64(dtype, layout):
    for shape in SHAPES:
        check_gram(drawn(shape, dtype, layout), dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_loss_and_gradient_equal_float64(dtype, layout):
    for shape in SHAPES:
        check_loss([drawn(shape, dtype, layout)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_all_layers_of_a_loss_in_one_launch(dtype):
    shapes = [(2, 64, 48, 48), (2, 128, 24, 24), (2, 256, 12, 12), (1, 512, 7, 5), (3, 5, 9, 9)]
    check_loss([drawn(shape, dtype) for shape in shapes], dtype)
    check_loss([drawn(shape, dtype, channels_last) for shape in shapes], dtype)


def test_layers_of_different_dtypes_and_layouts():
    features = [
        drawn((2, 64, 20, 20), "f32"),
        drawn((2, 128, 10, 10), "f32", channels_last),
        drawn((2, 16, 10, 10), "f32"),
    ]
    check_loss(features, "f32")
    mixed = [drawn((2, 64, 20, 20), "f16"), drawn((1, 32, 8, 8), "bf16")]
    targets = [torch.zeros(64, 64, device="cuda"), torch.zeros(32, 32, device="cuda")]
    expected = reference.style_loss(
        [f.double() for f in mixed], [t.double() for t in targets], [1.0, 1.0], [None, None]
    )
    assert error(style_loss(mixed, targets), expected) <= 2e-2


def test_more_layers_than_one_launch_takes():
    features = [drawn((1, 8, 6, 6), "f32") for _ in range(launch.MAX_LAYERS + 3)]
    check_loss(features, "f32")


@pytest.mark.parametrize("layout", [as_is, channels_last, unaligned])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_masks(dtype, layout):
    for shape in [(2, 64, 16, 24), (1, 20, 7, 9), (2, 130, 16, 16)]:
        N, _, H, W = shape
        features = drawn(shape, dtype, layout)
        hard = (torch.rand(N, H, W, device="cuda") < 0.4).float()
        soft = torch.rand(N, 1, H, W, device="cuda")
        check_gram(features, dtype, hard)
        check_gram(features, dtype, soft)
        check_loss([features, features * 0.5], dtype, [hard, soft.squeeze(1)])
        empty = torch.zeros(N, H, W, device="cuda")
        assert gram(features, empty).abs().max() == 0


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_gradient_of_a_gram_matrix(dtype):
    features = drawn((2, 96, 12, 20), dtype).requires_grad_()
    upstream = torch.randn(2, 96, 96, device="cuda")  # not symmetric
    (gradient,) = torch.autograd.grad(gram(features, tf32=dtype == "tf32"), features, upstream * 1e4)
    exact = features.detach().double().requires_grad_()
    (right,) = torch.autograd.grad(reference.gram(exact), exact, upstream.double() * 1e4)
    assert error(gradient, right) <= 2 * TOLERANCE[dtype]


def test_targets_per_image_that_are_not_symmetric():
    features = [drawn((3, 40, 10, 10), "f32")]
    check_loss(features, "f32", targets=[torch.randn(3, 40, 40, device="cuda")])


def test_small_gradients_are_not_lost_in_float16s_exponents():
    """The difference is 1e-6 of what float16 would resolve unscaled; the loss scaler's factor arrives with `upstream`."""
    features = (drawn((1, 32, 16, 16), "f16") * 0.01).detach().requires_grad_()
    loss = style_loss([features], [torch.zeros(32, 32, device="cuda")], [1.0])
    (gradient,) = torch.autograd.grad(loss * 1e12, features)
    exact = features.detach().double().requires_grad_()
    expected = reference.style_loss([exact], [torch.zeros(32, 32, device="cuda")], [1e12], [None])
    (right,) = torch.autograd.grad(expected, exact)
    assert error(gradient, right) <= 1e-3


@pytest.fixture
def use_wgmma(monkeypatch):
    """Hopper's own kernel wherever it can be taken."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    drawn((1, 1, 1, 1), "f16")  # makes a context
    monkeypatch.setattr(module.loaded(), "use_wgmma", True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_warpgroups_equal_float64(use_wgmma, dtype, layout):
    for shape in [*SHAPES, (2, 64, 96, 96), (3, 136, 40, 48), (2, 512, 32, 40), (1, 8, 1, 8)]:
        features = drawn(shape, dtype, layout)
        check_gram(features, dtype)
        check_loss([features], dtype)


@pytest.mark.parametrize("layout", [as_is, channels_last])
def test_warpgroups_take_all_layers_in_one_launch_and_repeat_bit_by_bit(use_wgmma, layout):
    features = [drawn((2, C, side, side), "f16", layout) for C, side in ((64, 96), (128, 48), (256, 40), (512, 24))]
    check_loss(features, "f16")
    targets = [torch.rand(f.shape[1], f.shape[1], device="cuda") for f in features]
    first = style_loss(features, targets), gram(features[3])
    for _ in range(100):
        assert torch.equal(style_loss(features, targets), first[0])
        assert torch.equal(gram(features[3]), first[1])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_results_repeat_bit_by_bit(dtype):
    features = [drawn((2, C, side, side), dtype).requires_grad_() for C, side in ((64, 96), (256, 40), (512, 20))]
    targets = [torch.rand(f.shape[1], f.shape[1], device="cuda") for f in features]

    def once():
        loss = style_loss(features, targets, [1e3] * 3, tf32=dtype == "tf32")
        return loss, gram(features[1]), *torch.autograd.grad(loss, features)

    first = once()
    for _ in range(100):
        assert all(torch.equal(a, b) for a, b in zip(first, once(), strict=True))


def test_the_kernel_runs_on_the_current_stream_and_in_a_graph():
    features = drawn((2, 64, 40, 40), "f16")
    target = torch.zeros(64, 64, device="cuda")
    expected = style_loss([features], [target])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        assert torch.equal(style_loss([features], [target]), expected)
    stream.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        result = style_loss([features], [target])
    features.copy_(drawn((2, 64, 40, 40), "f16"))
    captured.replay()
    assert torch.equal(result, style_loss([features], [target]))


def test_torch_compile_and_autocast_keep_the_operator():
    target = torch.zeros(32, 32, device="cuda")

    def step(x):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return style_loss([x * 2], [target], [3.0])

    features = drawn((2, 32, 16, 16), "f32").requires_grad_()
    expected = step(features)
    compiled = torch.compile(step, fullgraph=True)(features)
    torch.testing.assert_close(compiled, expected)
    assert compiled.dtype == torch.float32
    torch.testing.assert_close(torch.autograd.grad(compiled, features), torch.autograd.grad(expected, features))


def test_gradients_add_up_in_place():
    features = drawn((2, 70, 12, 10), "f16")
    difference = operators.style_forward([features], [torch.zeros(70, 70, device="cuda")], [1e5], [None], False, True)[
        1
    ]
    upstream = torch.ones((), device="cuda")
    (alone,) = operators.style_backward(upstream, [features], [difference], [1e5], [None], False)
    buffer = torch.randn_like(features)
    before = buffer.clone()
    operators.add_style_gradients([buffer], upstream, [features], [difference], [1e5], [None], False)
    torch.testing.assert_close(buffer.float(), before.float() + alone.float(), rtol=2e-3, atol=2e-3)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")
@pytest.mark.parametrize("architecture", ["75", "80"])
def test_the_paths_of_older_architectures(architecture, tmp_path, monkeypatch):
    """Their source, compiled for this GPU: the instructions are theirs, the machine is newer."""
    major, minor = torch.cuda.get_device_capability()
    cubin = tmp_path / "older.cubin"
    target = f"arch=compute_{architecture},code=sm_{major}{minor}"
    command = ["nvcc", *build.FLAGS, "-gencode", target, "-cubin", "-o", str(cubin), str(build.GRAM.source)]
    subprocess.run(command, check=True, capture_output=True)
    compiled = binaries.Binary("cubin", architecture, build.PTX[1]), cubin.read_bytes()
    monkeypatch.setattr(binaries, "for_gpu", lambda capability: compiled)
    monkeypatch.setattr(module, "_modules", {})
    for dtype in TOLERANCE:
        for layout in (as_is, channels_last, unaligned):
            check_gram(drawn((2, 40, 9, 16), dtype, layout), dtype)
            check_gram(drawn((1, 136, 16, 16), dtype, layout), dtype)
            check_loss([drawn((2, 40, 9, 16), dtype, layout), drawn((1, 136, 16, 16), dtype, layout)], dtype)
