import pytest

from listcon_eval.errors import ListconError
from listcon_eval.metrics import CMTEB_MEASURES, MTEB_MEASURES, Measure


def test_text_of_a_measure_is_read_back_as_that_measure() -> None:
    assert str(Measure("cmteb", "mrr_10")) == "cmteb:mrr_10"
    assert Measure.parse("mteb:map_at_1000") == Measure("mteb", "map_at_1000")
    for measure in (*CMTEB_MEASURES, *MTEB_MEASURES):
        assert Measure.parse(str(measure)) == measure


def test_names_of_the_model_card() -> None:
    assert [str(measure) for measure in CMTEB_MEASURES] == [
        "cmteb:map",
        "cmteb:mrr_1",
        "cmteb:mrr_5",
        "cmteb:mrr_10",
    ]


@pytest.mark.parametrize("text", ["cmteb:mrr_100", "map", "mteb:map", "", "cmteb:map "])
def test_unknown_measures_are_refused(text: str) -> None:
    with pytest.raises(ListconError, match="unknown measure"):
        Measure.parse(text)


def test_a_near_miss_is_named() -> None:
    with pytest.raises(ListconError, match=r"did you mean cmteb:mrr_10\?"):
        Measure.parse("cmteb:mrr10")
