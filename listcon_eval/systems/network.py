"""What kinds that run a network of their own have in common: files, device, number format, batches."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import nn

from listcon_eval.files import sha256_of_folder
from listcon_eval.inference.budgets import Budgets
from listcon_eval.inference.devices import choose_device
from listcon_eval.systems.batches import WEIGHT_FILES, Batches, network_dtype
from listcon_eval.systems.detection import Found
from listcon_eval.systems.naming import name_of_model, revision_of_model
from listcon_eval.systems.system import Options, System


class NetworkSystem(System):
    """A network loaded from a model's files.

    Attributes:
        model: the network, on its device and in its number format.
        max_length: tokens a text, or a pair of them, is cut to; None where the model knows no bound.
    """

    packages = ("torch", "transformers", "sentence-transformers")
    model_type: ClassVar[str]
    frameworks: ClassVar[tuple[str, ...]]

    max_length: int | None

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__()
        self._source = source = found.folder_of_model()
        self._device = choose_device(options.device)
        with self.phases.measured("load"):
            self._weights_sha256 = sha256_of_folder(source.folder, WEIGHT_FILES)
            self.model = self._network(found, options)
            self.model.to(self._device, network_dtype(self._device, options.precision)).eval()
        self.name = name_of_model(source)
        self.revision = revision_of_model(source, self._weights_sha256)
        self.precision = options.precision
        self.device = str(self._device)
        self._budgets = Budgets.for_device(self._device)
        self._batches = Batches(self._device, self._budgets.tokens)

    @classmethod
    def load(cls, found: Found, options: Options) -> Self:
        """Load the model that was found."""
        return cls(found, options)

    @abstractmethod
    def _network(self, found: Found, options: Options) -> nn.Module:
        """Load what was found, set `max_length`, and return the network.

        Raises:
            ListconError: when it cannot be loaded.
        """

    def settings(self) -> Mapping[str, Any]:
        """Tokens a text is cut to."""
        return {"max_length": self.max_length}

    def key(self) -> Mapping[str, Any]:
        """Weights (prompts are files of the model, too), length and device."""
        return {"weights": self._weights_sha256, "max_length": self.max_length, "device": self._device.type}

    def provenance(self) -> Mapping[str, Any]:
        """The model's files, and what its kind says of them."""
        return {
            "model": {
                "location": str(self._source.folder),
                "weights_sha256": self._weights_sha256,
                **self._told(),
            },
            "weights_dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
        }

    @abstractmethod
    def _told(self) -> Mapping[str, Any]:
        """What provenance says of how the kind uses the model."""

    def facts(self) -> Mapping[str, Any]:
        """Its size."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {
            "n_parameters": parameters,
            "memory_usage_mb": round(parameters * 4 / 2**20, 1),
            "max_tokens": self.max_length,
            "framework": list(self.frameworks),
            "model_type": [self.model_type],
        }
