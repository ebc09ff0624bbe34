"""The page of `m6rec serve` over a recommender of a tiny model."""

import pytest

from tests import browser, running, visits
from tests.visits import SCREENS, visit


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def models():
    return visits.models()


@pytest.fixture
def backend(models):
    return visits.recommender(models)


@pytest.fixture
def url(backend):
    with running.service(backend, deadline_s=60.0) as where:  # a slow machine is no fault of the page
        yield where


@pytest.fixture(params=SCREENS)
def page(request, chromium, url):
    """The page, which must end without a fault, a request elsewhere or anything that ran out of a text."""
    page, faults, requests = visit(chromium, url, request.param)
    page.locator(".card").first.wait_for()
    yield page
    hurt = page.evaluate("window.hurt")
    page.context.close()
    assert faults == []
    assert hurt is None
    assert requests
    assert all(one.startswith(f"{url}/") for one in requests)
