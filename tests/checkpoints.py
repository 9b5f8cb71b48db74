"""Random checkpoints of the real architecture in the real layouts: `python tests/checkpoints.py FOLDER` writes one.

With `--gate` it writes the checkpoint that the regression gate runs on.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import BertConfig, PreTrainedTokenizerFast

from listcon_eval.model import ListConConfig, ListConModel, save_checkpoint
from listcon_eval.speed.random_model import wordpiece_tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# The common Chinese characters of Unicode's basic block by frequency would need a list; every second one will do here.
CHARACTERS = (
    [chr(code) for code in range(0x4E00, 0x9FA6, 2)]
    + [chr(code) for code in range(0x21, 0x7F) if chr(code) == chr(code).lower()]
    + [f"##{chr(code)}" for code in range(0x61, 0x7B)]
    + list("，。？！、：；“”（）《》0123456789")
)


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """A BERT WordPiece tokenizer (one token a Chinese character) as BERT-Chinese has it, over a small vocabulary."""
    return wordpiece_tokenizer(list(dict.fromkeys([*SPECIAL, *CHARACTERS])))


def random_model(
    *,
    vocab_size: int,
    seed: int = 0,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    list_width: int = 96,
    list_layers: int = 2,
    feedforward: int = 128,
) -> ListConModel:
    """A random model whose scores are spread out: weights larger than a fresh BERT's, so that texts differ."""
    torch.manual_seed(seed)
    encoder = BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=512,
        initializer_range=0.2 if hidden < 512 else 0.02,
    )
    model = ListConModel(ListConConfig(encoder, list_width, list_layers, feedforward))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("encoder."):
                continue
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif parameter.dim() > 1:
                parameter.normal_(0, 1.5 / parameter.shape[1] ** 0.5)
    return model.eval()


def write_layout_1(folder: Path, **sizes: int) -> Path:
    """Write a random checkpoint in layout 1 and return its folder."""
    tokenizer = bert_tokenizer()
    return save_checkpoint(random_model(vocab_size=len(tokenizer), **sizes), tokenizer, folder)


def write_layout_2(folder: Path, *, encoder_prefix: str = "hf_model.", list_prefix: str = "", **sizes: int) -> Path:
    """Write the checkpoint that `write_layout_1` writes for the same sizes in layout 2."""
    tokenizer = bert_tokenizer()
    model = random_model(vocab_size=len(tokenizer), **sizes)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.config.encoder.save_pretrained(folder)
    tensors = {}
    for key, value in model.state_dict().items():
        if key.startswith("encoder."):
            tensors[encoder_prefix + key.removeprefix("encoder.")] = value
        elif key.startswith("linear_in_embedding."):
            tensors[key] = value
        else:
            tensors[list_prefix + key] = value
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors")
    return folder


def gate_model() -> ListConModel:
    """A model whose numbers move when ranking breaks: it scores what query and passage have in common.

    Features are random projections of a text's characters, centred on the mini benchmark. A hidden unit of the score
    head is active where a feature is large in both query and passage, in the texts themselves and after the list
    transformer alike; a passage without any such feature has exactly the score of every other one without. So the
    query's row, its tag, padding and ties all decide about ranks, as they do not in `random_model`.
    """
    from listcon_eval.data import mini_task

    tokenizer = bert_tokenizer()
    model = random_model(vocab_size=len(tokenizer))
    generator = torch.Generator().manual_seed(4)
    width = model.config.list_width
    lists = mini_task("MiniSearch").candidate_lists()
    texts = [text for row in lists for text in (row.query, *row.passages[:6])]
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.02, generator=generator)
        tables: Any = model.encoder.embeddings
        tables.word_embeddings.weight.normal_(0, 1, generator=generator)
        model.linear_in_embedding.weight.normal_(0, 0.35, generator=generator)
        model.linear_in_embedding.bias.zero_()
        model.query_embedding.query_embedding.weight.normal_(0, 1, generator=generator)
        signs = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1.0
        for linear in (model.linear_score2, model.linear_score3):
            linear.weight.copy_(torch.cat([torch.diag(signs)] * 2, dim=1))
            linear.bias.fill_(-4.5)
        model.linear_score1.weight.copy_(torch.tensor([[0.5] * width + [1.0] * width]))
        model.linear_score1.bias.fill_(-3.0)
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        features = model.features(batch["input_ids"], batch["attention_mask"])
        centre = features.mean(dim=0)
        scale = 1 / (features - centre).std()
        model.linear_in_embedding.weight.mul_(scale)
        model.linear_in_embedding.bias.copy_(-centre * scale)
    return model


def write_gate_checkpoint(folder: Path) -> Path:
    """Write the gate's checkpoint in layout 1 and return its folder."""
    return save_checkpoint(gate_model(), bert_tokenizer(), folder)


if __name__ == "__main__":
    write = write_gate_checkpoint if "--gate" in sys.argv else write_layout_1
    sys.stdout.write(f"{write(Path(sys.argv[1]))}\n")
