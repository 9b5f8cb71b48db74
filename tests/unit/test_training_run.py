"""Training runs of a few seconds: what each stage trains, that it learns, how it starts, stops and goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel

from checkpoints import bert_tokenizer, random_model, write_layout_1, write_layout_2
from lessons import write_lessons, write_tiny_encoder
from listcon_eval import ListConRanker
from listcon_eval.data import local_task
from listcon_eval.errors import ListconError
from listcon_eval.model import load_checkpoint
from listcon_eval.train import Outcome, Settings, plot, train
from listcon_eval.train.lists import training_data
from listcon_eval.train.log import read_log
from listcon_eval.train.start import start_from
from listcon_eval.train.words import Places, WordBags


@pytest.fixture
def lessons(tmp_path: Path) -> Path:
    return write_lessons(tmp_path / "lessons.jsonl")


def settings(lessons: Path, **changes: Any) -> Settings:  # noqa: ANN401 - any setting's value
    """A short run from scratch on the CPU."""
    folder = lessons.parent
    values: dict[str, Any] = {
        "data": lessons,
        "output": folder / "out",
        "encoder_config": write_tiny_encoder(folder / "tiny.json"),
        "minimum_count": 1,
        "eval_split": 0.0,
        "contrastive_epochs": 0,
        "stage_1_epochs": 1,
        "stage_1_batch": 12,
        "stage_2_epochs": 0,
        "stage_2_batch": 4,
        "micro_batch": 4,
        "max_length": 32,
        "device": "cpu",
    }
    if changes.keys() & {"model", "encoder"}:
        del values["encoder_config"]
    return Settings(**{**values, **changes})


def run(given: Settings) -> Outcome:
    return train(given)


def beginning(given: Settings) -> dict[str, torch.Tensor]:
    """The weights that a run starts from."""
    return start_from(given, training_data(local_task(given.data).candidate_lists()).texts).model.state_dict()


def changed(given: Settings) -> tuple[set[str], set[str]]:
    """The names of the weights that a run changes, and of those it leaves bit-identical."""
    before = beginning(given)
    after = load_checkpoint(run(given).last).model.state_dict()
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    return set(before) - same, same


def test_a_tiny_set_is_learnt_by_heart(lessons: Path) -> None:
    """From random weights: new ones begin as a search by words, which ranks these lists right before it has learnt."""
    folder = write_layout_1(lessons.parent / "start", hidden=32, layers=1, list_width=24, feedforward=32)
    given = settings(
        lessons,
        model=str(folder),
        contrastive_epochs=10,
        contrastive_batch=12,
        contrastive_learning_rate=1e-2,
        stage_1_epochs=3,
        stage_1_learning_rate=1e-2,
        stage_2_epochs=20,
        stage_2_learning_rate=3e-3,
    )
    outcome = train(given, [local_task(lessons)])
    lines = [line for line in read_log(outcome.log) if line["event"] == "evaluation"]
    lists = [line["mean_map"] for line in lines if line["ranked_by"] == "lists"]
    assert lists[0] < 0.99
    assert lists[-1] == outcome.best_map == 1
    assert outcome.best is not None
    ranker = ListConRanker.from_pretrained(outcome.best, device="cpu", max_length=64)
    for row in local_task(lessons).candidate_lists():
        scores = ranker.compute_score([[row.query, *row.passages]])[0]
        positives = [score for score, label in zip(scores, row.relevance, strict=True) if label]
        negatives = [score for score, label in zip(scores, row.relevance, strict=True) if not label]
        assert min(positives) > max(negatives)


def test_stage_0_trains_encoder_and_projection_alone(lessons: Path) -> None:
    trained, _ = changed(settings(lessons, contrastive_epochs=2, contrastive_batch=6, stage_1_epochs=0))
    assert all(name.startswith(("encoder.", "linear_in_embedding.")) for name in trained)
    assert {"encoder.encoder.layer.0.attention.self.query.weight", "linear_in_embedding.weight"} <= trained


def matching(lessons: Path, **changes: Any) -> Settings:  # noqa: ANN401 - any setting's value
    """A short run from a new encoder that begins by matching words."""
    config = lessons.parent / "matching.json"
    sizes = {"hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config.write_text(json.dumps(sizes), encoding="utf-8")
    given = {"encoder_config": config, "meaning_width": 16, "weight_decay": 0.0, "temperature": 0.03}
    return settings(lessons, **{**given, "contrastive_epochs": 2, "stage_1_epochs": 0, **changes})


def test_beside_matched_words_stage_0_trains_what_words_mean_and_how_much_they_count(lessons: Path) -> None:
    given = matching(lessons, pseudo_queries=1.0, token_dropout=0.2, hard_negatives=1)
    table = "encoder.embeddings.word_embeddings.weight"
    trained, _ = changed(given)
    assert trained == {table}
    before = beginning(given)[table]
    after = load_checkpoint(given.output / "last").model.state_dict()[table]
    places = Places.of(256, 2, 16)
    for same in (places.code, places.cls, places.sep, places.meaning):
        assert torch.equal(before[:, same], after[:, same])
    assert not torch.equal(before[:, places.word_meaning], after[:, places.word_meaning])
    torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1))
    counted = before[:, places.words].norm(dim=1) > 0
    words, learnt = before[counted, places.words], after[counted, places.words]
    along = torch.cosine_similarity(words, learnt)
    torch.testing.assert_close(along, torch.ones_like(along))
    by = learnt.norm(dim=1) / words.norm(dim=1)
    assert by.min() < 0.999
    assert by.max() > 1.001


def test_a_run_that_matches_words_goes_on_where_it_was_left(lessons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = {"contrastive_batch": 5, "save_every": 2}  # three steps an epoch
    whole = load_checkpoint(run(matching(lessons, **some)).last).model.state_dict()
    torn = matching(lessons, output=lessons.parent / "torn", **some)
    absorb, steps = WordBags.absorb, []

    def interrupted(bags: WordBags) -> None:
        steps.append(bags)
        if len(steps) == 4:
            raise KeyboardInterrupt
        absorb(bags)

    monkeypatch.setattr(WordBags, "absorb", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(torn)
    again = load_checkpoint(run(matching(lessons, output=torn.output, **some, resume=True)).last).model.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_run_that_matches_words_keeps_its_best_checkpoint_from_stage_0_on(lessons: Path) -> None:
    outcome = train(matching(lessons), [local_task(lessons)])
    lines = [line for line in read_log(outcome.log) if line["event"] == "evaluation"]
    assert [line["ranked_by"] for line in lines] == ["lists", "lists"]
    assert outcome.best is not None
    assert outcome.best_map == max(line["mean_map"] for line in lines) > 0.9


def test_stage_1_leaves_every_encoder_weight_bit_identical(lessons: Path) -> None:
    trained, same = changed(settings(lessons, stage_1_epochs=3))
    assert same == {name for name in trained | same if name.startswith("encoder.")}


def test_stage_2_trains_everything(lessons: Path) -> None:
    trained, same = changed(settings(lessons, stage_1_epochs=0, stage_2_epochs=2))
    # A key's bias shifts all of a row's attention alike: only rounding moves it, if anything.
    assert {name for name in same if not name.endswith("key.bias")} == set()
    assert len(trained) > len(same)


def test_equal_runs_are_equal_and_other_seeds_differ(lessons: Path) -> None:
    def weights(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
        given = settings(lessons, output=lessons.parent / name, stage_2_epochs=1, seed=seed)
        return load_checkpoint(run(given).last).model.state_dict()

    one, again, other = weights("one"), weights("again"), weights("other", seed=1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_gradient_checkpointing_changes_no_weight(lessons: Path) -> None:
    kept, recomputed = (
        load_checkpoint(
            run(
                settings(
                    lessons,
                    output=lessons.parent / str(wanted),
                    stage_1_epochs=0,
                    stage_2_epochs=2,
                    gradient_checkpointing=wanted,
                )
            ).last
        ).model.state_dict()
        for wanted in (False, True)
    )
    for name, value in kept.items():
        torch.testing.assert_close(value, recomputed[name], rtol=1e-4, atol=1e-6)


def test_the_log_says_what_happened(lessons: Path) -> None:
    outcome = run(settings(lessons, eval_split=0.2, stage_1_batch=5, stage_1_epochs=2))
    lines = read_log(outcome.log)
    steps = [line for line in lines if line["event"] == "step"]
    assert [(line["step"], line["epoch"]) for line in steps] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    for line in steps:
        assert line.keys() == {
            "event",
            "step",
            "stage",
            "epoch",
            "stage_step",
            "stage_steps",
            "learning_rate",
            "loss",
            "grad_norm",
            "lists_per_second",
        }
        assert line["stage"] == 1
        assert line["loss"] > 0
        assert line["grad_norm"] > 0
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    assert [line["map"].keys() for line in evaluations] == [{"set aside"}] * 2
    assert outcome.best_map == max(line["mean_map"] for line in evaluations)
    counts = json.loads((lessons.parent / "out" / "run.json").read_text(encoding="utf-8"))["counts"]
    assert counts == {"lists": 10, "set_aside": 2, "one_class": 0, "oversize": 0}


def test_a_loss_that_is_no_number_names_step_rate_and_lists(lessons: Path) -> None:
    given = settings(lessons, stage_1_learning_rate=1e37, stage_1_epochs=5, stage_1_batch=6, warm_up=0.0)
    with pytest.raises(ListconError) as caught:
        run(given)
    message = str(caught.value)
    assert "is not a number at stage 1, step 2 of 10, learning rate 9e+36" in message
    assert "of 6 lists: q" in message
    assert not (given.output / "last").exists()
    steps = [line for line in read_log(given.output / "log.jsonl") if line["event"] == "step"]
    assert len(steps) == 1


def test_without_matplotlib_there_is_a_message_and_no_plot(lessons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    said: list[str] = []
    outcome = train(settings(lessons), announce=said.append)
    assert outcome.plot is None
    assert "listcon-eval[train]" in said[0]


def test_with_matplotlib_there_is_a_plot(lessons: Path) -> None:
    outcome = run(settings(lessons, eval_split=0.2))
    assert outcome.plot is not None
    assert outcome.plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("layout", [1, 2])
def test_a_run_starts_from_a_checkpoint(lessons: Path, layout: int) -> None:
    write = write_layout_1 if layout == 1 else write_layout_2
    folder = write(lessons.parent / "start", hidden=32, layers=1, list_width=24, feedforward=32)
    given = settings(lessons, model=str(folder), list_dropout=0.3)
    start = start_from(given, [])
    first = load_checkpoint(folder).model.state_dict()
    assert all(torch.equal(value, first[name]) for name, value in start.model.state_dict().items())
    assert start.model.config.list_dropout == 0.3
    run(given)
    with pytest.raises(ListconError, match="list_width given with a checkpoint"):
        settings(lessons, model=str(folder), list_width=64)


@pytest.mark.parametrize("pooler", [True, False])
def test_a_run_starts_from_an_encoder(lessons: Path, *, pooler: bool) -> None:
    tokenizer = bert_tokenizer()
    random = random_model(vocab_size=len(tokenizer), hidden=32, layers=1, list_width=24, feedforward=32)
    encoder = BertModel(random.config.encoder, add_pooling_layer=pooler)
    folder = lessons.parent / "encoder"
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    start = start_from(settings(lessons, encoder=str(folder)), [])
    held = start.model.encoder.state_dict()
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in held.items())
    assert (start.model.config.list_width, start.model.config.feedforward_width) == (56, 64)
    assert start_from(settings(lessons, encoder=str(folder), list_width=20), []).model.config.list_width == 20
    with pytest.raises(ListconError, match="list width 21 is not a multiple"):
        start_from(settings(lessons, encoder=str(folder), list_width=21), [])
    with pytest.raises(ListconError, match="this encoder takes at most 512"):
        start_from(settings(lessons, encoder=str(folder), max_length=513), [])
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"bert"', '"roberta"'))
    with pytest.raises(ListconError, match="is a 'roberta' model"):
        start_from(settings(lessons, encoder=str(folder)), [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ('{"hidden_size": 32}', "no whole number above 0 for num_hidden_layers"),
        (
            '{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 8}',
            "hidden_size 32 is not a multiple of the 3 attention heads",
        ),
    ],
)
def test_a_broken_encoder_configuration_is_one_clear_error(lessons: Path, content: str, message: str) -> None:
    path = lessons.parent / "broken.json"
    path.write_text(content)
    with pytest.raises(ListconError, match=message):
        run(settings(lessons, encoder_config=path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "a", "encoder": "b"}, "2 starting points were given"),
        ({"encoder_config": None}, "0 starting points were given"),
        ({"list_size": 1}, "list_size is 1: give 2 or more"),
        ({"scale": 0.0}, "scale is 0.0: give a number above 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"margin": 1.0}, "margin is 1.0"),
        ({"stage_1_batch": 0}, "stage_1_batch is 0"),
        ({"stage_1_epochs": 0}, "every stage has 0 epochs"),
        ({"autocast": "int8"}, "no autocast 'int8'"),
        ({"revision": "main"}, "belongs to a hub id"),
        ({"meaning_width": 0}, "meaning_width is 0: give 1 or more"),
        ({"model": "a", "meaning_width": 8}, "meaning_width is 8: it is for a new encoder"),
        ({"list_width": 64, "meaning_width": 8}, "decides the list transformer's width and layers"),
        ({"encoder": "a", "vocabulary_size": 100}, "vocabulary_size is 100, but this starting point has its own"),
        ({"token_dropout": 1.0}, "token_dropout is 1.0"),
        ({"pseudo_queries": -1.0}, "pseudo_queries is -1.0"),
    ],
)
def test_a_value_without_a_meaning_is_an_error(lessons: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ListconError, match=message):
        settings(lessons, **changes)


def test_autocast_is_for_accelerators(lessons: Path) -> None:
    with pytest.raises(ListconError, match="autocast bf16 was asked for on the CPU"):
        run(settings(lessons, autocast="bf16"))


def test_a_folder_with_a_run_is_not_overwritten(lessons: Path) -> None:
    given = settings(lessons, stage_2_epochs=1)
    outcome = run(given)
    with pytest.raises(ListconError, match="holds a run: go on with it by --resume"):
        run(given)
    assert run(settings(lessons, stage_2_epochs=1, resume=True)) == outcome  # there is nothing left to do
    with pytest.raises(ListconError, match=r"state of another run.*\n  scale: 32.0 there, 16.0 here"):
        run(settings(lessons, stage_2_epochs=1, resume=True, scale=16.0))
    (given.output / "state.pt").write_bytes(b"cut")
    with pytest.raises(ListconError, match="cannot read the saved state"):
        run(settings(lessons, stage_2_epochs=1, resume=True))
