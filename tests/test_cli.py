import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m6rec import cli
from m6rec.cli.runs import tuned_runs
from m6rec.cli.tree import Config, FoundationSection, StatesSection
from m6rec.domains import prepared
from m6rec.features.interactions import InteractionStore
from m6rec.serving.recommender import Recommender
from tests import shop, tiny
from tests.fake import FakeBackend
from tests.shop import m6rec

GOLDEN = Path(__file__).parent / "golden" / "flags.json"
runner = CliRunner()


def flags() -> dict[str, list[str]]:
    """Every command with its options and arguments, in order."""
    import typer.main

    found = {}

    def walk(command, name):
        if hasattr(command, "commands"):
            for word, sub in sorted(command.commands.items()):
                walk(sub, f"{name} {word}".strip())
        else:
            found[name] = [option for parameter in command.params for option in (parameter.opts or [parameter.name])]

    walk(typer.main.get_command(cli.app), "")
    return found


def unknown(words: Sequence[str], known: Mapping[str, Sequence[str]]) -> list[str]:
    """What of a command line there isn't: its name, or those of its options."""
    name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
    if name not in known:
        return [name]
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [one for one in options if one not in known[name] and one.replace("--no-", "--") not in known[name]]


def test_flags_are_those_that_users_have_typed_before():
    assert flags() == json.loads(GOLDEN.read_text())


