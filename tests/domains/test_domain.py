import re
from pathlib import Path

import pytest

from m6rec import assets
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain, load, named, names
from m6rec.errors import AssetError, ConfigError
from m6rec.types import Item

ROOT = Path(domains.__file__).parent


@pytest.mark.parametrize("name", names())
def test_each_domain_is_one_short_file_and_its_assets_exist(name: str) -> None:
    domain = named(name)
    assert domain.name == name
    assert len((ROOT / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 60
    for asset in domain.assets:
        assert assets.describe(asset).kind == "data"


def test_a_domain_can_be_named_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_shop.py").write_text("from m6rec.domains.generic import DOMAIN as SHOP\nOTHER = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert named("my_shop:SHOP") is named("generic")
    for path, message in (
        ("my_shop:OTHER", "is a int, not a Domain"),
        ("my_shop:NONE", "NONE"),
        ("no_shop:X", "no_shop"),
    ):
        with pytest.raises(ConfigError, match=message):
            named(path)


def test_unknown_name_lists_names_and_the_closest() -> None:
    message = "there is no domain 'movie-lens'. Did you mean 'movielens'? Known are movielens, books"
    with pytest.raises(ConfigError, match=re.escape(message)):
        named("movie-lens")


def test_load_takes_the_users_files_or_the_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generic: Domain = named("generic")
    (tmp_path / "log.csv").write_text("user,title,time,category\nann,Tea,5,Drinks\nann,Mug,6,\n")
    log = load(generic, tmp_path / "log.csv")
    words = [f"The user {generic.action(event, generic.item(log.items[event.item]))}." for event in log.events]
    assert words == [
        'The user chose the item of category "Drinks" named "Tea".',
        'The user chose the item named "Mug".',
    ]
    assert [generic.user(user) for user in log.users.values()] == [""]
    with pytest.raises(ConfigError, match="no data of its own"):
        load(generic)
    monkeypatch.setenv("M6REC_HOME", str(tmp_path / "empty"))
    with pytest.raises(AssetError, match="movielens-100k"):
        load(named("movielens"), offline=True)


def test_an_item_has_a_title_where_its_domain_words_one():
    for name, has_title in (("movielens", True), ("generic", True), ("instruments", False), ("peter", False)):
        assert domains.titled(named(name), Item("zq1", 'The "Real" McCoy', ("Guitars",))) is has_title
