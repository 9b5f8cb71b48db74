"""Training runs on small lists: equal weights whatever the split, resumed runs, errors, and what is learned."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig

from checkpoints import write_layout_1
from listcon_eval import ListConRanker
from listcon_eval.data import local_task
from listcon_eval.errors import ListconError
from listcon_eval.inference.tokens import index_list
from listcon_eval.metrics import cmteb
from listcon_eval.model import ListConConfig, ListConModel, load_checkpoint
from listcon_eval.ordering import ranked_list
from listcon_eval.train import data
from listcon_eval.train.arguments import LossArguments, parse_arguments
from listcon_eval.train.data import (
    EpochItem,
    ListCollator,
    ListDataset,
    PooledCache,
    TextTable,
    TokenisedTexts,
    encode_texts,
    training_lists,
)
from listcon_eval.train.run import TrainedModel, train
from listcon_eval.train.trainer import ListLossModel
from synthetic_lists import write_encoder, write_lists


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Lists and an encoder without dropout."""
    write_lists(tmp_path / "lists.jsonl")
    write_encoder(tmp_path / "encoder", dropout=0.0)
    return tmp_path


def run(folder: Path, output: str = "out", *more: str, **options: Any) -> TrainedModel:  # noqa: ANN401 - any option
    caches = options.get("freeze", "none") != "none" or options.get("teacher") == "encoder"
    given = {
        "data": folder / "lists.jsonl",
        "encoder": folder / "encoder",
        "output_dir": folder / output,
        "pooled_cache": folder / "cache" if caches else None,
        "max_length": 32,
        "eval_split": 0,
        "list_dropout": 0,
        "list_size": 4,
        "num_train_epochs": 2,
        "max_steps": -1,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "use_cpu": "true",
        "disable_tqdm": "true",
        **options,
    }
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    return train(parse_arguments([*words, *more]))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder).model.state_dict()


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("freeze", ["none", "encoder"])
def test_micro_batches_do_not_change_the_weights(freeze: str, folder: Path) -> None:
    """12 lists in steps of 8: the last step of an epoch has 4."""
    options = {"freeze": freeze, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0}
    whole = weights(run(folder, "whole", per_device_train_batch_size=8, **options).folder)
    start = weights(run(folder, "start", per_device_train_batch_size=8, **{**options, "learning_rate": 0}).folder)
    change = largest_difference(start, whole)
    assert change > 0.05
    for size, steps in ((1, 8), (3, 3)):
        options["gradient_accumulation_steps"] = steps
        split = run(folder, f"micro{size}", per_device_train_batch_size=size, **options)
        if size * steps == 8:
            assert largest_difference(weights(split.folder), whole) < 1e-4 * change
        else:  # other steps: the comparison can fail
            assert largest_difference(weights(split.folder), whole) > 1e-2 * change


@pytest.mark.parametrize("epoch_part", ["middle", "end"])
def test_a_resumed_run_ends_with_the_same_weights(epoch_part: str, folder: Path) -> None:
    write_encoder(folder / "encoder", dropout=0.1)
    options = {"list_dropout": 0.1, "save_strategy": "steps", "save_steps": 2 if epoch_part == "middle" else 3}
    options |= {"save_total_limit": 10}
    whole = run(folder, "whole", **options)
    shutil.copytree(folder / "whole", folder / "killed")
    shutil.rmtree(folder / "killed" / "model")
    kept = {"middle": 2, "end": 3}[epoch_part]
    for path in (folder / "killed").glob("checkpoint-*"):
        if path.name != f"checkpoint-{kept}":
            shutil.rmtree(path)
    unfinished = folder / "killed" / "checkpoint-5"  # killed while it was written
    unfinished.mkdir()
    resumed = run(folder, "killed", resume_from_checkpoint="true", **options)
    assert largest_difference(weights(resumed.folder), weights(whole.folder)) == 0
    assert not (unfinished / "trainer_state.json").exists()