def run(monkeypatch, capsys, *words: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["m6rec", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0), " ".join(capsys.readouterr().err.split())


def test_a_bad_column_is_named(monkeypatch, capsys, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user,itm,time,year\n1,2,3,1995\n")
    code, said = run(monkeypatch, capsys, "prepare", "generic", str(log), "--out", str(tmp_path / "data"))
    assert code == 2
    assert "column 'item' is missing. Did you mean 'itm'?" in said
    assert "--columns" in said


def test_a_missing_model_lists_what_there_is(monkeypatch, capsys, tmp_path):
    log = tmp_path / "log.csv"
    rows = [f"{n % 3},{n % 7},{n},Film {n % 7}" for n in range(60)]
    log.write_text("\n".join(["user,item,time,title", *rows]))
    data = str(tmp_path / "data")
    result = runner.invoke(cli.app, ["prepare", "generic", str(log), "--out", data, "--json"])
    assert json.loads(result.stdout)["events"] == 60
    words = ("tune", "like", "--data", data, "--run", str(tmp_path / "run"), "--foundation", "no-such-model")
    code, said = run(monkeypatch, capsys, *words)
    assert code == 2
    assert "smollm2-135m" in said


def test_an_unprepared_folder_says_how_to_prepare_it(monkeypatch, capsys, tmp_path):
    code, said = run(monkeypatch, capsys, "recommend", "--user", "1", "--data", str(tmp_path))
    assert code == 2
    assert "m6rec prepare" in said


def test_assets_are_listed_as_json():
    result = runner.invoke(cli.app, ["assets", "list", "--json"])
    assert {row["name"] for row in json.loads(result.stdout)} >= {"smollm2-135m", "movielens-100k"}


def test_explain_prints_each_sentence_with_its_evidence(monkeypatch):
    monkeypatch.setattr(cli.recommending, "_recommender", lambda *given: (FakeBackend(), []))
    said = runner.invoke(cli.app, ["explain", "--user", "u0", "--item", "i1"]).stdout
    assert said.splitlines()[:3] == [
        "81% of 123 people liked it.",
        '  crowd: {"liked": 100, "seen": 123}',
        "  source: template; generated text rejected: it babbles",
    ]
    told = json.loads(runner.invoke(cli.app, ["explain", "--user", "u0", "--item", "i1", "--json"]).stdout)
    assert (told["user"], told["item"]) == ("u0", "i1")
    assert [one["source"] for one in told["reasons"]] == ["template", "model"]


def test_explain_names_an_unknown_id(monkeypatch, capsys):
    monkeypatch.setattr(cli.recommending, "_recommender", lambda *given: (FakeBackend(), []))
    code, said = run(monkeypatch, capsys, "explain", "--user", "u0", "--item", "i99")
    assert code == 2
    assert "i99" in said


def test_prepare_tells_the_leaks_of_the_split(tmp_path):
    rows = [f"u{n % 6},i{7 * n % 12},{n},Film {7 * n % 12},{n % 2}" for n in range(1, 121)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time,title,value", *rows, rows[-1]]))
    words = ["prepare", str(tmp_path / "log.csv"), "--out", str(tmp_path / "data"), "--json"]
    told = json.loads(runner.invoke(cli.app, words).stdout)
    assert told["leaks"] == {"targets in history": 24}  # all that is held out: users come back to the same two items
    assert told["dropped"] == {"events: an earlier one is the same in all": 1}
    assert told["repeats"] == 108
    assert told["tasks"]["retrieval"] == [
        "in the validation part users take no item that is new to them",
        "in the test part users take no item that is new to them",
    ]
    assert not told["tasks"]["ranking"]
    assert len(told["prompts"]) == 3


def test_chat_answers_line_by_line(monkeypatch):
    monkeypatch.setattr(cli.recommending, "_recommender", lambda *given: (FakeBackend(), []))
    said = runner.invoke(cli.app, ["chat", "--user", "u0"], input="Anything?\nAnd else?\n\nnever read\n")
    assert said.stdout.splitlines() == ['How about "Film 0"?'] * 2
    said = runner.invoke(cli.app, ["chat", "--json"], input="Anything?\nAnd else?\n").stdout.splitlines()
    assert [json.loads(line)["num_prompt_tokens"] for line in said] == [1, 3]
    assert json.loads(said[0])["items"][0]["item"]["title"] == "Film 0"


def test_create_prints_each_text_and_why_others_were_refused(monkeypatch):
    monkeypatch.setattr(cli.recommending, "_recommender", lambda *given, blocked: (FakeBackend(), []))
    words = ["create", "design", "--user", "u0", "--category", "Drama", "--catalogue"]
    said = runner.invoke(cli.app, words).stdout
    assert said.splitlines() == ["Film 2  (Drama)", "  source: model", "  rejected: it babbles"]
    told = json.loads(runner.invoke(cli.app, [*words, "--count", "2", "--json"]).stdout)
    assert [one["item"] for one in told["texts"]] == ["i2", "i2"]
    said = runner.invoke(cli.app, ["create", "headline", "--user", "u0", "--item", "i1"]).stdout
    assert said.splitlines()[:2] == ["comedy films", "  source: template"]


def test_a_task_of_texts_is_tuned_evaluated_and_used_by_the_same_verbs(tmp_path, monkeypatch, capsys):
    tiny.hf_folder("llama", tmp_path / "foundation")
    header = "user,item,time,title,value,text"
    rows = [f"{row},Great story {n}." for n, row in enumerate(shop.log().splitlines()[1:])]
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]))
    m6rec(tmp_path, "prepare", "generic", tmp_path / "log.csv", "--out", tmp_path / "data")
    data = ("--data", tmp_path / "data")
    for task in ("explain", "click", "retrieve"):
        where = (*data, "--run", tmp_path / task, "--foundation", tmp_path / "foundation", "--dtype", "float32")
        m6rec(tmp_path, "tune", task, *where, *shop.split(task), "--epochs", "1")
    where = (*data, "--out", tmp_path / "report", "--dtype", "float32")
    told = json.loads(m6rec(tmp_path, "evaluate", tmp_path / "explain", *where, "--texts", "2", "--json"))
    assert [table["title"] for table in told["tables"]] == ["Texts, validation", "Texts, test"]
    for table in told["tables"]:
        assert table["rows"][0]["method"] == "m6rec, lora"
        assert table["rows"][0]["metrics"]["perplexity"][0] > 1
    loaded = []
    inner = cli.runs.text_writers
    monkeypatch.setattr(cli.runs, "text_writers", lambda *given: loaded.append(inner(*given)) or loaded[-1])
    asked = ("--user", "u1", "--item", "i3", *data, "--retrieve", tmp_path / "retrieve", "--rank", tmp_path / "click")
    told = json.loads(m6rec(tmp_path, "explain", *asked, "--dtype", "float32", "--json"))
    assert "review" in {one["kind"] for one in told["reasons"]}
    assert [list(writers) for writers in loaded] == [["explain"]]  # beside the ranking task
    runs = (str(tmp_path / "explain"), str(tmp_path / "click"))
    code, said = run(monkeypatch, capsys, "evaluate", *runs, *map(str, data), "--out", str(tmp_path / "report"))
    assert code == 2
    assert "must share task and foundation" in said
    code, said = run(monkeypatch, capsys, "tune", "sing", *map(str, data), "--run", str(tmp_path / "sing"))
    assert code == 2
    assert "there is no task 'sing'. Did you mean 'rating'? Known are like, " in said
    assert "retrieve, explain, design, query, reply; your own is package.module:NAME" in said


