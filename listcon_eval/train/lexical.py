"""How new weights begin: as a search by words, which training then improves.

Fresh random weights know nothing, and lists are few: what they would have to learn first is that texts with rare words
in common belong together. Here they begin there. Word embeddings are random directions, as long as the word is rare
(TF-IDF in a random projection: "Random projection in dimensionality reduction", Bingham and Mannila 2001); the layers
of both transformers begin as the identity ("Fixup Initialization", arXiv 1901.09321, starts residual branches at zero
too); and the score falls with the distance between query and passage.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from listcon_eval.model import ListConModel

_POSITIONS = 0.002  # of embeddings: small beside the words, large enough to learn from
_STEEPNESS = 40.0  # of the logit in the mean distance
# The mean over coordinates of relu(q - p), for two normalised vectors of which normal numbers are a fair picture:
# sqrt((1 - r) / pi), r their correlation. The logit is 0 at r = 1/4, which few texts that do not belong together reach.
_MIDDLE = math.sqrt(0.75 / math.pi)


@torch.no_grad()
def start_encoder(model: ListConModel, documents: NDArray[np.int64], texts: int) -> None:
    """Let the encoder and the projection begin as TF-IDF vectors of the text.

    An embedding is normalised before it is used, so a frequent word is no shorter than a rare one: it is mostly along
    one direction that all words share, and the projection takes that direction away.

    Args:
        model: a model of new weights.
        documents: in how many texts each token of the vocabulary occurs, (V,).
        texts: how many texts there are.
    """
    encoder: Any = model.encoder  # whose attributes torch annotates as tensors or modules
    tables = encoder.embeddings
    rarity = torch.from_numpy(np.log((texts + 1) / (documents + 0.5)) / math.log(2 * (texts + 1))).float()[:, None]
    words = functional.normalize(torch.randn_like(tables.word_embeddings.weight), dim=1)  # (V, H)
    shared = functional.normalize(torch.randn(words.shape[1]), dim=0)  # (H,)
    width = math.sqrt(words.shape[1])
    tables.word_embeddings.weight.copy_(
        model.config.encoder.initializer_range * width * (rarity * words + (1 - rarity.square()).sqrt() * shared)
    )
    tables.position_embeddings.weight.normal_(0, _POSITIONS)
    tables.token_type_embeddings.weight.zero_()
    for layer in encoder.encoder.layer:
        for output in (layer.attention.output.dense, layer.output.dense):
            output.weight.zero_()
            output.bias.zero_()
    projection = model.linear_in_embedding
    nn.init.orthogonal_(projection.weight)
    projection.weight.sub_(torch.outer(projection.weight @ shared, shared))
    projection.bias.zero_()


@torch.no_grad()
def start_lists(model: ListConModel) -> None:
    """Let the list transformer begin as the identity, and the score head with the distance of query and passage.

    The logit is `steepness * (middle - mean over coordinates of relu(y_q - y_i))`; both vectors are normalised, so that
    mean is half of their mean absolute difference. The head's other half (the features before the list transformer)
    begins with no say.
    """
    model.query_embedding.query_embedding.weight.zero_()
    for layer in model.list_transformer.layers:
        parts: Any = layer
        for output in (parts.self_attn.out_proj, parts.linear2):
            output.weight.zero_()
            output.bias.zero_()
    width = model.config.list_width
    same = torch.eye(width)
    model.linear_score3.weight.copy_(torch.cat([same, -same], dim=1))
    model.linear_score3.bias.zero_()
    weights: Tensor = torch.zeros(1, 2 * width)
    weights[0, width:] = -_STEEPNESS / width
    model.linear_score1.weight.copy_(weights)
    model.linear_score1.bias.fill_(_STEEPNESS * _MIDDLE)
