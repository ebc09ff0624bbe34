"""The view where one talks to the recommender and has texts made, in a real browser."""

import time

import pytest

from m6rec.serving.backend import GenerationRequest, GenerationResult
from tests.visits import ALL_SCREENS, HOSTILE, check_screen, pick, visit

MESSAGE = "Your message"


@pytest.fixture
def chat(page):
    """The view, for one of the users, on every screen, which must end without a fault."""
    page.get_by_role("link", name="Chat").click()
    pick(page, "Find a user by id", "u1")
    page.get_by_text("User u1", exact=True).wait_for()
    return page


def say(page, text):
    """Sends a message; returns the whole reply."""
    replies = page.locator(".messages .assistant")
    before = replies.count()
    page.get_by_label(MESSAGE).fill(text)
    page.get_by_role("button", name="Send").click()
    page.locator("[role=log][aria-busy=false]").wait_for()
    assert replies.count() == before + 1
    return replies.nth(before)


def test_a_conversation_recommends_and_explains(chat):
    first = say(chat, "Something like what I liked")
    titles = first.locator(".named .title").all_inner_texts()
    assert titles
    assert titles[0] in first.locator("p").first.inner_text()
    second = say(chat, "not that one")
    others = second.locator(".named .title").all_inner_texts()
    assert titles[0] not in others
    said = chat.locator(".messages .user p").all_inner_texts()
    assert said == ["Something like what I liked", "not that one"]
    chat.get_by_role("button", name="Start again").click()
    assert chat.locator(".messages li").count() == 0


def test_a_reply_is_read_while_it_is_written_and_can_be_stopped(chat, backend, monkeypatch):
    chatting = backend.chatting

    def endless(request):
        yield "How about "
        yield f"{HOSTILE} "
        while True:
            time.sleep(0.02)  # as a step of a model takes a while, which leaves the processor to the browser
            yield ""

    monkeypatch.setattr(backend, "chatting", endless)
    chat.get_by_label(MESSAGE).fill("hello")
    chat.get_by_role("button", name="Send").click()
    reply = chat.locator(".messages .assistant")
    reply.get_by_text(f"How about {HOSTILE}").wait_for()  # and the stream goes on
    chat.get_by_role("button", name="Stop").click()
    reply.get_by_text("It was stopped.").wait_for()
    monkeypatch.setattr(backend, "chatting", chatting)
    assert say(chat, "something else").locator(".named li").count() > 0


def test_a_stream_that_fails_is_told_with_its_request(chat, backend, monkeypatch):
    def broken(request):
        yield "How"
        raise RuntimeError("secret of the model")

    monkeypatch.setattr(backend, "chatting", broken)
    chat.get_by_label(MESSAGE).fill("hello")
    chat.get_by_role("button", name="Send").click()
    alert = chat.locator(".conversation [role=alert]")
    alert.get_by_text("the service failed").wait_for()
    assert "Request " in alert.inner_text()
    assert "secret" not in chat.locator("body").inner_text()


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("design", GenerationRequest(user="u1", kind="design", count=2, category="Drama", catalogue=True)),
        ("query", GenerationRequest(user="u1", kind="query", count=2)),
        ("headline", GenerationRequest(user="u1", kind="headline", count=2, item="i5")),
    ],
)
def test_texts_are_made_with_what_was_refused_before_them(chat, backend, monkeypatch, kind, request_):
    asked = []

    def creating(request):
        asked.append(request)
        yield ""
        texts = [
            GenerationResult(f"Text {n}", "model", rejected=("it babbles", "it babbles", HOSTILE)) for n in range(2)
        ]
        return [*texts, GenerationResult(HOSTILE, "template", "Drama", "evil")]

    monkeypatch.setattr(backend, "creating", creating)
    create = chat.get_by_role("region", name="Create", exact=True)
    create.get_by_role("combobox", name="Make").select_option(kind)
    if kind == "design":
        create.get_by_label("Category").fill("Drama")
        create.get_by_role("checkbox").check()
    elif kind == "headline":
        assert create.get_by_role("button", name="Make").is_disabled()
        pick(chat, "Find the item by title or id", "film 5 ")
    create.get_by_label("Texts").fill("2")
    create.get_by_role("button", name="Make").click()
    made = create.locator(".made > li")
    made.nth(2).wait_for()
    assert asked == [request_]
    assert "by the model" in made.nth(0).inner_text()
    assert made.nth(0).locator(".refused li").all_inner_texts() == ["it babbles (2 times)", HOSTILE]
    assert made.nth(2).locator("a").get_attribute("href") == "#/item/evil"
    assert "by a template · Drama" in made.nth(2).inner_text()


def test_nobody_can_talk_but_has_no_texts_made(page):
    page.get_by_role("link", name="Chat").click()
    assert say(page, "What is good?").inner_text()
    create = page.get_by_role("region", name="Create", exact=True)
    create.get_by_text("Pick a user first").wait_for()
    assert create.get_by_role("button", name="Make").is_disabled()


@pytest.mark.parametrize("screen", ALL_SCREENS)
def test_the_view_is_accessible_and_fits_its_screen(chromium, url, screen):
    page, faults, _ = visit(chromium, f"{url}/#/chat", screen)
    pick(page, "Find a user by id", "u1")
    page.get_by_text("User u1", exact=True).wait_for()
    say(page, "Something like what I liked")
    create = page.get_by_role("region", name="Create", exact=True)
    create.get_by_label("Category").fill("Drama")
    create.get_by_role("checkbox").check()
    create.get_by_role("button", name="Make").click()
    create.locator(".made > li").first.wait_for()
    check_screen(page)
    page.get_by_role("combobox", name="Language").select_option("zh")
    page.get_by_role("heading", name="对话").first.wait_for()
    check_screen(page)
    page.context.close()
    assert faults == []
