"""The scripts around training: harder negatives for lists, and the mean of checkpoints."""

import gzip
import json
import sys
from pathlib import Path

import pytest
import torch

import add_negatives
import average_checkpoints
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
    assert len(found[2]["negative"]) == 2
    assert found[3] == rows[3]

    monkeypatch.setattr(sys, "argv", ["add", *options[:2], "--prefix", "news"])
    with pytest.raises(SystemExit, match="no query id starts with 'news'"):
        add_negatives.main()


def test_a_mean_of_checkpoints_is_that_of_each_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (write_layout_1(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 2)))
    monkeypatch.setattr(sys, "argv", ["average", str(tmp_path / "mean"), f"{first}=3", f"{second}=1"])
    average_checkpoints.main()
    a, b, mean = (load_checkpoint(folder).model.state_dict() for folder in (first, second, tmp_path / "mean"))
    for name, value in mean.items():
        torch.testing.assert_close(value, 0.75 * a[name] + 0.25 * b[name])
