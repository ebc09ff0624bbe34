import os
import stat

import pytest

from m6rec import files
from m6rec.errors import ConfigError


def test_a_file_is_replaced_whole_and_can_be_read_by_others(tmp_path):
    (tmp_path / "plain").write_text("")
    files.write(tmp_path / "card.json", "one")
    files.write(tmp_path / "card.json", "zwölf")
    assert (tmp_path / "card.json").read_text(encoding="utf-8") == "zwölf"
    assert stat.S_IMODE((tmp_path / "card.json").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["card.json", "plain"]


def make(folder, meanwhile):
    with files.new_folder(folder) as partial:
        (partial / "ours").write_text("")
        meanwhile()


def test_a_folder_that_appears_meanwhile_is_kept_and_said(tmp_path):
    def appear():
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "theirs").write_text("")

    with pytest.raises(ConfigError, match="was made by another process meanwhile, and this result is dropped"):
        make(tmp_path / "run", appear)
    assert os.listdir(tmp_path) == ["run"]
    assert os.listdir(tmp_path / "run") == ["theirs"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        make(tmp_path / "run", lambda: 1 / 0)
    assert os.listdir(tmp_path) == []
