"""gram.cu itself against float64 without a GPU: on an emulated one, which runs its threads in any order and its copies late."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
from support import emulated_gpu, gram_checks  # noqa: E402
from support.gram_checks import (  # noqa: E402
    LAYOUTS,
    TOLERANCE,
    as_is,
    channels_last,
    channels_last_in_something_larger,
    check_gram,
    check_loss,
    drawn,
    error,
    unaligned,
)

from impasto.errors import KernelError  # noqa: E402
from impasto.kernels import build, cuda_driver, launch, module, operators, reference  # noqa: E402
from impasto.kernels.plan import LONGEST_RUN, LayerShape, plan  # noqa: E402

pytestmark = pytest.mark.skipif(emulated_gpu.missing() is not None, reason=str(emulated_gpu.missing()))

ARCHITECTURES = (750, 800)
"""Turing's path, and everyone else's."""
HOPPER = 900
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (2, 64, 6, 8), (1, 137, 4, 5), (1, 136, 4, 12)]


def loss_and_gradients(features, targets, weights, masks, tf32, upstream):
    loss, *left = operators._style_forward_cuda(features, targets, weights, masks, tf32, True)
    return loss, operators._style_backward_cuda(torch.tensor(upstream), features, left, weights, masks, tf32)


EMULATED = gram_checks.Kernel(operators._gram_forward_cuda, loss_and_gradients)


def _put(monkeypatch, loaded):
    """In place of a GPU; whatever torch.empty hands out holds NaN. Small maps are cut as often as blocks last."""
    # One wave, cut as fine as it goes: `residents` of the tests below are all the blocks there are.
    monkeypatch.setattr(launch, "plan", partial(plan, partials=math.inf, least_blocks=0))
    monkeypatch.setattr(module, "loaded", lambda: loaded)
    monkeypatch.setattr(cuda_driver, "make_context_current", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def poisoned_memory():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=ARCHITECTURES)
def gpu(request, emulated, monkeypatch):
    loaded = emulated(request.param)
    _put(monkeypatch, loaded)
    return loaded


@pytest.fixture
def ampere(emulated, monkeypatch):
    loaded = emulated(800)
    _put(monkeypatch, loaded)
    return loaded


@pytest.fixture
def hopper(emulated, monkeypatch):
    """Takes Hopper's own kernel wherever it can."""
    loaded = emulated(HOPPER)
    loaded.use_wgmma = True
    _put(monkeypatch, loaded)
    return loaded


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gram_loss_and_gradient_equal_float64(gpu, dtype, layout):
    for shape in SHAPES:
        features = drawn(shape, dtype, layout)
        check_gram(EMULATED, features, dtype)
        check_loss(EMULATED, [features], dtype)


@pytest.mark.parametrize("residents", [1, 5, 64])
@pytest.mark.parametrize("layout", [as_is, channels_last])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_all_layers_of_a_loss_in_one_launch_however_it_is_divided(gpu, dtype, layout, residents):
    gpu.residents = residents
    shapes = [(2, 64, 8, 9), (2, 130, 4, 5), (3, 5, 9, 9)]
    check_loss(EMULATED, [drawn(shape, dtype, layout) for shape in shapes], dtype)
    assert gpu.launched[0].startswith(f"gram_forward_{dtype}_")
    assert len(gpu.launched) == 4, "forward, finish, pack, backward"


