"""What the foundation reads on in is of the part asked for, and a blank and its filling make the sentence again."""

import numpy as np
import polars as pl
import torch

from benchmarks import pretraining
from benchmarks.pretraining import ANSWER, BEHAVIOURS, BLANK
from m6rec.data.read import read
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.movielens import DOMAIN
from m6rec.training import TrainConfig, fit
from tests import tiny


def split(num_events: int = 20) -> Split:
    """One user's events, each of a film of its own."""
    numbers = [f"{number}" for number in range(num_events)]
    events = pl.DataFrame({"user": ["u"] * num_events, "item": numbers, "time": range(1, num_events + 1)})
    events = events.with_columns(value=pl.lit(4.0))
    items = pl.DataFrame({"item": numbers, "title": [f"Film {number}" for number in numbers]})
    items = items.with_columns(category=pl.lit("Drama|War"), year=pl.lit(1994))
    part = np.array([TRAIN] * (num_events - 2) + [VALID, TEST], np.uint8)
    return Split(read(events, items), part)


def test_texts_are_of_their_part_alone():
    found = [text.words for text in pretraining.texts(split(), DOMAIN, TRAIN, blanks=0.0, seed=0)]
    assert len(found) == -(-18 // BEHAVIOURS)
    assert all(f'"Film {number}"' in " ".join(found) for number in range(18))
    assert not any(f'"Film {number}"' in " ".join(found) for number in (18, 19))
    assert [text.words.count("The movie") for text in pretraining.texts(split(), DOMAIN, TEST, blanks=0, seed=0)] == [1]


def test_a_blank_filled_is_what_was_said():
    plain = pretraining.texts(split(200), DOMAIN, TRAIN, blanks=0.0, seed=0)
    blank = pretraining.texts(split(200), DOMAIN, TRAIN, blanks=1.0, seed=0)
    assert len({text.fill[1] for text in blank}) == 2  # titles, and what stands in parentheses
    for said, holed in zip(plain, blank, strict=True):
        assert holed.words.endswith(ANSWER)
        assert holed.words.removesuffix(ANSWER).replace(BLANK, holed.fill.strip()) == said.words


def test_the_loss_is_what_the_judge_measures_and_falls():
    foundation = tiny.foundation()
    said = pretraining.texts(split(), DOMAIN, TRAIN, blanks=1.0, seed=0)
    ids = pretraining.encode(foundation, said)
    before = pretraining.nats_of_blanks(foundation, said)
    alone = [pretraining.loss(foundation, [one]).item() * (len(one) - 1) for one in ids]
    assert np.isclose(
        pretraining.loss(foundation, ids).item(), sum(alone) / sum(len(one) - 1 for one in ids), rtol=1e-2
    )
    foundation.model.requires_grad_(True)
    training = TrainConfig(epochs=12, learning_rate=1e-2, average=0.0)
    history = fit(foundation.model, [ids], lambda batch: pretraining.loss(foundation, batch), training)
    assert history.losses[-1] < history.losses[0]
    assert pretraining.nats_of_blanks(foundation, said) < before
    assert all(torch.isfinite(parameter).all() for parameter in foundation.model.parameters())
