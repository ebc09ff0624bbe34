import pytest

from m6rec.domains.domain import load
from m6rec.domains.mind import DOMAIN
from m6rec.errors import DataError
from m6rec.types import Event

NEWS = [
    'N1\tlifestyle\tlifestyleroyals\tThe "Brands" Queen\tShop the notebooks.\thttps://x\t[{"Label": "Q"}]\t[]',
    "N2\tsports\tfootball_nfl\tA win\t\thttps://x\t[]\t[]",
    "N3\tnews\tnewsus\tA vote\t\thttps://x\t[]\t[]",
]
TRAIN = ["1\tU1\t11/11/2019 9:05:58 AM\tN3 N2\tN1-1 N2-0", "2\tU2\t11/11/2019 8:00:00 AM\t\tN3-0"]
DEV = ["1\tU1\t11/15/2019 1:00:00 PM\tN3 N2 N1\tN2-1", "2\tU3\t11/16/2019 1:00:00 AM\tN1\tN2-0"]


def write(folder, behaviors):
    folder.mkdir(exist_ok=True)
    (folder / "news.tsv").write_text("\n".join(NEWS) + "\n")
    (folder / "behaviors.tsv").write_text("\n".join(behaviors) + "\n")
    return folder


def test_impressions_and_earlier_clicks(tmp_path):
    log = load(DOMAIN, write(tmp_path / "train", TRAIN), write(tmp_path / "dev", DEV))
    start, later = 1_573_459_200, 1_573_822_800
    assert log.events == (
        Event("U1", "N3", start - 1, 1),
        Event("U1", "N2", start - 1, 1),
        Event("U2", "N3", start, 0),
        Event("U1", "N1", start + 3_958, 1),
        Event("U1", "N2", start + 3_958, 0),
        Event("U3", "N1", later - 1, 1),
        Event("U1", "N2", later, 1),
        Event("U3", "N2", later + 12 * 3_600, 0),
    )
    words = [f"The user {DOMAIN.action(event, DOMAIN.item(log.items[event.item]))}." for event in log.events[3:5]]
    assert words == [
        'The user clicked the news article of category "lifestyleroyals" named "The \'Brands\' Queen".',
        'The user skipped the news article of category "football_nfl" named "A win".',
    ]
    assert log.items["N1"].categories == ("lifestyleroyals", "lifestyle")
    assert log.items["N1"].details == {"abstract": "Shop the notebooks."}
    assert [DOMAIN.positive(event) for event in log.events[3:5]] == [True, False]


@pytest.mark.parametrize("line", ["1\tU1\t11/11/2019 9:05:58 AM\tN3\tN1 N2", "1\tU1\t11/11/2019 9:05:58 AM\tN3"])
def test_impressions_without_clicks_are_named(tmp_path, line):
    with pytest.raises(DataError, match=r"behaviors\.tsv: line 3 can't be read \(a field is missing, or no click"):
        load(DOMAIN, write(tmp_path / "test", [*TRAIN, line]))
