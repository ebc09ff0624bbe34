from m6rec.domains import domain as domains
from m6rec.tasks.explanations import LONGEST_REVIEW, LONGEST_TARGET, event_text, texts
from m6rec.tasks.task import named
from m6rec.types import Event, Item, User

CLOTHES, INSTRUMENTS = domains.named("clothes"), domains.named("instruments")
DRESS = Item("1", "Dresses no. 1", ("Dresses", "General"))
REVIEW = "The fit is great! The color is ugly. I love the soft fabric and the nice buttons. Is the zip good?"


def test_praise_is_the_target_and_its_aspect_is_told():
    told = 'The user now purchases the garment of class "Dresses" (General). The user recommended it.'
    assert texts(Event("u", "1", 0, 1.0, REVIEW), DRESS, CLOTHES) == (
        (f"{told} About the fit:", " The fit is great!"),
        (f"{told} About the fabric:", " I love the soft fabric and the nice buttons."),  # its first aspect
    )


def test_the_rating_and_the_age_can_be_read():
    first, second = (
        texts(Event("u", "1", 0, value, "The sound is great."), DRESS, INSTRUMENTS)[0][0] for value in (5, 4)
    )
    assert "The user loved it." in first
    assert "The user liked it." in second
    task = named("explain")
    assert [segment.text for segment in task.profile(User("u", {"age": 33}), CLOTHES)] == [
        "The user is a shopper in their early thirties."
    ]


def test_a_behaviour_tells_what_was_written_but_not_all():
    assert event_text(Event("u", "1", 0, 5.0), DRESS, INSTRUMENTS).text.endswith("The user loved it.")
    said = event_text(Event("u", "1", 0, 5.0, 'A "real" gem.\n' + "x" * 500), DRESS, INSTRUMENTS).text
    assert "The user loved it, and wrote \"A 'real' gem. x" in said
    assert len(said) < LONGEST_REVIEW + 100


def test_nothing_written_or_nothing_short_is_no_text():
    assert texts(Event("u", "1", 0, 1.0), DRESS, CLOTHES) == ()
    assert texts(Event("u", "1", 0, 1.0, "It came late."), DRESS, CLOTHES) == ()
    assert texts(Event("u", "1", 0, 1.0, "The fit is great, " * LONGEST_TARGET), DRESS, CLOTHES) == ()
