"""How each view looks, beside how it looked: screenshots made small, so that layout counts and fonts don't."""

import io

import numpy as np
import pytest
from matplotlib import image

from tests import running, visits
from tests.running import ROOT

VIEWS = {"person": ".card", "item/i4": ".both .lines li", "chat": ".conversation", "operator": "#served ~ .quiet"}
GOLDEN = ROOT / "tests" / "golden" / "screens"
SMALLER = 10
TOLERANCE = 6.0
"""Mean difference of a pixel, of 255. One view beside another, or in the other scheme, differs by more (tested)."""


def look(page) -> np.ndarray:
    """The screen in grey, made small [height, width]."""
    grey = image.imread(io.BytesIO(page.screenshot(animations="disabled")), format="png")[..., :3].mean(-1) * 255
    height, width = (size // SMALLER for size in grey.shape)
    blocks = grey[: height * SMALLER, : width * SMALLER].reshape(height, SMALLER, width, SMALLER)
    return blocks.mean((1, 3))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of a pixel; infinite where the sizes differ."""
    return float(np.abs(one - other).mean()) if one.shape == other.shape else float("inf")


@pytest.fixture(scope="module")
def looks(chromium, models):
    """All views on all screens, as they look now."""
    found = {}
    with running.service(visits.recommender(models), deadline_s=60.0) as url:
        for screen in visits.ALL_SCREENS:
            page, _, _ = visits.visit(chromium, url, screen)
            for view, content in VIEWS.items():
                page.goto(f"{url}/#/{view}")
                page.locator(content).first.wait_for()
                page.locator(".ghosts").first.wait_for(state="detached")
                found[f"{view.partition('/')[0]}, {screen}"] = look(page)
            page.context.close()
    return found


def path(name):
    return GOLDEN / f"{name.replace(', ', '-')}.png"


def test_each_view_looks_as_it_did(looks):
    """To keep a new look: delete its picture, run this, and look at what is written."""
    written = [name for name in looks if not path(name).exists()]
    for name in written:
        image.imsave(path(name), looks[name], cmap="gray", vmin=0, vmax=255)
    assert written == [], f"{GOLDEN} had no picture of these; they are written: look at them and run again"
    differences = {name: difference(seen, image.imread(path(name))[..., 0] * 255) for name, seen in looks.items()}
    assert {name: by for name, by in differences.items() if by > TOLERANCE} == {}


def test_the_tolerance_tells_views_and_schemes_apart(looks):
    names = list(looks)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert difference(looks[name], looks[other]) > TOLERANCE, (name, other)
