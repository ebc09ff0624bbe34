import stat

import pytest

from m6rec.errors import ConfigError
from m6rec.serving.settings import ROLES, ApiKey, ApiKeys, Settings, make_key


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
    assert [known.find(key) for key in keys] == [ApiKey("admin", "shop"), ApiKey("admin")]
    assert not any(known.find(key) for key in ("", keys[0][:-1], keys[0] + "x", keys[0].upper(), "\ud800"))


def test_keys_have_roles_each_of_which_allows_those_before_it(tmp_path):
    file = tmp_path / "keys"
    keys = {role: make_key(file, f"the {role} key", role) for role in ROLES}
    old = make_key(file, "read replica")
    file.write_text(file.read_text().replace(" role=admin read replica", " read replica"))  # as it was before roles
    known = ApiKeys.load(file)
    assert {role: known.find(key) for role, key in keys.items()} == {
        role: ApiKey(role, f"the {role} key") for role in ROLES
    }
    assert known.find(old) == ApiKey("admin", "read replica")
    allowed = [[ApiKey(has).allows(needed) for needed in ROLES] for has in ROLES]
    assert allowed == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_role_that_there_is_not_is_named_with_those_there_are(tmp_path):
    file = tmp_path / "keys"
    with pytest.raises(ConfigError, match=r"'owner'.*read, write, admin"):
        make_key(file, role="owner")
    assert not file.exists()
    make_key(file)
    file.write_text(file.read_text().replace("role=admin", "role=root"))
    with pytest.raises(ConfigError, match=r"line 1 .*'root'.*read, write, admin"):
        ApiKeys.load(file)


@pytest.mark.parametrize("text", ["", "# none yet\n", "00ff shop", "zz" * 32])
def test_a_file_without_usable_keys_is_refused(tmp_path, text):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError, match="m6rec key"):
        ApiKeys.load(file)


def test_a_missing_file_of_keys_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        ApiKeys.load(tmp_path / "nowhere")
