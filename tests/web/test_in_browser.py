"""Models in a real browser, in WebAssembly, against the runtime's own drawings."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.browser import WIDTHS, fits, opened, require_chromium
from support.small_models import REPOSITORY, picture

import impasto
from impasto.errors import ImpastoError
from impasto.images import thumbnail
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.inference.tile_plan import plan_tiles, spans
from impasto.runtime.inference.working_size import Scaling
from impasto.web import library
from impasto.web.server import server
from impasto.web.site import make_site

MODELS = ("great-wave", "denoise", "upscale-x2")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    require_chromium()
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, which fetches onnxruntime-web: apt install npm")
    folder = tmp_path_factory.mktemp("web") / "site"
    try:
        make_site(MODELS, folder, offline=True)
    except ImpastoError as error:
        pytest.skip(f"{library.PACKAGE} cannot be fetched here: {error}")
    return folder


@contextmanager
def served(folder: Path, *, isolated: bool = True, **context: Any) -> Iterator[tuple[Any, Any, str]]:
    with server(folder, isolated=isolated) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}/index.html?wasm"
        with opened(address, **context) as (tab, seen):
            tab.wait_for_selector("body[data-state=ready]")
            yield tab, seen, address
        running.shutdown()


def drawing(tab: Any) -> np.ndarray:
    """The page's last one, uint8 (H, W, 3), without a PNG between."""
    found = tab.evaluate(
        "() => { const {data, height, width} = impasto.drawn(); let text = ''; "
        "for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192)); "
        "return [btoa(text), height, width]; }"
    )
    return np.frombuffer(base64.b64decode(found[0]), np.uint8).reshape(found[1], found[2], 3)


def test_a_real_photo_is_drawn_as_the_runtime_draws_it(site, tmp_path):
    photo = tmp_path / "photo.png"
    shown = np.asarray(Image.open(REPOSITORY / "docs" / "pictures" / "contact-sheet.jpg").convert("RGB"))[
        40:168, 20:212
    ]
    Image.fromarray(shown).save(photo)
    with served(site) as (tab, seen, address):
        assert tab.evaluate("crossOriginIsolated")
        tab.set_input_files("#file", photo)
        for name in MODELS:
            tab.select_option("#model", name)
            tab.wait_for_function(
                "name => document.getElementById('said').textContent.startsWith(`${name}: `)", arg=name, timeout=240_000
            )
            with impasto.load(name, backend="onnxruntime-cpu") as model:
                wanted = model(shown)
            found = drawing(tab)
            assert found.shape == wanted.shape
            assert np.abs(found.astype(int) - wanted).max() <= 2, name
        assert "WASM, " in tab.locator("#said").inner_text() and " ms" in tab.locator("#said").inner_text()
        tab.focus("#split")
        tab.keyboard.press("ArrowRight")
        assert tab.locator("#handle").evaluate("handle => handle.style.left") == "51%"
        with tab.expect_download() as saved:
            tab.click("#save")
        assert np.array_equal(np.asarray(Image.open(saved.value.path()).convert("RGB")), found)
    assert seen.messages == []
    own = address.split("/index")[0]
    assert all(request.startswith(own) for request in seen.requests)


