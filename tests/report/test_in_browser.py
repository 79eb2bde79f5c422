"""Reports as people see them: in a real Chromium without a window, at a phone's and at a desk's width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.browser import WIDTHS, address_of, fits, opened, require_chromium
from support.command_line import cli
from support.small_models import picture


@pytest.fixture(scope="module", autouse=True)
def chromium():
    require_chromium()


@pytest.fixture
def page(make_package, tmp_path) -> Path:
    """A comparison of one small model with itself."""
    package, photo = make_package(), tmp_path / "photo.png"
    Image.fromarray(picture(48, 64)).save(photo)
    made = tmp_path / "page.html"
    code, _, stderr = cli(
        "compare", package, f"{package},backend=openvino", "--photo", photo, "--rounds", 2, "--html", made
    )
    assert (code, made.is_file()) == (0, True), stderr
    return made


@pytest.mark.parametrize("width", WIDTHS)
def test_the_slider_moves_by_keyboard_and_nothing_is_asked_for(page, width):
    with opened(address_of(page), width=width) as (tab, seen):
        slider = tab.get_by_role("slider").first
        before = tab.locator(".canvas img").nth(1).evaluate("image => image.style.clipPath")
        slider.focus()
        for _ in range(10):
            tab.keyboard.press("ArrowLeft")
        assert slider.input_value() == "40"
        after = tab.locator(".canvas img").nth(1).evaluate("image => image.style.clipPath")
        assert before != after
        assert "40 % the photo" in slider.get_attribute("aria-valuetext")
        assert tab.locator(".figures dd").first.inner_text().endswith(" ms")
        assert fits(tab)
    assert seen.messages == []
    assert seen.requests == [address_of(page)]


def test_what_lies_left_and_right_of_the_handle_is_each_picture(page, tmp_path):
    with opened(address_of(page)) as (tab, _):
        tab.get_by_label("size").first.select_option("400 %")
        shot = tmp_path / "shot.png"
        tab.locator(".window").first.screenshot(path=shot)
        drawn = np.asarray(Image.open(shot).convert("RGB"))
    photo = picture(48, 64)
    # Left of the middle the photo's pixels, each 4 x 4 of the screen's.
    assert np.array_equal(drawn[42:102:4, 42:102:4], photo[10:25, 10:25])  # its corners are round
    assert not np.array_equal(drawn[42:102:4, 202:242:4], photo[10:25, 50:60])


def test_the_mouse_and_a_finger_move_it(page):
    with opened(address_of(page), has_touch=True) as (tab, _):
        slider = tab.get_by_role("slider").first
        box = tab.locator(".window").first.bounding_box()
        tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
        tab.mouse.down()
        tab.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
        tab.mouse.up()
        assert slider.input_value() == "25"
        tab.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + 20)
        assert slider.input_value() == "75"


def test_without_javascript_pictures_stand_side_by_side(page):
    with opened(address_of(page), java_script_enabled=False) as (tab, _):
        assert tab.locator(".views img").count() == 4
        assert all(tab.locator(".views figure").nth(number).is_visible() for number in range(4))
        assert tab.locator(".views figcaption").first.inner_text() == "the photo"
        assert tab.get_by_role("slider").count() == 0


def test_light_and_dark(page):
    seen = {}
    for scheme in ("light", "dark"):
        with opened(address_of(page), color_scheme=scheme) as (tab, _):
            seen[scheme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert seen["light"] != seen["dark"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_inside_a_model_and_that_of_a_prediction_fit_and_ask_for_nothing(make_package, tmp_path, width):
    package, photo = make_package(task="stylize", border=8), tmp_path / "photo.png"
    Image.fromarray(picture(48, 64)).save(photo)
    pages = {
        "What each stage sees": ("inspect", package, "--photo", photo),
        "Where the time goes": ("bench", package, "--predict", "orin-nano"),
    }
    for number, (heading, words) in enumerate(pages.items()):
        made = tmp_path / f"{number}.html"
        code, _, stderr = cli(*words, "--html", made)
        assert code == 0, stderr
        with opened(address_of(made), width=width) as (tab, seen):
            assert tab.get_by_role("heading", name=heading).is_visible()
            assert fits(tab)
            if words[0] == "inspect":
                assert tab.get_by_alt_text("w1: channel 1").is_visible()
                row = tab.get_by_role("row").filter(has=tab.get_by_role("rowheader", name="w1", exact=True)).first
                assert "± 4" in row.inner_text()
        assert (seen.messages, seen.requests) == ([], [address_of(made)])


def test_feature_maps_are_seen_without_javascript(make_package, tmp_path):
    photo, made = tmp_path / "photo.png", tmp_path / "page.html"
    Image.fromarray(picture(48, 64)).save(photo)
    assert cli("inspect", make_package(), "--photo", photo, "--html", made)[0] == 0
    with opened(address_of(made), java_script_enabled=False) as (tab, _):
        assert all(tab.get_by_alt_text(f"w1: channel {number}").is_visible() for number in range(1, 9))
