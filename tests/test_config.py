"""One tree of settings: every leaf is set by TOML and by --set, is checked and shown, and reaches what reads it."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from typer.testing import CliRunner

from m6rec import cli, config, hooks, readouts
from m6rec.cli.tree import SECTIONS, Config
from m6rec.config import Count, Given, Share
from m6rec.errors import ConfigError
from m6rec.fingerprint import Fingerprint
from m6rec.retrieval.sources import EASE
from m6rec.retrieval.training import Softmax
from tests import shop

DEFAULT = Config()
LEAVES = {leaf.path: leaf for leaf in config.leaves(DEFAULT)}


def others(leaf):
    """Values that differ from the present one, of which a setting takes one at least."""
    value = leaf.value
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, value - 1]
    if isinstance(value, float):
        return [one for one in (value / 2, value + 0.5, value + 1.0) if one != value]
    if isinstance(value, tuple):
        return [value[:1]]
    return [3, "softmax", "elsewhere", "localhost", "http://localhost"]


def another(path):
    """(a tree with another value, the value)."""
    for value in others(LEAVES[path]):
        try:
            return config.with_values(DEFAULT, {path: Given(value=value, origin="test")}), value
        except ConfigError:
            continue
    raise AssertionError(f"{path} takes no other value")


def at(tree, path):
    return {leaf.path: leaf.value for leaf in config.leaves(tree)}[path]


@pytest.mark.parametrize("path", LEAVES)
def test_a_leaf_is_set_checked_and_shown(tmp_path, path):
    tree, value = another(path)
    made = at(tree, path)
    assert (str(made) if isinstance(made, Path) else made) == value
    assert tree != DEFAULT

    table, _, name = path.rpartition(".")
    shown = config.to_toml(list(config.leaves(tree)), {path: "--set"})
    line = next(line for line in shown[shown.index(f"[{table}]") :].splitlines() if line.startswith(f"{name} = "))
    assert line.endswith(" · --set")

    file = tmp_path / "config.toml"
    file.write_text(shown)
    assert config.with_values(DEFAULT, config.read(file)) == tree
    text = json.dumps(value)
    assert config.with_values(DEFAULT, config.parse([f"{path}={text}"])) == tree
    if isinstance(value, str):
        assert config.with_values(DEFAULT, config.parse([f"{path}={value}"])) == tree  # quotes may be left out

    entry = config.to_entries(list(config.leaves(tree)), {path: "--set"})[path]
    assert (entry["value"], entry["origin"]) == (value if not isinstance(value, tuple) else list(value), "--set")
    assert entry["meaning"]
    assert len(entry["allowed"]) > 3

    with pytest.raises(ConfigError, match=f"{path} is \\[\\[1\\]\\] \\(from test\\); it must be ") as refused:
        config.with_values(DEFAULT, {path: Given(value=[[1]], origin="test")})
    assert entry["allowed"] in str(refused.value)


def test_numbers_out_of_range_are_refused():
    refused = 0
    for path, leaf in LEAVES.items():
        if (
            isinstance(leaf.value, int | float)
            and not isinstance(leaf.value, bool)
            and "at" in config.allowed(leaf.annotation)
        ):
            with pytest.raises(ConfigError, match=rf"{path} is -1 \(from --set\); it must be "):
                config.with_values(DEFAULT, config.parse([f"{path}=-1"]))
            refused += 1
    assert refused > 70


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "ranking.training.epoch=3",
            r"no setting ranking.training.epoch \(from --set\). Did you mean ranking.training.epochs",
        ),
        ("lora_rank=4", "Did you mean ranking.adapter.lora_rank or text.adapter.lora_rank"),
        ("ranking=3", "ranking is a table .*; set one of ranking.adapter.method, "),
        ("ranking.training.epochs.more=3", "no setting ranking.training.epochs.more"),
        ("retrieval.training.sources.easy.text=1", "Did you mean retrieval.training.sources.ease.text"),
        ("retrieval.training.loss.temperature=1", "no setting retrieval.training.loss.temperature"),
        ("retrieval.training.loss.name=hinge", r'must be "item-matrix" or "softmax"'),
        ("ranking.training.epochs=1.5", r"is 1.5 \(from --set\); it must be an integer, at least 1"),
        ("ranking.training.epochs=true", "is True "),
        ("ranking.training.learning_rate=inf", "above 0 and below 1"),
        ("shrink.width=190", r"shrink: width 190 must be a multiple .* \(from --set\)"),
        ("serving.http.host=example.org", r"serving.http: at example.org other machines .* \(from --set\)"),
        ("epochs", r"--set 'epochs' has no name and value; give --set "),
    ],
)
def test_what_is_not_allowed_is_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        config.with_values(DEFAULT, config.parse([setting]))


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "a.toml").write_text("[ranking\n")
    for file in (tmp_path / "a.toml", tmp_path / "none.toml"):
        with pytest.raises(ConfigError, match=rf"configuration {file} can't be read"):
            config.read(file)


def test_a_choice_brings_its_own_settings():
    tree = config.with_values(
        DEFAULT, config.parse(["retrieval.training.loss.temperature=0.2", "retrieval.training.loss.name=softmax"])
    )
    assert tree.retrieval.training.loss == Softmax(temperature=0.2)
    assert at(tree, "retrieval.training.loss.name") == "softmax"


def test_none_is_a_value_where_it_is_allowed():
    given = config.parse(["ranking.adapter.depth=2"])
    assert config.with_values(DEFAULT, given).ranking.adapter.depth == 2
    assert (
        config.with_values(config.with_values(DEFAULT, given), config.parse(["ranking.adapter.depth=none"])) == DEFAULT
    )
    assert config.with_values(DEFAULT, config.parse(["ranking.adapter.method=none"])).ranking.adapter.method is None


def test_sources_of_packages_have_their_own_settings(monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class Recent:
        """What was liked last.

        Attributes:
            length: Likes that count.
            share: Of what.
            kind: Which.
        """

        weight: float = 0.5
        length: Count = 3
        share: Share = 0.5
        kind: Literal["a", "b"] = "a"

    monkeypatch.setitem(hooks.SOURCES.registered, "recent", Recent())
    found = {leaf.path: leaf for leaf in config.leaves(Config())}
    assert found["retrieval.training.sources.recent.length"].meaning == "Likes that count"
    tree = config.with_values(Config(), config.parse(["retrieval.training.sources.recent.kind=b"]))
    assert tree.retrieval.training.sources["recent"] == Recent(kind="b")
    assert tree.retrieval.training.sources["ease"] == EASE()


def test_every_readout_has_a_section():
    for task in readouts.tasks.names():
        readout = readouts.of(task).readout
        assert DEFAULT.of(readout) is getattr(DEFAULT, SECTIONS[readout])
        assert hasattr(DEFAULT.of(readout).training, "seed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return shop.make(tmp_path_factory.mktemp("shop"))


def m6rec(made, *words):
    return CliRunner().invoke(cli.app, [str(word) for word in words], env={"M6REC_HOME": str(made / "home")})


def tuned(made, task, run, *words):
    where = ("--data", made / "data", "--run", run, "--set", "foundation.dtype=float32")
    first = ("--set", f"foundation.name={made / 'foundation'}")
    return json.loads(shop.m6rec(made, "tune", task, *where, *first, "--json", *words))


def test_options_are_short_forms(made, tmp_path):
    """A run of options, of --set and of a file is one run: each finds that the one before has finished it."""
    run = tmp_path / "run"
    long = ("ranking.training.epochs=1", "ranking.adapter.depth=1", "ranking.training.seed=4")
    (tmp_path / "a.toml").write_text("[ranking.training]\nepochs = 1\nseed = 9\n[ranking.adapter]\ndepth = 1\n")
    first = tuned(made, "click", run, "--epochs", "1", "--depth", "1", "--seed", "4")
    changed = (run / "config.json").stat().st_mtime_ns
    for words in (
        [word for setting in long for word in ("--set", setting)],
        ["--config", tmp_path / "a.toml", "--seed", "4"],
    ):
        again = tuned(made, "click", run, *words)
        assert again["trained parameters"] == first["trained parameters"]
    assert (run / "config.json").stat().st_mtime_ns == changed
    assert "seed 4" in Fingerprint.load(run).tuning


def test_a_setting_is_given_once(made, tmp_path):
    where = ("tune", "click", "--data", made / "data", "--run", tmp_path / "run")
    done = m6rec(made, *where, "--epochs", "1", "--set", "ranking.training.epochs=2")
    assert "ranking.training.epochs is given by --epochs and by --set; give it once" in str(done.exception)
    done = m6rec(made, "tune", "retrieve", *where[2:], "--method", "lora", "--pairwise", "0.5")
    assert "--method, --pairwise do not apply to a retrieval task" in str(done.exception)


def test_the_rank_of_lora_is_reachable(made, tmp_path):
    few, many = (
        tuned(
            made, "click", tmp_path / f"run-{rank}", "--method", "lora", "--epochs", "1", "--depth", "1",
            "--set", f"ranking.adapter.lora_rank={rank}",
        )["trained parameters"]
        for rank in (1, 4)
    )  # fmt: skip
    prompts = tuned(
        made, "click", tmp_path / "prompts", "--epochs", "1", "--depth", "1", "--set", "ranking.adapter.num_prompts=9"
    )
    usual = tuned(made, "click", tmp_path / "usual", "--epochs", "1", "--depth", "1")
    done = m6rec(
        made,
        "tune",
        "click",
        "--data",
        made / "data",
        "--run",
        tmp_path / "no",
        "--foundation",
        made / "foundation",
        "--set",
        "ranking.adapter.lora_rank=4",
    )
    assert "lora_rank is 4, but method 'option-adapter' has none; " in str(done.exception)
    assert "(lora)" in str(done.exception)
    assert few < many
    assert prompts["trained parameters"] > usual["trained parameters"]


@pytest.mark.parametrize(
    ("setting", "reads"),
    [
        ("width=8", lambda model: model.width == 8),
        ("sources.ease.num_neighbours=1", lambda model: _per_item(model, "ease") <= 1),
        ("weights.least=1.0", lambda model: not model.blend.arrays),
        ("loss.name=softmax", lambda model: model.width == 32),
    ],
)
def test_how_retrieval_is_trained_is_reachable(made, tmp_path, setting, reads):
    from m6rec.foundation.checkpoint import load

    tuned(made, "retrieve", tmp_path / "run", "--epochs", "1", "--set", f"retrieval.training.{setting}")
    foundation = load(str(made / "foundation"), dtype="float32")
    usual, model = (readouts.EmbedModel.load(folder, foundation) for folder in (made / "retrieve", tmp_path / "run"))
    assert reads(model)
    assert setting.startswith("loss") or not reads(usual)
    one, other = Fingerprint.load(made / "retrieve"), Fingerprint.load(tmp_path / "run")
    assert one.training != other.training


def _per_item(model, source):
    """The most weights that the score of an item has."""
    items = model.blend.arrays[source]["item_W"]
    return max(items.tolist().count(item) for item in set(items.tolist()))


def test_serving_settings_reach_what_answers(made):
    runs = ("--data", made / "data", "--retrieve", made / "retrieve", "--rank", made / "click", "--user", "u1")
    ask = ("recommend", *runs, "--dtype", "float32", "--json", "--count", "3")
    whole = json.loads(shop.m6rec(made, *ask))["items"]
    few = json.loads(shop.m6rec(made, *ask, "--set", "serving.limits.num_retrieved=3"))["items"]
    assert len(whole) == len(few) == 3
    done = m6rec(made, *ask, "--set", "serving.limits.num_retrieved=2")
    assert "at most 2 (serving.limits.num_retrieved)" in str(done.exception)
    short = json.loads(shop.m6rec(made, *ask, "--set", "serving.limits.latest_events=1"))["items"]
    assert [one["score"] for one in short] != [one["score"] for one in whole]


def test_a_project_has_a_file(made, tmp_path, monkeypatch):
    home = tmp_path / "project"
    home.mkdir()
    (home / "data").symlink_to(made / "data")
    (home / "config.toml").write_text('[foundation]\ndtype = "bfloat16"\n[ranking.training]\nepochs = 7\nseed = 3\n')
    told = json.loads(
        shop.m6rec(made, "config", "show", "--project", home, "--json", "--set", "ranking.training.seed=5")
    )
    assert told["foundation.dtype"]["origin"] == str(home / "config.toml")
    assert (told["ranking.training.epochs"]["value"], told["ranking.training.seed"]["value"]) == (7, 5)
    assert told["ranking.training.seed"]["origin"] == "--set"
    assert told["ranking.training.clip"]["origin"] == "default"
    assert told["serving.http.deadline_s"]["unit"] == "seconds"
    monkeypatch.setenv("M6REC_PROJECT", str(home))
    assert "epochs = 7" in shop.m6rec(made, "config", "show", "ranking.training")
    (tmp_path / "other.toml").write_text("[ranking.training]\nepochs = 8\n")
    shown = shop.m6rec(made, "config", "show", "ranking.training.epochs", "--config", tmp_path / "other.toml")
    assert shown.splitlines()[0] == "[ranking.training]"
    assert shown.splitlines()[1].startswith("epochs = 8")
    assert len(shown.splitlines()) == 2


@pytest.mark.parametrize("task", ["click", "retrieve"])
def test_a_run_says_what_it_was_made_with(made, tmp_path, task):
    run, again = tmp_path / "run", tmp_path / "again"
    section = "ranking" if task == "click" else "retrieval"
    tuned(made, task, run, "--epochs", "1", "--set", f"{section}.training.patience=2")
    shown = shop.m6rec(made, "config", "show", "--run", run)
    assert f"[{section}.training]" in shown
    assert "default" not in shown.partition("patience")[2].splitlines()[0]
    assert set(tomllib.loads(shown)) == {"foundation", section}
    (tmp_path / "run.toml").write_text(shown)
    where = ("--data", made / "data", "--run", again, "--config", tmp_path / "run.toml", "--dtype", "float32")
    shop.m6rec(made, "tune", task, *where)
    assert Fingerprint.load(again) == Fingerprint.load(run)
    done = m6rec(made, "config", "show", "--run", tmp_path)
    assert isinstance(done.exception, ConfigError)


def test_a_run_of_the_defaults_has_no_settings_in_its_fingerprint(made):
    """So a leaf that a later version adds makes no other run of it."""
    assert json.loads(Fingerprint.load(made / "retrieve").training) == {"epochs": 1}
    assert Fingerprint.load(made / "click").tuning == '{"depth": 1} seed 0'