def project(tmp_path):
    """(a project with two runs, the options of a tuning on its foundation)."""
    tiny.hf_folder("llama", tmp_path / "foundation")
    home = tmp_path / "shop"
    (tmp_path / "log.csv").write_text(shop.log())
    m6rec(tmp_path, "prepare", "generic", tmp_path / "log.csv", "--out", home / "data")
    options = ("--project", home, "--foundation", tmp_path / "foundation", "--epochs", "1", "--dtype", "float32")
    for task in ("click", "retrieve"):
        m6rec(tmp_path, "tune", task, *options, *shop.split(task))
    return home, (*options, *shop.split("click"))


def test_a_project_needs_no_other_path(tmp_path, monkeypatch, capsys):
    home, options = project(tmp_path)
    assert sorted(path.name for path in (home / "runs").iterdir()) == ["click-0", "retrieve-0"]
    where = ("--project", home, "--dtype", "float32")
    items = json.loads(m6rec(tmp_path, "recommend", *where, "--user", "u1", "--json"))["items"]
    assert len(items) == 10
    monkeypatch.setenv("M6REC_PROJECT", str(home))
    assert json.loads(m6rec(tmp_path, "recommend", *where[2:], "--user", "u1", "--json"))["items"] == items
    monkeypatch.delenv("M6REC_PROJECT")
    monkeypatch.chdir(home)
    assert json.loads(m6rec(tmp_path, "recommend", *where[2:], "--user", "u1", "--json"))["items"] == items
    assert json.loads(m6rec(tmp_path, "rank", "i0", "i5", *where, "--user", "u1", "--json"))
    m6rec(tmp_path, "evaluate", "click-0", *where)
    assert (home / "report" / "click" / "report.json").exists()
    m6rec(tmp_path, "export", "--project", home)
    assert (home / "device" / "manifest.json").exists()
    code, said = run(monkeypatch, capsys, "evaluate", "like-7", "--project", str(home))
    assert code == 2
    assert "there is no finished run like-7, neither as a folder nor in the project" in said
    assert "click-0" in said
    # The newest run is served, but for one that is named or given.
    m6rec(tmp_path, "tune", "click", *options, "--seed", "1")
    page = tmp_path / "both.html"
    m6rec(tmp_path, "report", "click-0", "click-1", "--project", home, "--compare", "--out", page)
    html = page.read_text()
    assert "click: loss" in html  # of both seeds
    assert "Reliability, by tenth of the predictions" in html  # of the one that was evaluated
    code, said = run(monkeypatch, capsys, "report", str(home / "data"), "--out", str(page))
    assert code == 2
    assert "data is no finished run, no report and no results of a benchmark; give a run folder" in said
    newest = m6rec(tmp_path, "rank", "i0", "i5", *where, "--user", "u1", "--json")
    given = m6rec(tmp_path, "rank", "i0", "i5", *where, "--user", "u1", "--rank", home / "runs" / "click-0", "--json")
    (home / "project.json").write_text('{"ranking": "click-0"}')
    assert m6rec(tmp_path, "rank", "i0", "i5", *where, "--user", "u1", "--json") == given != newest