def test_equal_runs_are_equal_and_other_seeds_differ(folder: Path) -> None:
    one, same, other = (
        weights(run(folder, name, seed=seed).folder) for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert largest_difference(one, same) == 0
    assert largest_difference(one, other) > 0


def test_frozen_parts_stay_as_they_are(folder: Path) -> None:
    start = weights(run(folder, "start", learning_rate=0).folder)
    for freeze, same in (
        ("none", ()),
        ("encoder", ("encoder.",)),
        ("embedding", ("encoder.", "linear_in_embedding.")),
    ):
        trained = weights(run(folder, freeze, freeze=freeze).folder)
        unchanged = {name for name in start if torch.equal(start[name], trained[name])}
        frozen = {name for name in start if same and name.startswith(same)}
        assert frozen <= unchanged
        assert not [n for n in unchanged - frozen if n.endswith("weight") and "embeddings" not in n], unchanged


def test_a_frozen_encoder_encodes_each_text_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []

    def counting(*given: Any) -> Any:  # noqa: ANN401 - those of encode_texts
        encoded.append(len(given[2]))
        return encode_texts(*given)

    monkeypatch.setattr(data, "encode_texts", counting)
    monkeypatch.setattr("listcon_eval.train.trainer.encode_texts", counting)
    first = run(folder, "one", freeze="encoder", eval_split=0.2)
    texts = {
        text for row in local_task(folder / "lists.jsonl").candidate_lists() for text in (row.query, *row.passages)
    }
    assert sum(encoded) == len(texts)
    second = run(folder, "two", freeze="encoder", eval_split=0.2)
    assert sum(encoded) == len(texts)
    assert largest_difference(weights(first.folder), weights(second.folder)) == 0
    run(folder, "three", freeze="encoder", eval_split=0.2, max_length=5)
    assert sum(encoded) == 2 * len(texts)
    run(folder, "four", freeze="encoder", eval_split=0.2, bf16=True)
    assert sum(encoded) == 3 * len(texts)


def test_the_lists_are_learned_and_the_checkpoint_ranks_them(folder: Path) -> None:
    lists = local_task(folder / "lists.jsonl").candidate_lists()
    trained = run(
        folder, eval_data=f"same={folder / 'lists.jsonl'}", num_train_epochs=12, list_size=20, learning_rate=3e-3
    )
    assert trained.best_map is not None
    assert trained.best_map > 0.99
    assert {path.name for path in trained.folder.glob("*.pt")} == {"linear_in_embedding.pt", "list_transformer.pt"}
    checkpoints = sorted((folder / "out").glob("checkpoint-*"))
    assert 1 <= len(checkpoints) <= 2
    for place in (trained.folder, *checkpoints):  # layout 1, and layout 2
        ranker = ListConRanker.from_pretrained(place, device="cpu", dtype="float32", max_length=32)
        scores = [ranked_list(row) for row in ranker.rank([[row.query, *row.passages] for row in lists])]
        value = cmteb.evaluate(lists, scores, "iterative").means["map"]
        if place == trained.folder:
            assert value == pytest.approx(trained.best_map, abs=1e-6)


def test_the_best_model_is_kept(folder: Path) -> None:
    trained = run(folder, eval_split=0.3, num_train_epochs=4, learning_rate=3e-3)
    states = [json.loads(path.read_text()) for path in (folder / "out").glob("checkpoint-*/trainer_state.json")]
    log = max(states, key=lambda state: state["global_step"])["log_history"]
    maps = [row["eval_map"] for row in log if "eval_map" in row]
    assert len(maps) == 4
    assert trained.best_map == max(maps)


def test_a_model_that_is_not_the_best_has_the_last_map(folder: Path) -> None:
    options: dict[str, Any] = {"eval_split": 0.5, "num_train_epochs": 6, "learning_rate": 0.3, "save_total_limit": 9}
    last = run(folder, load_best_model_at_end="false", **options)
    state = json.loads((folder / "out" / "checkpoint-12" / "trainer_state.json").read_text())
    assert last.last_map == state["log_history"][-1]["eval_map"] < state["best_metric"]
    assert last.best_map is None
    unknown = run(folder, "unknown", load_best_model_at_end="false", eval_strategy="no", **options)
    assert unknown[1:] == (None, None)
    # transformers leaves the last model when the best checkpoint is gone
    best = run(folder, "best", **options)
    assert best == (folder / "best" / "model", state["best_metric"], None)
    shutil.rmtree(folder / "best" / "model")
    shutil.rmtree(folder / "best" / Path(state["best_model_checkpoint"]).name)
    assert run(folder, "best", resume_from_checkpoint="true", **options).last_map == last.last_map


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("x", ["--eval_data", "{x}/lists.jsonl", "{y}/lists.jsonl"], "2 sets of held-out lists are called 'lists'"),
        ("x", ["--eval_data", "split={x}/lists.jsonl", "--eval_split", "0.3"], "are called 'split': name them"),
        ("one_class", ["--eval_split", "0.2"], "none of the 2 held-out lists of 'split' has both"),
        (
            "x",
            ["--own_negatives", "0", "--fill_lists", "batch", "--per_device_train_batch_size", "11"],
            "a list that is alone in a batch has no negatives, as the last of 12 lists in batches of 11",
        ),
        ("x", ["--dataloader_drop_last", "true", "--per_device_train_batch_size", "13"], "leaves out all 12 lists"),
        ("x", ["--report_to", "no_such_reporter"], "training cannot start with these options: no_such_reporter"),
        ("x", ["--optim", "adamw_bnb_8bit"], "training cannot start with these options: .*bitsandbytes"),
        ("x", ["--lr_scheduler_kwargs", '{"power": 1}'], "training cannot start with these options: .*power"),
    ],
)
def test_what_cannot_be_trained_or_measured_is_one_message(
    data: str, options: list[str], message: str, folder: Path
) -> None:
    for name in "xy":
        (folder / name).mkdir()
        write_lists(folder / name / "lists.jsonl")
    rows = [{"query": f"a{i}", "positive": ["b"], "negative": ["c"] if i == 9 else []} for i in range(10)]
    (folder / "one_class.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        word.format(x=folder / "x", y=folder / "y") if word[0] != "{" or word[2] == "}" else word for word in options
    ]
    fixed = {name.removeprefix("--"): None for name in given if name.startswith("--")}
    path = folder / "x" / "lists.jsonl" if data == "x" else folder / "one_class.jsonl"
    with pytest.raises(ListconError, match=message):
        run(folder, "out", *given, **{"data": path, **fixed})