def test_the_longest_run_is_short_enough_for_float16(gpu):
    """Rounding toward zero grows with a run, and twice as fast on Turing; of float16's tolerance, 1e-3, it may take half."""
    gpu.residents = 1
    features = drawn((1, 16, 256, LONGEST_RUN // 256), "f16")
    assert launch.plan((LayerShape(1, 16, LONGEST_RUN, 2),), 1).layers[0].gangs == 1
    assert error(operators._gram_forward_cuda(features, None, False), reference.gram(features.double())) <= 5e-4


@pytest.mark.parametrize("layout", [as_is, channels_last, unaligned])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_masks(gpu, dtype, layout):
    for shape in [(2, 64, 4, 6), (1, 130, 3, 5)]:
        N, _, H, W = shape
        features = drawn(shape, dtype, layout)
        hard, soft = (torch.rand(N, H, W) < 0.4).float(), torch.rand(N, H, W)
        check_gram(EMULATED, features, dtype, hard)
        check_loss(EMULATED, [features, features * 0.5], dtype, [hard, soft])
        empty = torch.zeros(N, H, W)
        assert operators._gram_forward_cuda(features, empty, False).abs().max() == 0


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_gradient_of_a_gram_matrix(gpu, dtype):
    features = drawn((2, 96, 6, 10), dtype)
    upstream = torch.randn(2, 96, 96) * 1e4  # not symmetric
    gradient = operators._gram_backward_cuda(upstream, features, None, dtype == "tf32")
    exact = features.double().requires_grad_()
    (right,) = torch.autograd.grad(reference.gram(exact), exact, upstream.double())
    assert error(gradient, right) <= 2 * TOLERANCE[dtype]


def test_targets_per_image_that_are_not_symmetric(gpu):
    check_loss(EMULATED, [drawn((3, 40, 5, 5), "f32")], "f32", targets=[torch.randn(3, 40, 40)])


def beside_the_loss(dtype):
    """Loss, Gram matrix and difference from one launch, each beside what it ought to be."""
    features, target = drawn((2, 96, 6, 8), dtype), torch.rand(96, 96) / 96
    gram, difference = torch.empty(2, 96, 96), operators._empty_difference(features)
    pointers = operators._difference_pointers(difference, features)
    layer = launch.Layer(
        operators._feature_map(features), target=target.data_ptr(), weight=1e6, gram=gram.data_ptr(), **pointers
    )
    loss = operators._forward([layer], dtype, features.device, with_loss=True)
    exact = reference.gram(features.double())
    wanted = exact - (target + target.mT) / 2
    right = reference.style_loss([features.double()], [target.double()], [1e6], [None])
    return (loss, right), (gram, exact), (difference[: wanted.numel()].view_as(wanted), wanted)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gram_matrices_come_out_beside_the_loss(gpu, dtype):
    for result, right in beside_the_loss(dtype):
        assert error(result, right) <= 3 * TOLERANCE[dtype]


def test_small_gradients_are_not_lost_in_float16s_exponents(gpu):
    features = drawn((1, 32, 8, 8), "f16") * 0.01
    targets = [torch.zeros(32, 32)]
    _, (gradient,) = loss_and_gradients([features], targets, [1.0], [None], False, 1e12)
    exact = features.double().requires_grad_()
    (right,) = torch.autograd.grad(reference.style_loss([exact], targets, [1e12], [None]), exact)
    assert error(gradient, right) <= 1e-3


@pytest.mark.parametrize("layout", [as_is, unaligned, channels_last])
def test_gradients_add_up_in_place(gpu, layout):
    features = drawn((2, 70, 6, 5), "f16", layout)
    _, difference = operators._style_forward_cuda([features], [torch.zeros(70, 70)], [1e5], [None], False, True)
    arguments = torch.ones(()), [features], [difference], [1e5], [None], False
    (alone,) = operators._style_backward_cuda(*arguments)
    before = torch.randn_like(features)
    buffer = layout(before.clone())
    operators._add_style_gradients_cuda([buffer], *arguments)
    torch.testing.assert_close(buffer.float(), before.float() + alone.float(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_order_of_blocks_and_warps_changes_no_bit(gpu, dtype):
    check_that_no_order_changes_a_bit(gpu, dtype)


def check_that_no_order_changes_a_bit(gpu, dtype):
    features = [drawn((2, C, side, side), dtype) for C, side in ((64, 8), (130, 4))]
    targets = [torch.rand(f.shape[1], f.shape[1]) for f in features]

    def once(seed):
        gpu.seed = seed
        loss, gradients = loss_and_gradients(features, targets, [1e3] * 2, [None] * 2, dtype == "tf32", 1.0)
        return loss, operators._gram_forward_cuda(features[1], None, dtype == "tf32"), *gradients

    first = once(0)
    for seed in range(1, 4):
        assert all(torch.equal(a, b) for a, b in zip(first, once(seed), strict=True))


@pytest.fixture
def at_the_end_of_memory():
    """A function that puts a tensor's values where no address behind them may be touched."""
    library = ctypes.CDLL(None, use_errno=True)
    kept = []

    def put(tensor):
        size = tensor.numel() * tensor.element_size()
        pages = -(-size // mmap.PAGESIZE)
        memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        assert library.mprotect(ctypes.c_void_p(start + pages * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
        kept.append(memory)
        copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=pages * mmap.PAGESIZE - size)
        return copy.as_strided(tensor.shape, tensor.stride()).copy_(tensor)

    return put


@pytest.mark.parametrize("layout", [as_is, channels_last])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_nothing_behind_a_feature_map_is_touched(gpu, dtype, layout, at_the_end_of_memory, monkeypatch):
    check_that_nothing_behind_is_touched(dtype, layout, at_the_end_of_memory, monkeypatch, masked=True)


def check_that_nothing_behind_is_touched(dtype, layout, at_the_end_of_memory, monkeypatch, *, masked):
    monkeypatch.setattr(torch, "empty_like", lambda tensor: at_the_end_of_memory(torch.full_like(tensor, float("nan"))))
    for shape in [(1, 3, 5, 7), (2, 64, 4, 8), (1, 136, 3, 8)]:
        features = at_the_end_of_memory(drawn(shape, dtype, layout))
        mask = at_the_end_of_memory(torch.rand(shape[0], *shape[2:])) if masked else None
        check_loss(EMULATED, [features], dtype, [mask])


def test_what_may_not_be_touched_is_noticed(ampere, at_the_end_of_memory):
    features = at_the_end_of_memory(drawn((1, 64, 8, 8), "f16"))
    larger = replace(operators._feature_map(features), shape=(1, 64, 8, 4096))
    layer = launch.Layer(larger, gram=torch.empty(1, 64, 64).data_ptr())
    workspace = torch.empty(launch.workspace_bytes([layer], "f16"), dtype=torch.uint8)
    with pytest.raises(KernelError, match="gram_forward_f16_nchw: an access to illegal address"):
        launch.forward([layer], "f16", workspace.data_ptr(), 0, 0)


# ---- Hopper's own kernel ----

WGMMA_DTYPES = ("f16", "bf16")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", WGMMA_DTYPES)
def test_warpgroups_equal_float64(hopper, dtype, layout):
    for shape in [(2, 3, 5, 8), (2, 64, 6, 8), (1, 136, 9, 24), (3, 200, 4, 20), (1, 8, 1, 1)]:
        features = drawn(shape, dtype, layout)
        check_gram(EMULATED, features, dtype)
        check_loss(EMULATED, [features], dtype)


@pytest.mark.parametrize("residents", [1, 5, 64])
@pytest.mark.parametrize("layout", [as_is, channels_last, channels_last_in_something_larger])
@pytest.mark.parametrize("dtype", WGMMA_DTYPES)
def test_warpgroups_take_all_layers_in_one_launch(hopper, dtype, layout, residents):
    hopper.residents = residents
    shapes = [(2, 64, 16, 40), (2, 136, 4, 18), (3, 8, 8, 8), (1, 264, 6, 8)]
    check_loss(EMULATED, [drawn(shape, dtype, layout) for shape in shapes], dtype)
    name = f"gram_forward_{dtype}_{'nchw' if layout is as_is else 'nhwc'}_wgmma"
    assert hopper.launched[:2] == [name, "gram_finish"]


@pytest.mark.parametrize("dtype", WGMMA_DTYPES)
def test_what_bulk_copies_cannot_bring_takes_the_other_kernel(hopper, dtype):
    aligned = drawn((2, 64, 4, 8), dtype)
    mask = torch.rand(2, 4, 8)
    for features, masks in [
        ([aligned], [mask]),
        ([unaligned(aligned)], [None]),
        ([drawn((2, 64, 3, 5), dtype)], [None]),
        ([aligned, unaligned(aligned)], [None, None]),
        ([aligned[:1].expand(2, -1, -1, -1)], [None]),
    ]:
        hopper.launched.clear()
        check_loss(EMULATED, features, dtype, masks)
        assert not any("wgmma" in name for name in hopper.launched)


@pytest.mark.parametrize("dtype", WGMMA_DTYPES)
def test_no_order_of_blocks_and_warpgroups_changes_a_bit(hopper, dtype):
    check_that_no_order_changes_a_bit(hopper, dtype)
    assert f"gram_forward_{dtype}_nchw_wgmma" in hopper.launched


@pytest.mark.parametrize("layout", [as_is, channels_last])
@pytest.mark.parametrize("dtype", WGMMA_DTYPES)
def test_bulk_copies_touch_nothing_behind_a_feature_map(hopper, dtype, layout, at_the_end_of_memory, monkeypatch):
    check_that_nothing_behind_is_touched(dtype, layout, at_the_end_of_memory, monkeypatch, masked=False)
    assert any("wgmma" in name for name in hopper.launched)


@pytest.mark.parametrize(
    ("choice", "capability", "chosen"), [("", (9, 0), False), ("mma", (8, 6), False), ("wgmma", (9, 0), True)]
)
def test_hoppers_kernel_is_taken_where_the_user_says_so(choice, capability, chosen, monkeypatch):
    monkeypatch.setenv(module.CHOICE, choice)
    assert module.wgmma_is_selected(capability) is chosen


@pytest.mark.parametrize(("choice", "said"), [("fast", "IMPASTO_GRAM is 'fast'"), ("wgmma", "this one has 10.0")])
def test_a_choice_that_cannot_be_had_is_refused(choice, said, monkeypatch):
    monkeypatch.setenv(module.CHOICE, choice)
    with pytest.raises(KernelError, match=said):
        module.wgmma_is_selected((10, 0))


# ---- mistakes, made on purpose ----


def checked(source, folder, monkeypatch, architecture=800):
    """What is found wrong with a kernel in float16."""
    # Each is compiled anew and runs two small shapes: what optimizing costs, the runs never win back.
    library = emulated_gpu.compiled(folder, architecture, "#define GRAM_ONLY_FLOAT16\n" + source, "-O0")
    loaded = emulated_gpu.module(library, architecture)
    loaded.use_wgmma = architecture == HOPPER
    _put(monkeypatch, loaded)
    try:
        for shape in ((2, 64, 24, 24), (1, 136, 24, 24)):
            check_loss(EMULATED, [drawn(shape, "f16")], "f16")
        assert all(error(result, right) <= 3e-3 for result, right in beside_the_loss("f16"))
    except KernelError as problem:
        return str(problem)
    except AssertionError:
        return "other figures"
    return "nothing"


BARRIERS = (
    "this stage has arrived", "all ways' sums are there", "all warps' values are there", "G and the target's image",
    "G is written out", "D is whole", "the last stage is read", "the tile is whole",
)  # fmt: skip
"""What is said of each; a GPU may forgive for long that one is missing."""


@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_missing_barrier_shows(barrier, tmp_path, monkeypatch):
    source = build.GRAM.source.read_text(encoding="utf-8")
    without = source.replace(f"__syncthreads();  // {barrier}", f"// {barrier}")
    assert without != source
    assert checked(without, tmp_path, monkeypatch) == "other figures"


@pytest.mark.parametrize(
    ("right", "wrong", "found"),
    [
        ("wait_for_stage<STAGES - 2>()", "wait_for_stage<STAGES - 1>()", "copies are under way|other figures"),
        ("(unit ^ swizzle)", "(threadIdx.x < 128 ? unit ^ swizzle : unit)", "other figures"),
        ("if (++stage == STAGES)", "if (++stage > STAGES)", "an access beyond shared memory"),
        ("wait_for_stage<0>();", "if (threadIdx.x == 7) return;", "lanes of one warp|others that never come"),
        ("value += __shfl_down_sync", "if (threadIdx.x % 32 < 16) value += __shfl_down_sync", "others that never come"),
    ],
)  # fmt: skip
def test_mistakes_show(right, wrong, found, tmp_path, monkeypatch):
    source = build.GRAM.source.read_text(encoding="utf-8")
    assert right in source
    assert re.search(found, checked(source.replace(right, wrong), tmp_path, monkeypatch))


@pytest.mark.parametrize(
    ("right", "wrong", "found"),
    [
        ("__syncthreads();  // this stage is read by none any more", "", "other figures"),
        ("__syncthreads();  // the barriers are made", "", "no barrier at shared address"),
        ("wait_for_bytes(barriers + used.stage * 8, used.round);", "", "bulk copies are under way|other figures"),
        ("used.round);", "used.round + 1);", "other figures|others that never come"),
        ("expect_bytes(barrier, STAGE_BYTES)", "expect_bytes(barrier, 2 * STAGE_BYTES)", "others that never come"),
        ('asm volatile("fence.proxy.async.shared::cta;" ::: "memory");', "", "a barrier that it cannot know"),
        ('asm volatile("wgmma.fence.sync.aligned;" ::: "memory");', "", "without a fence"),
        ('asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(0) : "memory");', "", "other figures|without a fence"),
        ("1024ull >> 4", "2048ull >> 4", "other figures|beyond shared memory"),
        ("PIXELS_INNER ? 32 :", "PIXELS_INNER ? 64 :", "other figures"),
        ("+ warpgroup * SQUARE_BYTES, DIAGONAL", ", DIAGONAL", "other figures"),
        ("chunk + STAGES < stop", "chunk + STAGES <= stop", "bulk copies are under way"),
    ],
)  # fmt: skip
def test_mistakes_with_warpgroups_show(right, wrong, found, tmp_path, monkeypatch):
    source = build.GRAM.source.read_text(encoding="utf-8")
    assert right in source
    assert re.search(found, checked(source.replace(right, wrong), tmp_path, monkeypatch, HOPPER))


def test_every_instruction_is_understood_or_told():
    with pytest.raises(ValueError, match="0 inline assembly statements were understood of 1"):
        emulated_gpu.translated('asm("bar.sync 0;" :: ((((deep)))));')
