import numpy as np
import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers

from m6rec.errors import AssetError
from m6rec.text.tokenizer import TextStream, Tokenizer
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


def taken(stream, ids):
    """What could be shown after each token."""
    shown = []
    for token in ids:
        if not stream.stopped:
            stream.add(token)
            shown.append(stream.safe)
    return shown


@pytest.mark.parametrize("text", ["Amélie — 天使愛美麗 🎬!", " leading space", "the \ufffd inner"])
def test_a_text_comes_in_whole_characters(tokenizer, text):
    ids = tokenizer.encode([text])[0]
    shown = taken(TextStream(tokenizer, tokenizer.encode(["before"])[0]), ids)
    assert shown[-1] == text
    assert all(text.startswith(part) for part in shown)
    assert len(set(shown)) > len(text) / 2  # it doesn't wait for the end
    assert taken(TextStream(tokenizer, []), ids[:-1])[-1] == tokenizer.decode(ids[:-1]).rstrip("\ufffd")


def test_bytes_that_are_no_character_do_not_stop_a_text(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(200):
        ids = [int(token) for token in rng.integers(len(CONTROL), tokenizer.vocab_size, 12)]
        ids += tokenizer.encode(["!"])[0]
        shown = taken(TextStream(tokenizer, []), ids)
        assert shown[-1] == tokenizer.decode(ids)
        assert all(shown[-1].startswith(part) for part in shown)


def test_a_text_goes_on_after_a_space():
    """Where a tokenizer drops the space that a text begins with, as Llama's does."""
    fast = FastTokenizer(models.BPE(vocab={"▁": 0, "a": 1, "b": 2, "▁b": 3}, merges=[("▁", "b")]))
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(fast)
    assert tokenizer.decode([3]) == "b"
    assert taken(TextStream(tokenizer, [0, 1]), [3, 1, 3]) == [" b", " ba", " ba b"]


def test_a_text_ends_before_the_first_stop_and_no_part_of_one_is_shown(tokenizer):
    ids = tokenizer.encode(["the man: USA USER: hi"])[0]
    stream = TextStream(tokenizer, [], ("\nSYSTEM:", " USER:"))
    shown = taken(stream, ids)
    assert (stream.text, stream.stopped) == ("the man: USA", True)
    assert {"the man", "the man:", "the man: USA"} <= set(shown)
    assert not {"the man: ", "the man: U", "the man: US"} & set(shown)
    both = TextStream(tokenizer, [], ("b", "a"))
    assert taken(both, tokenizer.encode(["xab"])[0])[-1] == "x"


def test_control_ids_are_those_of_the_control_tokens(tokenizer):
    assert tokenizer.control_ids == [0, 1, 2]


def test_a_saved_tokenizer_reads_alike(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    texts = ["the inner theme", f"{tiny.SPECIAL[2]} Amélie"]
    assert Tokenizer.open(tmp_path).encode(texts) == tokenizer.encode(texts)