def test_queries_that_are_trained_on_too_are_told(folder: Path) -> None:
    words = f"--data {folder}/lists.jsonl --eval_data {folder}/lists.jsonl --encoder {folder}/encoder --use_cpu"
    told: list[str] = []
    train(
        parse_arguments(f"{words} --max_length 32 --output_dir {folder}/out --max_steps 1".split()),
        announce=told.append,
    )
    assert [line for line in told if "trained on too" in line] == [
        "12 of 12 queries of lists are trained on too, so its MAP is too favourable"
    ]


def test_a_run_is_continued_with_its_own_data_options_and_files_alone(folder: Path) -> None:
    options: dict[str, Any] = {"eval_data": folder / "lists.jsonl", "save_total_limit": 9, "list_layers": 1}
    trained = run(folder, **options)
    record = (folder / "out" / "arguments.json").read_bytes()
    before = weights(trained.folder)
    other = write_lists(folder / "other.jsonl", seed=1)
    shutil.copy(folder / "lists.jsonl", folder / "moved.jsonl")
    for change, message in (
        ({"data": other}, "the files of --data, --eval_data or --teacher are not those of the run"),
        ({"margin": 0.9}, "--margin is 0.9, and it was 0.25 in the run of .*checkpoint-6: give the same"),
        ({"list_layers": 3}, "--list_layers is 3, and it was 1"),
        ({"eval_data": f"lists={other}"}, "--eval_data is "),
        ({"encoder": None, "list_layers": None, "model": trained.folder}, "--model is .*, and it was None"),
        ({"freeze": "encoder"}, "--freeze is encoder, and it was none"),
        ({"seed": 1}, "--seed is 1, and it was 42"),
        ({"learning_rate": 0.1}, "--learning_rate is 0.1, and it was 0.001"),
        ({"per_device_train_batch_size": 2}, "--per_device_train_batch_size is 2, and it was 4"),
    ):
        with pytest.raises(ListconError, match=message):
            run(folder, resume_from_checkpoint="true", **{**options, **change})
    assert (folder / "out" / "arguments.json").read_bytes() == record
    shutil.rmtree(folder / "out" / "model")
    shutil.rmtree(folder / "out" / "checkpoint-6")
    again = run(folder, resume_from_checkpoint="true", **{**options, "data": folder / "moved.jsonl"})
    assert largest_difference(weights(again.folder), before) == 0

    checkpoint = folder / "out" / "checkpoint-6"
    for name, message in (
        ("model.safetensors", "cannot continue from .*checkpoint-6: cannot read the weights"),
        ("optimizer.pt", "optimizer.pt is damaged, or missing"),
        ("trainer_state.json", "cannot continue from .*checkpoint-6: Expecting"),
        ("../arguments.json", "cannot continue from .*checkpoint-6: Expecting"),
    ):
        whole = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(b"xx")
        with pytest.raises(ListconError, match=message):
            run(folder, resume_from_checkpoint="true", **options)
        (checkpoint / name).write_bytes(whole)
    run(folder, "bare", save_strategy="no")
    with pytest.raises(ListconError, match="bare holds a trained model and no checkpoint"):
        run(folder, "bare", resume_from_checkpoint="true")
    run(folder, "lean", save_only_model=True)
    with pytest.raises(ListconError, match=r"is damaged, or missing \(--save_only_model\)"):
        run(folder, "lean", resume_from_checkpoint="true")


