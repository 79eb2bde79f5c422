"""The CUDA kernel against float64: every dtype, layout, odd shape and mask, with fresh inputs and poisoned memory."""

from __future__ import annotations

import shutil
import subprocess

import pytest

torch = pytest.importorskip("torch")
from impasto.kernels import build, gram, launch, operators, reference, style_loss  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TOLERANCE = {"f16": 1e-3, "bf16": 1e-2, "f32": 1e-5, "tf32": 1e-3}
DTYPE = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "tf32": torch.float32}
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


def as_is(x):
    return x.contiguous()


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def every_second_column(x):
    return x.repeat_interleave(2, 3)[..., ::2]


def a_view_into_something_larger(x):
    N, C, H, W = x.shape
    room = torch.full((N, C + 1, H + 2, W + 3), float("nan"), dtype=x.dtype, device=x.device)
    room[:, 1:, 1 : H + 1, 2 : W + 2] = x
    return room[:, 1:, 1 : H + 1, 2 : W + 2]


def unaligned(x):
    room = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)[1:].view(x.shape)
    return room.copy_(x)


def channels_last_in_something_larger(x):
    N, C, H, W = x.shape
    room = torch.full((N, H, W, C + 8), float("nan"), dtype=x.dtype, device=x.device)
    room[..., :C] = x.permute(0, 2, 3, 1)
    return room[..., :C].permute(0, 3, 1, 2)


def turned(x):
    return x.mT.contiguous().mT


LAYOUTS = [
    as_is,
    channels_last,
    every_second_column,
    a_view_into_something_larger,
    unaligned,
    channels_last_in_something_larger,
    turned,
]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Whatever torch.empty hands out holds NaN: an element that nobody writes shows."""
    torch.full((64 << 20,), float("nan"), device="cuda")
    for size in (1, 128, 4096, 1 << 18):
        torch.full((size,), float("nan"), device="cuda")


def drawn(shape, flavour, layout=as_is):
    """Like features after a ReLU and a norm: not centred, channels of different strength."""
    strength = torch.rand(1, shape[1], 1, 1, device="cuda") * 2
    return layout((torch.randn(shape, device="cuda").add(0.3).relu() * strength).to(DTYPE[flavour]))


def error(result, expected):
    """‖result - expected‖ / ‖expected‖; NaN passes nothing."""
    distance = torch.linalg.vector_norm(result.double() - expected.double())
    return float(distance / torch.linalg.vector_norm(expected.double()).clamp_min(1e-300))


def visible_weight(shape):
    """A layer's weight that brings its gradient near 1, into float16's range, as a loss scaler does in training."""
    N, C, H, W = shape
    return float(N * C * C * H * W)


def check_gram(features, flavour, mask=None):
    result = gram(features, mask, tf32=flavour == "tf32")
    expected = reference.gram(features.double(), mask)
    assert error(result, expected) <= TOLERANCE[flavour]
    assert torch.equal(result, result.mT)


def check_loss(features, flavour, masks=None, targets=None):
    weights = [visible_weight(feature.shape) for feature in features]
    if targets is None:
        targets = [torch.rand(f.shape[1], f.shape[1], device="cuda") / f.shape[1] for f in features]
    features = [feature.detach().requires_grad_() for feature in features]
    loss = style_loss(features, targets, weights, masks=masks, tf32=flavour == "tf32")
    gradients = torch.autograd.grad(loss * 3, features)
    exact = [feature.detach().double().requires_grad_() for feature in features]
    expected = reference.style_loss(
        exact, [target.double() for target in targets], weights, masks or [None] * len(features)
    )
    assert error(loss, expected) <= 3 * TOLERANCE[flavour]
    for gradient, right in zip(gradients, torch.autograd.grad(expected * 3, exact), strict=True):
        assert error(gradient, right) <= 3 * TOLERANCE[flavour]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flavour", TOLERANCE)
def test_gram_equals_float64(flavour, layout):
    for shape in SHAPES:
        check_gram(drawn(shape, flavour, layout), flavour)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flavour", TOLERANCE)
def test_loss_and_gradient_equal_float64(flavour, layout):
    for shape in SHAPES:
        check_loss([drawn(shape, flavour, layout)], flavour)


@pytest.mark.parametrize("flavour", TOLERANCE)
def test_all_layers_of_a_loss_in_one_launch(flavour):
    shapes = [(2, 64, 48, 48), (2, 128, 24, 24), (2, 256, 12, 12), (1, 512, 7, 5), (3, 5, 9, 9)]
    check_loss([drawn(shape, flavour) for shape in shapes], flavour)
    check_loss([drawn(shape, flavour, channels_last) for shape in shapes], flavour)


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
@pytest.mark.parametrize("flavour", TOLERANCE)
def test_masks(flavour, layout):
    for shape in [(2, 64, 16, 24), (1, 20, 7, 9), (2, 130, 16, 16)]:
        N, _, H, W = shape
        features = drawn(shape, flavour, layout)
        hard = (torch.rand(N, H, W, device="cuda") < 0.4).float()
        soft = torch.rand(N, 1, H, W, device="cuda")
        check_gram(features, flavour, hard)
        check_gram(features, flavour, soft)
        check_loss([features, features * 0.5], flavour, [hard, soft.squeeze(1)])
        empty = torch.zeros(N, H, W, device="cuda")
        assert gram(features, empty).abs().max() == 0


@pytest.mark.parametrize("flavour", TOLERANCE)
def test_the_gradient_of_a_gram_matrix(flavour):
    features = drawn((2, 96, 12, 20), flavour).requires_grad_()
    upstream = torch.randn(2, 96, 96, device="cuda")  # not symmetric
    (gradient,) = torch.autograd.grad(gram(features, tf32=flavour == "tf32"), features, upstream * 1e4)
    exact = features.detach().double().requires_grad_()
    (right,) = torch.autograd.grad(reference.gram(exact), exact, upstream.double() * 1e4)
    assert error(gradient, right) <= 2 * TOLERANCE[flavour]


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


@pytest.mark.parametrize("flavour", TOLERANCE)
def test_results_repeat_bit_by_bit(flavour):
    features = [drawn((2, C, side, side), flavour).requires_grad_() for C, side in ((64, 96), (256, 40), (512, 20))]
    targets = [torch.rand(f.shape[1], f.shape[1], device="cuda") for f in features]

    def once():
        loss = style_loss(features, targets, [1e3] * 3, tf32=flavour == "tf32")
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
    command = ["nvcc", *build.FLAGS, "-gencode", target, "-cubin", "-o", str(cubin), str(build.SOURCE)]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setattr(launch, "fatbin", cubin.read_bytes)
    monkeypatch.setattr(launch, "_modules", {})
    for flavour in TOLERANCE:
        for layout in (as_is, channels_last, unaligned):
            check_gram(drawn((2, 40, 9, 16), flavour, layout), flavour)
            check_gram(drawn((1, 136, 16, 16), flavour, layout), flavour)
            check_loss([drawn((2, 40, 9, 16), flavour, layout), drawn((1, 136, 16, 16), flavour, layout)], flavour)