def test_without_the_headers_one_thread_is_used_and_said(site, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(picture(40, 56)).save(photo)
    with served(site, isolated=False) as (tab, _, _):
        tab.select_option("#model", "denoise")
        tab.set_input_files("#file", photo)
        tab.wait_for_function(
            "document.getElementById('said').textContent.includes('1 thread, since')", timeout=240_000
        )
        tab.locator("#strength").fill("0")
        tab.locator("#strength").dispatch_event("change")
        tab.wait_for_function("impasto.drawn() === impasto.photo()")  # strength 0 is the picture itself


def test_one_core_takes_one_thread_and_blames_no_server(site, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(picture(40, 56)).save(photo)
    with served(site) as (tab, _, _):
        tab.evaluate("Object.defineProperty(navigator, 'hardwareConcurrency', {value: 1})")
        tab.select_option("#model", "denoise")
        tab.set_input_files("#file", photo)
        tab.wait_for_function("document.getElementById('said').textContent.startsWith('denoise: ')", timeout=240_000)
        assert tab.locator("#said").inner_text().endswith("WASM, 1 thread")


def test_a_second_and_higher_picture_fits_the_screen(site, tmp_path):
    sizes = ((40, 56), (96, 40))
    for number, size in enumerate(sizes):
        Image.fromarray(picture(*size)).save(tmp_path / f"{number}.png")
    with served(site) as (tab, seen, _):
        tab.select_option("#model", "denoise")
        for number, (height, width) in enumerate(sizes):
            tab.set_input_files("#file", tmp_path / f"{number}.png")
            said = f"denoise: {width} × {height} pixels"
            tab.wait_for_function(
                "said => document.getElementById('said').textContent.startsWith(said)", arg=said, timeout=240_000
            )
        assert tab.locator("#pictures").bounding_box()["height"] <= 0.8 * 900 + 1
    assert seen.messages == []


def test_a_page_opened_as_a_file_says_what_it_wants(site):
    with opened((site / "index.html").as_uri()) as (tab, _):
        assert "impasto web … --serve" in tab.locator("#said").inner_text()


def test_the_rules_are_the_runtimes(site):
    spec = ModelSpec("name", task="stylize", size=SizeRule(8), border=32, receptive_field=112, thumbnail=96)
    sides = [(1, 1), (100, 7), (384, 512), (1500, 2100), (1024, 4000), (2700, 900)]
    image = picture(131, 97)
    with served(site) as (tab, _, _):
        tab.evaluate("async () => { globalThis.rules = await import('./runtime.js'); }")
        given = {"size": {"multiple": 8, "minimum": 1}, "border": 32, "receptive_field": 112, "scale": 1}
        for height, width in sides:
            plan = plan_tiles(spec, None, height, width)
            found = tab.evaluate(
                "([spec, height, width]) => rules.planTiles(spec, height, width)", [given, height, width]
            )
            assert (found["padded"], found["window"]) == (list(plan.padded_size), list(plan.window))
            wanted = [[[span.start, span.keep_from, span.keep_to] for span in tile] for tile in plan.tiles]
            assert [[[span["start"], span["from"], span["to"]] for span in tile] for tile in found["tiles"]] == wanted
        assert len(tab.evaluate("rules.spans(100, 40, 10)")) == len(spans(100, 40, 10))
        pixels = {"data": image.reshape(-1).tolist(), "height": image.shape[0], "width": image.shape[1]}
        tab.evaluate("image => { globalThis.image = {...image, data: Uint8Array.from(image.data)}; }", pixels)
        assert tab.evaluate("[...rules.thumbnail(image, 16)]") == thumbnail(image, 16).reshape(-1).tolist()
        padded = np.pad(image, ((40, 29), (40, 63), (0, 0)), "reflect")
        found = tab.evaluate("[...rules.reflect(image, 40, 40, [200, 200]).data]")
        assert found == padded.reshape(-1).tolist()
        for size, name in ((64, "shrink"),):
            scaling = Scaling(*image.shape[:2], size)
            wanted = scaling.shrink(image).astype(int).reshape(-1)
            assert tab.evaluate("rules.drawnSize(131, 97, 64)") == list(scaling.small.shape[:2]), name
            found = tab.evaluate(
                "async () => { const model = new rules.Model(null, {working_size: 64, border: 0, scale: 1, receptive_field: null, "
                "strength: 0, styles: [], size: {multiple: 1, minimum: 1}}, {model: {inputNames: ['x'], outputNames: ['y'], "
                "run: async ({x}) => ({y: {data: x.data, dims: [1, x.h, x.w, 3]}})}}); "
                "model.ort = {Tensor: class { constructor(type, data, dims) { Object.assign(this, {data, h: dims[1], w: dims[2]}); "
                "globalThis.small = [...data]; } }}; return [...(await model.draw(image)).data]; }"
            )
            assert np.abs(np.array(tab.evaluate("small")) - wanted).max() <= 1
            scaling.drawn[...] = scaling.small
            out = np.empty_like(image)
            scaling.enlarge(out)
            assert np.abs(np.array(found) - out.astype(int).reshape(-1)).max() <= 2


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits(site, width):
    with served(site, width=width) as (tab, seen, _):
        assert fits(tab)
        assert tab.locator("#model option").all_inner_texts() == list(MODELS)
        assert json.loads(tab.locator("#site").text_content())["models"][2]["spec"]["scale"] == 2
    assert seen.messages == []
