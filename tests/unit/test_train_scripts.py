"""The scripts around training: harder negatives for lists, and the mean of checkpoints."""

import gzip
import json
import sys
from pathlib import Path

import pytest
import torch

import add_negatives
import average_checkpoints
import order_training_lists
from checkpoints import write_layout_1
from listcon_eval.model import load_checkpoint


def test_added_negatives_are_the_best_by_bm25_and_never_relevant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"query_id": "wiki:1", "query": "红色的苹果", "positive": ["苹果是红色的水果"], "negative": ["石头"]},
        {"query_id": "wiki:2", "query": "红色的苹果", "positive": ["红色的苹果很甜"], "negative": ["石头"]},
        {"query_id": "wiki:3", "query": "大海", "positive": ["大海是蓝色的"], "negative": ["红色的花"]},
        {"query_id": "law:1", "query": "红色的苹果", "positive": ["法条"], "negative": ["红色的苹果的法条"]},
    ]
    with gzip.open(tmp_path / "lists.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    out = tmp_path / "out.jsonl.gz"
    options = [str(tmp_path / "lists.jsonl.gz"), str(out), "--prefix", "wiki", "--count", "1"]
    monkeypatch.setattr(sys, "argv", ["add", *options])
    add_negatives.main()
    assert "4 lists, 3 of them" in capsys.readouterr().out
    with gzip.open(out, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    assert [row["negative"] for row in found[:2]] == [["石头", "红色的花"]] * 2  # the other's positive is relevant too
    assert found[2:] == rows[2:]  # no other passage shares a word with the third query; the fourth is of another prefix


def test_lists_with_the_same_passages_stand_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"query_id": f"{topic}{i}", "query": topic, "positive": [f"{topic} {i}"], "negative": [f"all of {topic}"]}
        for i in range(4)
        for topic in "abcd"
    ]
    one_class = {"query_id": "e", "query": "e", "positive": ["all of a"], "negative": ["all of a"]}
    (tmp_path / "lists.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [one_class, *rows]), encoding="utf-8"
    )
    out = tmp_path / "out.jsonl.gz"
    monkeypatch.setattr(sys, "argv", ["order", str(tmp_path / "lists.jsonl"), str(out), "--block_size", "4"])
    order_training_lists.main()
    assert "16 lists in blocks of 4" in capsys.readouterr().out
    with gzip.open(out, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    assert sorted(found, key=rows.index) == rows
    for start in range(0, 16, 4):
        assert len({row["query_id"][0] for row in found[start : start + 4]}) == 1
    monkeypatch.setattr(sys, "argv", ["order", str(tmp_path / "lists.jsonl"), str(out), "--block_size", "0"])
    with pytest.raises(SystemExit, match="2"):
        order_training_lists.main()
    assert "--block_size is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prefix", "news"], "no query id starts with 'news'"),
        (["--prefix", "wiki", "--count", "-5"], "--count is -5: expected 1 or more"),
        (["--prefix", "wiki", "--prefix", "wiki:1"], "wiki and wiki:1 overlap"),
    ],
)
def test_wrong_options_are_one_message(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {"query_id": "wiki:1", "query": "大海", "positive": ["大海是蓝色的"], "negative": ["红色的花"]}
    (tmp_path / "lists.jsonl").write_text(json.dumps(row), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["add", str(tmp_path / "lists.jsonl"), str(tmp_path / "out.gz"), *options])
    with pytest.raises(SystemExit, match="2"):
        add_negatives.main()
    assert message in capsys.readouterr().err


def test_a_mean_of_checkpoints_is_that_of_each_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (write_layout_1(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 2)))
    monkeypatch.setattr(sys, "argv", ["average", f"{first}=3", f"{second}=1", "--output", str(tmp_path / "mean")])
    average_checkpoints.main()
    a, b, mean = (load_checkpoint(folder).model.state_dict() for folder in (first, second, tmp_path / "mean"))
    for name, value in mean.items():
        torch.testing.assert_close(value, 0.75 * a[name] + 0.25 * b[name])


@pytest.mark.parametrize(("given", "message"), [("nowhere=1", "a folder that exists"), (".=nan", "a weight above 0")])
def test_what_cannot_be_averaged_is_one_message(
    given: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["average", given, "--output", "out"])
    with pytest.raises(SystemExit, match="2"):
        average_checkpoints.main()
    assert message in capsys.readouterr().err


def test_a_mean_does_not_replace_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_layout_1(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.csv").write_text("kept")
    monkeypatch.setattr(sys, "argv", ["average", f"{first}=1", "--output", str(tmp_path / "notes")])
    with pytest.raises(SystemExit, match="2"):
        average_checkpoints.main()
    assert "notes" in capsys.readouterr().err
    assert (tmp_path / "notes" / "a.csv").read_text() == "kept"
