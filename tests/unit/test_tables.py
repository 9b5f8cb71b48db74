"""Tables: cells are measured as a terminal shows them, and no text breaks out of its cell."""

import pytest
from rich.cells import cell_len

from listcon_eval.tables import code, escaped, heading, one_line, shortened, table


def test_columns_of_chinese_and_latin_text_line_up() -> None:
    shown = table(["Query", "Value"], [["腹泻怎么办", "1"], ["ab", "2"], ["ᵃ", "3"]]).splitlines()
    assert {cell_len(line[: line.rindex(line[-1])]) for line in (shown[2], shown[3], shown[4])} == {13}
    assert not [line for line in shown if line.endswith(" ")]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_table_keeps_to_the_width_and_loses_no_text(width: int) -> None:
    text = "很长的问题" * 12
    shown = table(["#", "Text", "Value"], [["a", text, "64.50"]], width=width)
    assert max(map(cell_len, shown.splitlines())) <= width
    assert shown.count("很") == 12
    assert len(table(["#", "Text", "Value"], [["a", text, "64.50"]]).splitlines()) == 3


def test_markup_and_line_breaks_stay_in_their_cell() -> None:
    nasty = "a|b\n<i>*c*</i> `d` [x](http://y) \x1b[31m _e_ map_at_1000"
    rows = table(["Id"], [[nasty]], "markdown").splitlines()
    assert len(rows) == 3
    assert r"a\|b\\n\<i\>\*c\*\</i\> \`d\` [x\](http://y) \\x1b[31m \_e\_ map_at_1000" in rows[2]
    assert len(table(["Id"], [[nasty]]).splitlines()) == 3
    assert r"map\_at\_1000" in table(["Id"], [[nasty]], "latex")


def test_rich_markup_is_text() -> None:
    assert "[red]x[/red] :smile:" in table(["Id"], [["[red]x[/red] :smile:"]])


def test_words_of_their_own() -> None:
    assert one_line("a\tb\u2028c\ud800\x7f 　é") == "a\\tb\\u2028c\\ud800\\x7f 　é"
    assert shortened("腹泻 \n 怎么办", 40) == "腹泻 怎么办"
    assert shortened("腹泻怎么办", 9) == "腹泻怎..."
    assert code("a`b", "markdown") == "`` a`b ``"
    assert code("a_b", "markdown") == "`a_b`"
    assert heading("a*b", "markdown") == r"**a\*b**"
    assert escaped("50%", "latex") == r"50\%"