def test_runs_of_the_wrong_kind_are_refused_by_name(tmp_path, monkeypatch, capsys):
    shop.make(tmp_path)
    for verb in (("recommend", "--user", "u1"), ("serve", "--store", str(tmp_path / "store"))):
        data, click, retrieve = (str(tmp_path / name) for name in ("data", "click", "retrieve"))
        swapped = (*verb, "--data", data, "--rank", retrieve, "--retrieve", click)
        code, said = run(monkeypatch, capsys, *swapped)
        assert code == 2
        assert f"--rank {retrieve} is a retrieval run, of task 'retrieve'; give a ranking run" in said
        code, said = run(monkeypatch, capsys, *verb, "--data", data, "--rank", click, "--retrieve", click)
        assert code == 2
        assert f"--retrieve {click} is a ranking run, of task 'click'; give a retrieval run" in said


def test_a_finished_run_is_left_alone_and_refused_other_data(tmp_path, monkeypatch, capsys):
    """The second is a shuffled log under the same names: without a fingerprint, its weights would be the old ones."""
    shop.make(tmp_path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "click").iterdir() if file.is_file()}
    where = ["--data", "data", "--run", "click", "--foundation", "foundation", "--depth", "1", "--epochs", "1"]
    where = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in where] + ["--dtype", "float32"]
    monkeypatch.setenv("M6REC_HOME", str(tmp_path / "home"))
    done = runner.invoke(cli.app, ["tune", "click", *where])
    assert done.exit_code == 0
    assert "was already finished with these settings; nothing was trained" in " ".join(done.output.split())
    assert {file.name: file.read_bytes() for file in (tmp_path / "click").iterdir() if file.is_file()} == before
    rows = (tmp_path / "log.csv").read_text().splitlines()
    values = [row.rpartition(",")[2] for row in rows[1:]]
    shuffled = [f"{row.rpartition(',')[0]},{value}" for row, value in zip(rows[1:], values[::-1], strict=True)]
    (tmp_path / "log.csv").write_text("\n".join([rows[0], *shuffled]))
    m6rec(tmp_path, "prepare", "generic", tmp_path / "log.csv", "--out", tmp_path / "data")
    for words in (
        ("tune", "click", *where),
        ("evaluate", str(tmp_path / "click"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "report")),
        ("export", str(tmp_path / "click"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "phone")),
        ("recommend", "--user", "u1", *(w for n in ("data", "retrieve") for w in (f"--{n}", str(tmp_path / n)))),
    ):
        words = (*words, "--rank", str(tmp_path / "click")) if words[0] == "recommend" else words
        code, said = run(monkeypatch, capsys, *words)
        assert code == 2
        assert "is of another data (there " in said
    assert {file.name: file.read_bytes() for file in (tmp_path / "click").iterdir() if file.is_file()} == before


def test_what_is_measured_was_not_trained_on(tmp_path, monkeypatch, capsys):
    """The same log in another split is other test events, some of which the run has seen."""
    shop.make(tmp_path)
    words = ("prepare", "generic", tmp_path / "log.csv", "--split", "item", "--out", tmp_path / "other")
    m6rec(tmp_path, *words)
    where = ("--data", str(tmp_path / "other"), "--out", str(tmp_path / "report"))
    code, said = run(monkeypatch, capsys, "evaluate", str(tmp_path / "click"), *where)
    assert code == 2
    assert "is of another split (there time, here item)" in said


def test_the_same_log_prepared_twice_is_one_dataset(tmp_path):
    shop.make(tmp_path)
    m6rec(tmp_path, "prepare", "generic", tmp_path / "log.csv", "--out", tmp_path / "again")
    assert prepared.fingerprint(tmp_path / "again") == prepared.fingerprint(tmp_path / "data")


