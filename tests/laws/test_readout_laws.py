"""Every task is tuned, saved, loaded and measured by one path, whatever its readout; a new one inherits all of it."""

from dataclasses import replace

import numpy as np
import pytest

from m6rec import readouts
from m6rec.cli.tree import Config
from m6rec.data.log import Log
from m6rec.data.split import TRAIN, VALID, split_by_time
from m6rec.errors import ConfigError
from m6rec.project import Run
from m6rec.readouts import TaskModelConfig
from m6rec.tasks.task import names
from m6rec.types import Event, Item, User
from tests import tiny

ITEMS = {f"i{n}": Item(f"i{n}", f"Film {n}", (("Drama", "War")[n % 2],)) for n in range(24)}
USERS = {f"u{n}": User(f"u{n}") for n in range(16)}
PAIRS = np.random.default_rng(0).permutation([(u, i) for u in range(16) for i in range(24)])[:300].tolist()
RATED = tuple(
    Event(f"u{u}", f"i{i}", n + 1, 5.0 if (u + i) % 2 else 1.0, "A great story. Fine." if (u + i) % 2 else "Dull.")
    for n, (u, i) in enumerate(PAIRS)
)
TOLD = tuple(Event(f"u{n % 16}", "", n, text="Have you read it?", kind="response") for n in range(1, 300, 7))
EVENTS = tuple(sorted((*RATED, *TOLD), key=lambda event: event.time))
SPLIT = split_by_time(Log(events=EVENTS, items=ITEMS, users=USERS))
FOUNDATION = tiny.foundation()
FOUNDATION.model.config = replace(FOUNDATION.model.config, end_ids=(0,))


@pytest.fixture(scope="module", params=names())
def tuned(request, tmp_path_factory):
    """(the tuned model, its examples, the settings, its folder)"""
    readout, folder = readouts.of(request.param), tmp_path_factory.mktemp(request.param)
    model = readout.create(TaskModelConfig(task=request.param, domain="movielens", foundation="tiny"), FOUNDATION)
    examples = readout.examples(model.task, SPLIT, model.domain)
    settings = replace(Config().of(readout.readout).training, epochs=1)
    model.tune(examples[TRAIN], examples[VALID], settings, folder=folder)
    return model, examples, settings, folder


def test_loaded_is_what_was_saved(tuned):
    model, _, _, folder = tuned
    again = readouts.of(model.config.task).load(folder, FOUNDATION, model.cache)
    assert again.digest() == model.digest()
    assert (again.config, again.cache, type(again)) == (model.config, model.cache, type(model))
    run = Run.at(folder)
    assert (run.task, run.readout) == (model.config.task, model.readout)


def test_a_finished_run_is_not_trained_again_and_another_is_refused(tuned):
    model, examples, settings, folder = tuned
    fresh = type(model).create(model.config, FOUNDATION, cache=model.cache)
    assert fresh.cache is model.cache
    steps = []
    fresh.tune(examples[TRAIN], examples[VALID], settings, folder=folder, progress=lambda *at: steps.append(at))
    assert fresh.digest() == model.digest()
    assert not steps
    with pytest.raises(ConfigError, match="another training "):
        fresh.tune(examples[TRAIN], examples[VALID], replace(settings, seed=1), folder=folder)


def test_all_that_is_read_is_told(tuned):
    """So that states can be computed ahead of a training: it then reads no text that is not in the cache."""
    model, examples, settings, _ = tuned
    fresh = type(model).create(model.config, FOUNDATION)
    fresh.cache.fetch(fresh.texts(examples))
    misses = fresh.cache.misses
    fresh.tune(examples[TRAIN], examples[VALID], settings)
    assert fresh.cache.misses == misses > 0


def test_a_run_is_not_read_by_another_readout(tuned):
    model, _, _, folder = tuned
    for other in {readouts.of(name) for name in names()} - {type(model)}:
        with pytest.raises(ConfigError, match=f"has readout '{model.readout}', but '{other.readout}' is wanted"):
            other.load(folder, FOUNDATION)


def test_its_tables_begin_with_it(tuned):
    model, examples, _, _ = tuned
    if model.config.task not in ("rating", "retrieve", "explain"):
        return  # one a readout, as peers take seconds
    tables = type(model).tables([model], SPLIT, examples, num_written=1)
    assert tables
    assert all(table.rows[0].method == table.ours == model.title for table in tables)
    assert all(len(table.rows) > 1 for table in tables)
