"""Nothing is used with something else: a run resumes only what it began, a cache key covers whatever makes a state."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from m6rec.data.feedback import Rule
from m6rec.errors import ConfigError
from m6rec.features import item_columns, layout
from m6rec.features.interactions import InteractionStore
from m6rec.fingerprint import FILE, Fingerprint
from m6rec.foundation import checkpoint
from m6rec.foundation.states import StateCache, StatesConfig
from m6rec.readouts import GenerateModel, ScoreModel, TaskModelConfig
from m6rec.tasks import like, probe
from m6rec.tasks import task as tasks
from m6rec.tasks.task import build_examples
from m6rec.training import TrainConfig
from m6rec.types import Draft, Event, Item, Segment, User
from tests import tiny

ITEMS = {f"i{n}": Item(f"i{n}", f"Film {n}", ("Drama",)) for n in range(6)}
USERS = {f"u{n}": User(f"u{n}") for n in range(4)}
EVENTS = [Event(f"u{n % 4}", f"i{n * n % 6}", n + 1, float(n % 5)) for n in range(40)]
CONFIG = TaskModelConfig(task="like", domain="movielens", foundation="tiny", data="d0", split="time", depth=2)
TRAINING = TrainConfig(epochs=1, checkpoint_steps=1, batch_tokens=30)
REWORDED = replace(tasks.named("like"), candidate=lambda item, domain: (Segment(f"{item.title}?", "candidate"),))
RELABELLED = replace(tasks.named("like"), label=lambda event, domain: int(event.value > 1))


class StoppedError(Exception):
    """A killed training."""


def train(folder, *, config=CONFIG, training=TRAINING, seed=0, model=0, events=EVENTS, items=ITEMS, stop=0):
    """Tunes a little task on a tiny foundation; stops after so many steps, if any. Returns the steps taken."""
    tuned = ScoreModel.create(config, tiny.foundation(seed=model), seed=seed)
    rows, _ = build_examples(tuned.task, events, USERS, items, tuned.domain, np.ones(len(events), bool))
    steps = []

    def progress(step, total, loss):
        steps.append(step)
        if step == stop:
            raise StoppedError

    tuned.tune(rows, rows, training, folder=folder, progress=progress)
    return steps


def begin(folder, finished):
    if finished:
        assert train(folder)
    else:
        with pytest.raises(StoppedError):
            train(folder, stop=2)


def kept(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


PERTURBED: dict[str, Any] = {
    "task": {"config": replace(CONFIG, task="click")},
    "domain": {"config": replace(CONFIG, domain="books")},
    "rule": {"config": replace(CONFIG, rule=Rule(test=">=", number=2.0, high=5.0).to_json())},
    "data": {"config": replace(CONFIG, data="d1")},
    "split": {"config": replace(CONFIG, split="item")},
    "foundation": {"model": 1},
    "tuning": {"config": replace(CONFIG, method="head")},
    "tuning, its depth": {"config": replace(CONFIG, depth=1)},
    "tuning, its kept tokens": {"config": replace(CONFIG, keep=2)},
    "tuning, its seed": {"seed": 1},
    "training": {"training": replace(TRAINING, learning_rate=1e-3)},
    "training, its seed": {"training": replace(TRAINING, seed=1)},
    "training, its epochs": {"training": replace(TRAINING, epochs=2)},
    "examples": {"events": EVENTS[:-1]},
    "examples, their labels": {"events": [*EVENTS[:-1], replace(EVENTS[-1], value=0.0)]},
    "examples, their words": {"items": ITEMS | {"i0": Item("i0", "Movie 0", ("Drama",))}},
    "wording": {"config": replace(CONFIG, task="tests.laws.test_identity_laws:REWORDED")},
}


@pytest.mark.parametrize("finished", [False, True], ids=["killed", "finished"])
@pytest.mark.parametrize("perturbed", PERTURBED)
def test_resume_refuses_what_differs(tmp_path, perturbed, finished):
    begin(tmp_path, finished)
    before = kept(tmp_path)
    part = perturbed.partition(",")[0]
    with pytest.raises(
        ConfigError, match=rf"the run in .* is of .*another {part} \(there .*, here .*give another folder"
    ):
        train(tmp_path, **PERTURBED[perturbed])
    assert kept(tmp_path) == before


@pytest.mark.parametrize("what", ["tuning", "training"])
def test_every_field_of_a_configuration_is_in_the_fingerprint(tmp_path, what):
    """So that one which is added to it is, too."""
    whole: Any = CONFIG if what == "tuning" else TRAINING
    same = {"task", "domain", "rule", "foundation", "data", "split"}  # parts of their own
    values = {"bidirectional": True, "all_layers": True, "method": "head", "depth": 0}
    for name, value in vars(whole).items():
        if name in same:
            continue
        other = values[name] if name in values else value + 1 if isinstance(value, int) else value / 2 or 0.5
        changed = {"depth": 0, name: other} if name == "all_layers" else {name: other}
        begun = tmp_path / name
        if name == "all_layers":
            train(begun, config=replace(CONFIG, depth=0))
        else:
            train(begun)
        given = {"config" if what == "tuning" else "training": replace(whole, **changed)}
        with pytest.raises(ConfigError, match=f"another {what} "):
            train(begun, **given)


@pytest.mark.parametrize("stop", [1, 3])
def test_what_was_begun_goes_on_and_what_is_finished_is_left_alone(tmp_path, stop):
    with pytest.raises(StoppedError):
        train(tmp_path, stop=stop)
    assert train(tmp_path) == [2, 3, 4][stop - 1 :]
    before = kept(tmp_path)
    assert train(tmp_path) == []
    assert kept(tmp_path) == before


def test_the_fingerprint_is_there_before_any_result(tmp_path, monkeypatch):
    monkeypatch.setattr("m6rec.training._Run.save", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path)
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {FILE, "training.json"}
    with pytest.raises(ConfigError, match="another data"):
        train(tmp_path, config=replace(CONFIG, data="d1"))


def test_texts_resume_only_what_they_began(tmp_path):
    config = TaskModelConfig(task="explain", domain="movielens", foundation="tiny", depth=2, data="d0")
    drafts = [Draft((Segment("He came", "history"),), "About it:", " good", n) for n in range(4)]

    def write(config=config, model=0, drafts=drafts):
        foundation = tiny.foundation(seed=model)
        foundation.model.config = replace(foundation.model.config, end_ids=(0,))
        GenerateModel.create(config, foundation).tune(drafts, drafts, TRAINING, folder=tmp_path)

    write()
    perturbed: dict[str, Any] = {
        "task": {"config": replace(config, task="design")},
        "data": {"config": replace(config, data="d1")},
        "foundation": {"model": 1},
        "examples": {"drafts": drafts[:3]},
    }
    for part, given in perturbed.items():
        with pytest.raises(ConfigError, match=f"another {part} "):
            write(**given)
    write()


def save(folder, **changes):
    made = ScoreModel.create(replace(CONFIG, **changes), tiny.foundation())
    made.save(folder)
    return made


def test_a_run_is_used_with_the_words_it_was_tuned_with(tmp_path, monkeypatch):
    save(tmp_path)
    ScoreModel.load(tmp_path, tiny.foundation())
    for other in (REWORDED, RELABELLED):
        monkeypatch.setattr(like, "TASK", other)
        with pytest.raises(ConfigError, match=r"another wording .* or tune it again: m6rec tune like"):
            ScoreModel.load(tmp_path, tiny.foundation())
    monkeypatch.undo()
    ScoreModel.load(tmp_path, tiny.foundation())


@pytest.mark.parametrize("redefined", ["RECENT_MEMORY", "USER_PRIOR", "NEIGHBOUR_PRIOR", "names", "numbers"])
def test_a_run_is_used_with_the_features_it_was_tuned_with(tmp_path, monkeypatch, redefined):
    """Also where their number is the same."""
    save(tmp_path)
    if redefined == "names":
        monkeypatch.setattr(probe, "FEATURES", ("renamed", *layout.FEATURES[1:]))
    elif redefined == "numbers":
        monkeypatch.setattr(item_columns, "numbers", lambda item: {"length": float(len(item.title))})
    else:
        monkeypatch.setattr(layout, redefined, getattr(layout, redefined) / 2)
    probe.features.cache_clear()
    try:
        with pytest.raises(ConfigError, match="another features"):
            ScoreModel.load(tmp_path, tiny.foundation())
        save(tmp_path / "ctr", task="ctr")
        ScoreModel.load(tmp_path / "ctr", tiny.foundation())  # which has no features
    finally:
        monkeypatch.undo()
        probe.features.cache_clear()


def test_a_run_without_a_fingerprint_is_refused(tmp_path):
    save(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(ConfigError, match="an earlier m6rec, which kept no fingerprint; tune it in a new folder"):
        ScoreModel.load(tmp_path, tiny.foundation())


def test_the_probe_reads_every_feature():
    """A feature that is the same for all of the made-up log could be redefined unseen."""
    log = InteractionStore(probe._BY_ID, probe._feedback).update_all(probe._EVENTS)
    table = np.concatenate([log.features(user.id, list(probe._BY_ID)) for user in probe._USERS])
    event_features = np.concatenate([log.event_features(user.id) for user in probe._USERS])
    assert (np.ptp(table, axis=0) > 0).all()
    assert (np.ptp(event_features, axis=0) > 0).all()


# The cache key covers whatever determines a state: each input of the model folder, and each setting of the split.

TEXTS = ["the theatre in the sea", "he came"]


def edit_json(name, change):
    def edit(folder):
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value))

    return edit


def edit_weights(folder):
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    tensors["model.embed_tokens.weight"].add_(1)
    stat = file.stat()
    save_file(tensors, file, metadata={"format": "pt"})
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as by rsync or unpacking: same size, same time
    assert file.stat().st_size == stat.st_size


def swap(vocabulary, one, other):
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


INPUTS = {
    "weights": edit_weights,
    "merges": edit_json("tokenizer.json", lambda value: value["model"]["merges"].clear()),
    "vocabulary": edit_json("tokenizer.json", lambda value: swap(value["model"]["vocab"], "e", "a")),
    "epsilon": edit_json("config.json", lambda value: value.update(rms_norm_eps=0.5)),
    "rope": edit_json("config.json", lambda value: value["rope_parameters"].update(rope_theta=5.0)),
    "activation": edit_json("config.json", lambda value: value.update(hidden_act="gelu_pytorch_tanh")),
}


@pytest.mark.parametrize("given", INPUTS)
def test_the_cache_key_covers_each_input_of_the_model_folder(tmp_path, given):
    folder = tmp_path / "model"
    tiny.hf_folder("llama", folder)
    split, store = StatesConfig(depth=2), tmp_path / "states"
    before = checkpoint.load(str(folder), dtype="float32")
    old = StateCache(before, split, store).fetch(TEXTS).tokens_TD
    INPUTS[given](folder)
    after = checkpoint.load(str(folder), dtype="float32")
    assert after.model.id != before.model.id
    true = StateCache(after, split).fetch(TEXTS).tokens_TD
    assert not torch.equal(true, old)  # the input does determine the state
    assert torch.equal(StateCache(after, split, store).fetch(TEXTS).tokens_TD, true)


def test_what_determines_no_state_changes_no_key(tmp_path):
    """Such as notes of the library that wrote it: states of hours would be lost."""
    tiny.hf_folder("llama", tmp_path)
    first = checkpoint.load(str(tmp_path), dtype="float32").model.id
    edit_json("config.json", lambda value: value.update(transformers_version="0", use_cache=False))(tmp_path)
    assert checkpoint.load(str(tmp_path), dtype="float32").model.id == first


SETTINGS: dict[str, Any] = {
    "depth": {"depth": 1},
    "kept tokens": {"keep": 2},
    "all kept": {"keep": 0},
    "mean": {"mean": True},
    "rounding": {"quantised": True},
}


@pytest.mark.parametrize("setting", [*SETTINGS, "type", "tuning", "text"])
def test_the_cache_key_covers_each_setting(setting):
    def cache(dtype=torch.float32, tuning="", **changed):
        split = StatesConfig(**{"depth": 2, "keep": 1, **changed})
        return StateCache(tiny.foundation(dtype=dtype), split, tuning_id=tuning)

    others: dict[str, Any] = {"type": {"dtype": torch.bfloat16}, "tuning": {"tuning": "lora"}}
    given = (SETTINGS | others).get(setting, {})
    text = "the seal" if setting == "text" else "the sea"
    assert cache()._key("the sea") == cache()._key("the sea") != cache(**given)._key(text)


def test_the_digest_note_is_written_whole(tmp_path, monkeypatch):
    tiny.hf_folder("llama", tmp_path)
    first = checkpoint.load(str(tmp_path)).model.id
    note = tmp_path / ".m6rec-digest.json"
    for damaged in ("", "{", '{"stamp": []}', "[]"):
        note.write_text(damaged)
        assert checkpoint.load(str(tmp_path)).model.id == first
        assert json.loads(note.read_text())["digest"]
    monkeypatch.setattr(checkpoint, "of_file", lambda file: 1 / 0 if file.suffix == ".safetensors" else "t")
    checkpoint.load(str(tmp_path))  # the note spares reading the weights again


def test_a_replaced_gguf_is_converted_anew(tmp_path, monkeypatch):
    """Where the file changes, by its contents: a folder beside it that has its name is no conversion of it."""
    made = []

    def model(*, gguf_file, **_):
        made.append((tmp_path / gguf_file).read_bytes())
        return tiny.hf_folder("llama", tmp_path / f"theirs{len(made)}", seed=len(made))

    def tokenizer(**_):
        return SimpleNamespace(backend_tokenizer=tiny.fast_tokenizer())

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", model)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", tokenizer)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"one")
    stat = file.stat()
    first = checkpoint.load(str(file)).model.id
    assert checkpoint.load(str(file)).model.id == first
    assert made == [b"one"]
    file.unlink()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = checkpoint.load(str(file)).model.id
    assert second != first
    assert made == [b"one", b"two"]
    assert len(list(tmp_path.glob("*.safetensors.d"))) == 1  # the old conversion is gone


def test_a_fingerprint_has_all_that_the_law_perturbs():
    assert {name.partition(",")[0] for name in PERTURBED} == set(vars(Fingerprint())) - {"features"}
