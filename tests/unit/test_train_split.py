"""The script that splits training lists: what is held out is nowhere in training."""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import split_training_lists


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def lists() -> Iterator[dict[str, Any]]:
    for number in range(400):
        kind = "law:" if number % 4 == 0 else "web:"
        group = number // 8  # neighbours of a kind share a relevant passage
        yield {
            "query_id": f"{kind}{number}",
            "query": f"问题{number}",
            "positive": [f"{kind}答案{group}", f"{kind}回答{number}"],
            "negative": [f"{kind}无关{(number * 7 + place) % 997}" for place in range(5)],
        }


def test_what_is_held_out_is_nowhere_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with gzip.open(tmp_path / "lists.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in lists())
    shares = ["--share", "0.1", "--share", "law:=0.3", "--most", "20"]
    monkeypatch.setattr(sys, "argv", ["split", str(tmp_path / "lists.jsonl.gz"), str(tmp_path / "out"), *shares])
    split_training_lists.main()
    assert "train.jsonl.gz: " in capsys.readouterr().out
    train, web, law = (read(tmp_path / "out" / f"{name}.jsonl.gz") for name in ("train", "eval_rest", "eval_law"))
    trained = {text for row in train for text in (*row["positive"], *row["negative"])}
    queries = {row["query_id"] for row in train}
    assert 250 < len(train) < 400
    for rows, prefix in ((web, "web:"), (law, "law:")):
        assert 2 < len(rows) <= 20
        for row in rows:
            texts = [*row["positive"], *row["negative"]]
            assert row["query_id"].startswith(prefix)
            assert row["query_id"] not in queries
            assert not trained & set(texts)
            assert len(texts) == len(set(texts)) > 10
            assert all(text.startswith(prefix) for text in texts)


def test_queries_of_two_prefixes_that_share_a_passage_go_to_one_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with gzip.open(tmp_path / "lists.jsonl.gz", "wt", encoding="utf-8") as file:
        for number in range(60):
            for kind in ("law:", "web:"):
                row = {"query_id": f"{kind}{number}", "query": f"问题{number}", "positive": [f"共同答案{number}"]}
                file.write(json.dumps(row | {"negative": [f"{kind}无关{number}", f"{kind}其他{number}"]}) + "\n")
    monkeypatch.setattr(sys, "argv", ["split", str(tmp_path / "lists.jsonl.gz"), str(tmp_path), "--share", "law:=0.5"])
    split_training_lists.main()
    held_out = {text for row in read(tmp_path / "eval_law.jsonl.gz") for text in row["positive"]}
    assert held_out
    assert not held_out & {text for row in read(tmp_path / "train.jsonl.gz") for text in row["positive"]}

    monkeypatch.setattr(sys, "argv", ["split", str(tmp_path / "lists.jsonl.gz"), str(tmp_path), "--share", "lwa:=0.5"])
    with pytest.raises(SystemExit, match="2"):
        split_training_lists.main()
    assert "no query id starts with 'lwa:'" in capsys.readouterr().err