def test_several_held_out_sets_are_named(folder: Path) -> None:
    other = write_lists(folder / "other.jsonl", seed=1)
    run(folder, "out", "--eval_data", str(folder / "lists.jsonl"), f"fresh={other}", num_train_epochs=1)
    (state,) = (folder / "out").glob("checkpoint-*/trainer_state.json")
    (row,) = [row for row in json.loads(state.read_text())["log_history"] if "eval_map" in row]
    assert row["eval_map"] == pytest.approx((row["eval_lists_map"] + row["eval_fresh_map"]) / 2)


def test_a_teacher_changes_what_is_learned(folder: Path) -> None:
    lists = local_task(folder / "lists.jsonl").candidate_lists()
    run_file = folder / "teacher.trec"
    run_file.write_text(
        "".join(
            f"{row.query_id} Q0 {doc_id} 1 {score} t\n" for row in lists for score, doc_id in enumerate(row.doc_ids)
        )
    )
    plain = weights(run(folder, "plain").folder)
    for name, teacher in (("run", str(run_file)), ("similarity", "encoder")):
        assert largest_difference(weights(run(folder, name, teacher=teacher).folder), plain) > 1e-5
    without = run(folder, "weight-0", teacher="encoder", teacher_weight=0)
    assert largest_difference(weights(without.folder), plain) < 1e-6


def test_a_loss_that_is_not_a_number_names_step_rate_and_lists(folder: Path) -> None:
    with pytest.raises(ListconError) as error:
        run(folder, learning_rate=1e30, warmup_steps=0, max_grad_norm=0, num_train_epochs=5)
    expected = r"not a finite number at step [2-9] with learning rate \S+e\+\d+, for 4 of 4 lists: q\d+, q\d+"
    assert re.search(expected, str(error.value))
    assert not (folder / "out" / "model").exists()


def test_gradient_checkpointing_changes_no_weight(folder: Path) -> None:
    plain, saved = (
        weights(run(folder, name, gradient_checkpointing=value).folder)
        for name, value in (("plain", "false"), ("saved", "true"))
    )
    assert largest_difference(plain, saved) < 1e-6


def test_older_versions_of_transformers_can_checkpoint_gradients_too() -> None:
    """They call a method of another name (5.17 does)."""
    config = ListConConfig(BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2), 8, 1, 8)
    model = ListLossModel(ListConModel(config), LossArguments())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=None, every_n_layers=1, offload=False)
    assert model.model.encoder.is_gradient_checkpointing


def test_neighbouring_lists_are_batched_together(folder: Path) -> None:
    """With blocks as large as a batch the batches hold neighbours, so those are each other's negatives."""
    options = {"fill_lists": "batch", "list_size": 20, "own_negatives": 0}
    apart, together = (run(folder, f"out-{size}", block_size=size, **options).folder for size in (1, 4))
    assert largest_difference(weights(apart), weights(together)) > 1e-4


def test_a_run_starts_from_a_checkpoint_of_another(folder: Path) -> None:
    first = run(folder, "stage1", freeze="encoder")
    second = run(folder, "stage2", encoder=None, model=first.folder)
    record = json.loads((folder / "stage2" / "arguments.json").read_text())
    assert record["start"]["model"] == str(first.folder)
    assert record["data_sha256"]
    assert 0 < largest_difference(weights(first.folder), weights(second.folder)) < 0.1