def test_states_of_every_split_are_kept_between_processes_and_counted(tmp_path):
    """Runs that split the model at different layers share no state, but each keeps its own on disk."""
    shop.make(tmp_path)
    where = ("--data", tmp_path / "data", "--run", tmp_path / "deeper", "--foundation", tmp_path / "foundation")
    m6rec(tmp_path, "tune", "retrieve", *where, "--epochs", "1", "--dtype", "float32")
    misses = []
    config = Config(foundation=FoundationSection(dtype="float32"), states=StatesSection(store=str(tmp_path / "states")))
    for _ in range(2):
        runs = (tmp_path / "data", tmp_path / "deeper", tmp_path / "click")
        made, retrieve, rank = tuned_runs(*runs, config)
        assert retrieve.cache is not rank.cache
        log = made.split.log
        recommender = Recommender(retrieve, rank, log, InteractionStore(log.items, made.domain.feedback))
        recommender.rank("u1", list(log.items))
        counted = recommender.cache_statistics()
        caches = (retrieve.cache, rank.cache)
        assert counted.hits == sum(cache.hits for cache in caches)
        assert counted.entries == sum(cache.statistics().entries for cache in caches) > len(log.items)
        misses.append(counted.misses)
        assert all(cache.hits + cache.misses > len(log.items) - 1 for cache in caches)
    assert misses[0] > 2 * len(log.items) - 1
    assert misses[1] == 0


def test_a_run_goes_to_a_device_and_ranks_there(tmp_path):
    shop.make(tmp_path)
    phone, me = tmp_path / "phone", tmp_path / "me.sqlite"
    card = json.loads(
        shop.m6rec(tmp_path, "export", tmp_path / "click", "--out", phone, "--data", tmp_path / "data", "--json")
    )
    assert (card["task"], card["dtype"], card["depth"]) == ("click", "int8", 1)
    before = json.loads(shop.m6rec(tmp_path, "device", "rank", phone, "i0", "i5", "--store", me, "--json"))
    shop.m6rec(tmp_path, "device", "ingest", phone, "i7", "--store", me)
    after = json.loads(shop.m6rec(tmp_path, "device", "rank", phone, "i0", "i5", "--store", me, "--json"))
    assert {one["id"] for one in after} == {"i0", "i5"}
    assert [one["score"] for one in after] != [one["score"] for one in before]


def test_a_run_is_shrunk_by_switches_and_goes_to_a_device(tmp_path, monkeypatch, capsys):
    shop.make(tmp_path)
    data, small = ("--data", tmp_path / "data"), tmp_path / "small"
    (tmp_path / "small.toml").write_text("[shrink]\nwidth = 24\nffn_width = 32\nnum_heads = 2\nepochs = 9\n")
    switches = [f"--set=shrink.{switch}" for switch in ("num_layers=2", "embed_width=8", "vocab_size=0", "epochs=1")]
    words = (tmp_path / "click", "--out", small, *data, "--config", tmp_path / "small.toml", "--dtype", "float32")
    card = json.loads(shop.m6rec(tmp_path, "shrink", *words, *switches, "--json"))
    chosen = card["recipe"]
    assert (chosen["width"], chosen["num_layers"], chosen["epochs"]) == (24, 2, 1)
    again = json.loads(shop.m6rec(tmp_path, "shrink", *words, *switches, "--json"))
    assert again == card  # it is there already
    ranked = []
    for layers in (1, 2):
        phone = tmp_path / f"phone-{layers}"
        shop.m6rec(tmp_path, "export", small / "run", "--out", phone, *data, "--layers", layers, "--no-states")
        me = ("--store", tmp_path / f"me-{layers}.sqlite")
        ranked.append(json.loads(shop.m6rec(tmp_path, "device", "rank", phone, "i0", "i5", *me, "--json")))
    assert [{one["id"] for one in of} for of in ranked] == [{"i0", "i5"}] * 2
    assert ranked[0] != ranked[1]
    for wrong, message in (
        ("shrink.depth=3", "there is no setting shrink.depth (from --set)"),
        ("shrink.width=wide", "shrink.width is 'wide' (from --set); it must be an integer, at least 1"),
    ):
        code, said = run(
            monkeypatch, capsys, "shrink", str(tmp_path / "click"), "--out", str(tmp_path / "x"), f"--set={wrong}"
        )
        assert code == 2
        assert message in said
