import stat

import pytest

from m6rec.errors import ConfigError
from m6rec.serving.settings import ApiKeys, Settings, make_key


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host):
    Settings(host=host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.3", "example.org", ""])
def test_other_machines_need_a_key_or_the_word(host, tmp_path):
    with pytest.raises(ConfigError, match="--keys"):
        Settings(host=host)
    Settings(host=host, keys=tmp_path / "keys")
    Settings(host=host, insecure=True)


@pytest.mark.parametrize(
    "wrong", [{"port": 70_000}, {"max_queue": 0}, {"deadline_s": 0.0}, {"deadline_s": float("nan")}]
)
def test_numbers_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Settings(**wrong)


def test_a_made_key_is_allowed_and_only_its_hash_is_kept(tmp_path):
    file = tmp_path / "keys"
    keys = [make_key(file, "shop"), make_key(file)]
    assert len(set(keys)) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not any(key in file.read_text() for key in keys)
    assert "shop" in file.read_text()
    known = ApiKeys.load(file)
    assert all(known.allow(key) for key in keys)
    assert not any(known.allow(key) for key in ("", keys[0][:-1], keys[0] + "x", keys[0].upper(), "\ud800"))


@pytest.mark.parametrize("text", ["", "# none yet\n", "00ff shop", "zz" * 32])
def test_a_file_without_usable_keys_is_refused(tmp_path, text):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError, match="m6rec key"):
        ApiKeys.load(file)


def test_a_missing_file_of_keys_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        ApiKeys.load(tmp_path / "nowhere")
