import pytest

from m6rec.errors import AssetError
from m6rec.text.tokenizer import Tokenizer
from tests import tiny

CONTROL = set(range(len(tiny.SPECIAL)))


@pytest.fixture
def tokenizer():
    return Tokenizer(tiny.fast_tokenizer())


@pytest.mark.parametrize("token", tiny.SPECIAL)
def test_a_control_token_in_a_title_is_read_as_plain_text(tokenizer, token):
    text = f'The user liked the movie "{token} the end".'
    ids = tokenizer.encode([text])[0]
    assert not CONTROL & set(ids)
    assert tokenizer.decode(ids) == text
    assert CONTROL & set(tiny.fast_tokenizer().encode(text).ids)  # what it would be without our setting


def test_texts_come_back_whole(tokenizer):
    texts = ["the inner theme", "Amélie — 天使愛美麗", " leading space", ""]
    rows = tokenizer.encode(texts)
    assert [tokenizer.decode(row) for row in rows] == texts
    assert rows[3] == []


def test_neither_padding_nor_truncation_of_the_file_is_used():
    fast = tiny.fast_tokenizer()
    fast.enable_padding(length=50)
    fast.enable_truncation(3)
    tokenizer = Tokenizer(fast)
    short, long = tokenizer.encode(["xyz", "x" * 40])
    assert (len(short), len(long)) == (3, 40)


def test_open(tmp_path, tokenizer):
    with pytest.raises(AssetError, match=r"no readable tokenizer at .*tokenizer\.json"):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(AssetError, match="give a folder that holds one"):
        Tokenizer.open(tmp_path)
    tiny.fast_tokenizer().save(str(tmp_path / "tokenizer.json"))
    opened = Tokenizer.open(tmp_path)
    assert opened.encode(["<|im_end|> then"]) == tokenizer.encode(["<|im_end|> then"])
    assert opened.vocab_size == tokenizer.vocab_size
    assert 0 <= max(opened.encode(["then"])[0]) < opened.vocab_size
