"""The page in a real browser: it lays out, paints, and its switches work without a script."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from wsolpipe.report.material import gather
from wsolpipe.report.write import write_report

pytestmark = pytest.mark.browser
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
TOP = (255, 90, 46)


def browse(tmp_path, *words: str) -> str:
    if not CHROMIUM:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    quiet = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]  # fmt: skip
    done = subprocess.run([CHROMIUM, *quiet, *words], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def shoot(tmp_path, page, *, size: tuple[int, int], dark: bool = False) -> np.ndarray:
    """Pixels of the page, uint8 [H, W, 3]."""
    out = tmp_path / "shot.png"
    theme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    browse(tmp_path, *theme, f"--window-size={size[0]},{size[1]}", f"--screenshot={out}", page.as_uri())
    return np.asarray(Image.open(out).convert("RGB"))


@pytest.fixture
def page(example, tmp_path):
    out = tmp_path / "report.html"
    write_report(gather(example.config), out)
    return out


def count(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels.astype(int) - colour).max(-1) < 12).sum())


def test_gallery_is_in_the_page_that_the_browser_built(page, tmp_path):
    dom = browse(tmp_path, "--dump-dom", page.as_uri())
    assert len(re.findall(r"<article ", dom)) == 24
    assert len(re.findall(r'<svg class="scene"', dom)) == 24
    assert "Quarantined rows" in dom


def test_page_paints_images_boxes_and_both_schemes(page, tmp_path):
    light = shoot(tmp_path, page, size=(1280, 2600))
    dark = shoot(tmp_path, page, size=(1280, 2600), dark=True)
    assert light[:40].mean() > 230
    assert dark[:40].mean() < 40
    for pixels in (light, dark):
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 2000  # photographs, not a blank page
        assert count(pixels, TOP) > 2000  # the outlines of the top proposals
        assert count(pixels, (230, 30, 30)) > 5000  # the objects that were drawn


def test_switches_hide_and_show_without_a_script(page, tmp_path):
    before = shoot(tmp_path, page, size=(1280, 2600))
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace('id="layer-top" checked', 'id="layer-top"'), encoding="utf-8")
    without = shoot(tmp_path, page, size=(1280, 2600))
    assert count(without, TOP) < count(before, TOP) / 10
    page.write_text(text.replace('id="layer-heat"', 'id="layer-heat" checked'), encoding="utf-8")
    covered = shoot(tmp_path, page, size=(1280, 2600))
    assert count(covered, (230, 30, 30)) < count(before, (230, 30, 30)) / 2


def test_nothing_is_wider_than_a_phone(page, tmp_path):
    """In a frame of 390 pixels the page's right edge is still its own background: nothing sticks out."""
    frame = tmp_path / "phone.html"
    style = "width:390px;height:2400px;border:0"
    frame.write_text(f'<body style="margin:0;background:#f0f"><iframe src="{page.name}" style="{style}"></iframe>')
    pixels = shoot(tmp_path, frame, size=(600, 2400))
    assert (pixels[:, 595] == (255, 0, 255)).all()
    edge = pixels[:, 386:390].reshape(-1, 3)
    assert (edge == edge[0]).all()