def test_a_folder_with_a_run_is_not_overwritten(folder: Path) -> None:
    run(folder)
    with pytest.raises(ListconError, match="holds a run: continue it with --resume_from_checkpoint true"):
        run(folder)
    run(folder, "other")
    with pytest.raises(ListconError, match="other holds a run: continue it"):
        run(folder, "other", resume_from_checkpoint=folder / "out" / "checkpoint-3")
    branch = run(folder, "branch", resume_from_checkpoint=folder / "out" / "checkpoint-3")
    assert largest_difference(weights(branch.folder), weights(folder / "out" / "model")) == 0


def test_a_batch_has_every_text_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features that lists refer to are those of their texts, in token batches of any size."""
    monkeypatch.setattr(data, "_BATCH_TOKENS", 40)
    checkpoint = load_checkpoint(write_layout_1(folder / "tiny", hidden=32, layers=1, list_width=24, feedforward=32))
    rows = local_task(folder / "lists.jsonl").candidate_lists()
    texts = TextTable()
    indexed = [index_list(row.query_id, row.query, row.passages, texts.index) for row in rows]
    texts.close()
    tokens = TokenisedTexts(texts, checkpoint.tokenizer, 32)
    dataset = ListDataset(training_lists(rows, indexed), size=6, fill="pool", seed=0)
    items = [dataset[EpochItem(0, index, index < 3)] for index in range(5)]
    batch = ListCollator(tokens, dataset)(items)
    used = np.unique(np.concatenate([np.append(row.passages, row.query) for row, _ in items]))
    assert len(batch["tokens"]) > 2
    assert sum(len(part["input_ids"]) for part in batch["tokens"]) == len(used)
    assert batch["counts"].tolist() == [1, 1, 1, 0, 0]
    with torch.no_grad():
        pooled = torch.cat([checkpoint.model.pool(**part) for part in batch["tokens"]])
    for place, (row, _) in enumerate(items):
        expected = encode_texts(checkpoint.model, tokens, np.append(row.query, row.passages), None)
        found = pooled[batch["rows"][place]][batch["valid"][place]]
        assert torch.allclose(found, torch.from_numpy(expected), atol=1e-6)
        assert batch["positive"][place].sum() == row.positives


def test_batches_of_texts_of_different_lengths_have_little_padding(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_layout_1(tmp_path / "tiny", hidden=32, layers=1, list_width=24, feedforward=32))
    texts = TextTable()
    rng = np.random.default_rng(0)
    for place, length in enumerate(rng.integers(1, 500, 700)):
        texts.index("".join(rng.choice(list("甲乙丙丁"), length)) + f"{place}")
    texts.close()
    tokens = TokenisedTexts(texts, checkpoint.tokenizer, 512)
    own, padded, found = 0, 0, []
    for places, batch in tokens.batches(np.arange(len(texts))):
        found += places.tolist()
        size = batch["input_ids"].numel()
        own, padded = own + int(batch["attention_mask"].sum()), padded + size
        lengths = batch["attention_mask"].sum(dim=1)
        assert size <= data._BATCH_TOKENS
        assert size <= data._SMALL_BATCH_TOKENS or lengths.min() >= lengths.max() * 7 / 8 or len(places) == 1
    assert sorted(found) == list(range(len(texts)))
    assert padded < 8 / 7 * own + data._SMALL_BATCH_TOKENS


def test_the_cache_has_files_of_a_similar_amount_of_work_and_tells_of_every_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_CHUNK_CHARACTERS", 100)
    monkeypatch.setattr(data, "_BATCH_TOKENS", 30)
    checkpoint = load_checkpoint(write_layout_1(tmp_path / "tiny", hidden=32, layers=1, list_width=24, feedforward=32))
    texts = TextTable()
    for length in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144):
        for letter in "甲乙丙":
            texts.index(letter * length)
    texts.close()
    tokens = TokenisedTexts(texts, checkpoint.tokenizer, 32)
    cache = PooledCache(tmp_path / "cache", checkpoint.model, tokens)
    told: list[tuple[int, int]] = []
    cache.compute(progress=lambda _, done, total: told.append((done, total)))
    files = sorted((tmp_path / "cache").glob("*.npy"))
    assert len(files) == -(-tokens.work.sum() // 100)
    assert len(told) > 2 * len(files)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {total for _, total in told} == {told[-1][0]} == {tokens.work.sum()}
    every = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_allclose(cache(every), encode_texts(checkpoint.model, tokens, every, None), atol=1e-5)
    before = {path: path.read_bytes() for path in files}
    files[0].unlink()
    told.clear()
    PooledCache(tmp_path / "cache", checkpoint.model, tokens).compute(
        progress=lambda _, done, total: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1] <= 100 + 32
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--data"),
        ("--data x --output_dir o", "give --model or --encoder"),
        ("--data x --encoder e --model m --output_dir o", "give --model or --encoder"),
        ("--data x --encoder e", "--output_dir is missing"),
        ("--data x --encoder e --output_dir o --margn 1", "unrecognized arguments: --margn 1|not used.*--margn"),
        ("--data x --encoder e --output_dir o --learning_rate fast", "invalid float value: 'fast'"),
        ("--data x --encoder e --output_dir o --margin 2", "--margin is 2.0: expected from 0 to 1"),
        ("--data x --encoder e --output_dir o --list_size 1", "--list_size is 1: expected 2 or more"),
        (
            "--data x --encoder e --output_dir o --freeze encoder --freeze_layers 2",
            "--freeze encoder freezes the whole",
        ),
        ("--data x --encoder e --output_dir o --own_negatives 0", "--own_negatives 0 leaves no negatives"),
        ("--data x --encoder e --output_dir o --freeze all", "invalid choice: 'all'"),
        ("--data x --encoder e --output_dir o --eval_split 0 --eval_strategy epoch", "no held-out lists"),
        (
            "--data x --encoder e --output_dir o --save_strategy steps --save_steps 3",
            "--load_best_model_at_end requires",
        ),
    ],
)
def test_a_mistake_in_the_options_is_one_message(words: str, message: str) -> None:
    with pytest.raises(ListconError) as error:
        parse_arguments(words.split())
    assert re.search(message, str(error.value))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--list_width -8", "expected 1 or more"),
        ("--block_size 0", "expected 1 or more"),
        ("--block_size 4 --eval_split 0.1 --per_device_train_batch_size 4", "give --eval_split 0, or --eval_data"),
        ("--block_size 3 --eval_split 0 --per_device_train_batch_size 4", "expected a number that divides"),
        ("--bf16_full_eval", "expected False: it has no effect here"),
        ("--encoder_dropout 1", "expected from 0 to below 1"),
        ("--encoder_dropout 0 --freeze encoder", "without effect without --freeze none"),
        ("--feedforward_width 0", "expected 1 or more"),
        ("--scale inf", "expected a finite number"),
        ("--margin nan", "expected a finite number"),
        ("--weight_decay nan", "expected a finite number"),
        ("--learning_rate -1", "expected 0 or more"),
        ("--per_device_train_batch_size 0", "expected 1 or more"),
        ("--gradient_accumulation_steps 0", "expected 1 or more"),
        ("--num_train_epochs 0", "expected above 0"),
        ("--max_steps 0", "expected 1 or more, or -1"),
        ("--seed -1", "expected from 0 to below 2^32"),
        ("--metric_for_best_model loss", "expected map"),
        ("--greater_is_better false", "expected true"),
        ("--label_smoothing_factor 0.1", "cannot be used here"),
        ("--neftune_noise_alpha 5", "cannot be used here"),
        ("--fsdp full_shard", "cannot be used here"),
        ("--data_seed 1", "expected None: it has no effect here"),
        ("--per_device_eval_batch_size 4", "expected 8: it has no effect here"),
        ("--train_sampling_strategy sequential", "expected random: it has no effect here"),
        ("--data y", "given 2 times: give it once"),
        ("--eval_data a --eval-data=b", "given 2 times: give it once"),
        ("--learning_rate 1 --learning-rate=1", "given 2 times: give it once"),
    ],
)
def test_a_value_without_a_meaning_is_refused_by_its_option(words: str, message: str) -> None:
    with pytest.raises(ListconError) as error:
        parse_arguments(f"--data x --encoder e --output_dir o --use_cpu {words}".split())
    assert str(error.value).startswith(words.split()[0])
    assert message in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes both")
def test_a_cpu_has_to_be_asked_for_by_the_options_name() -> None:
    words = ["--data", "x", "--encoder", "e", "--output_dir", "o", "--bf16"]
    with pytest.raises(ListconError, match=r"doesn't support bf16/gpu.* assign --use_cpu if"):
        parse_arguments(words)
    assert parse_arguments([*words, "--use_cpu"]).training.use_cpu
