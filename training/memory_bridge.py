"""The bridge without a network: a picture is said in the words of the training pictures like it.

Shapes: B batch, N training pictures, M names, P patches, C channels, F = P C, W principal
components, K visual tokens, V words, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpm_eval.errors import UserError


@dataclass(frozen=True)
class MemoryConfig:
    """Size of the bridge that remembers its training pictures."""

    kind: str = "memory"
    num_tokens: int = 8  # visual tokens per picture; longer names are cut
    width: int = 384  # principal components of a picture's features that are compared
    sharpness: float = 60.0  # times the cosine; at 20 the weights are probabilities, and a blur
    num_patches: int = 16  # set by the eye
    num_pictures: int = 0  # set by the training data, as is the next
    num_names: int = 0

    def check(self) -> None:
        """Raise UserError for a size that cannot be."""
        if not 1 <= self.width < self.num_pictures:
            raise UserError(
                f"bridge.width: must be at least 1 and below the number of training pictures "
                f"({self.num_pictures}), got {self.width}"
            )


class MemoryBridge(nn.Module):
    """Visual tokens are the words of remembered names, weighted by how like their pictures are.

    A picture is compared by the cosine of whitened principal components of its features, in which
    each patch counts by its place. Nothing is learned by steps: to weight the components by how
    well they find the other drawings of a concept helps for a few steps and then hurts
    (training/LOG.md). The language model reads names as it reads text, so what it can say of a
    name in another language it can say of a picture.
    """

    mean_C: Tensor
    centre_F: Tensor
    component_FW: Tensor
    deviation_W: Tensor
    key_NW: Tensor
    owner_N: Tensor
    name_MK: Tensor

    def __init__(self, config: MemoryConfig, vision_dim: int):
        super().__init__()
        self.config = config
        features, n = config.num_patches * vision_dim, config.num_pictures
        self.register_buffer("mean_C", torch.zeros(vision_dim))
        self.register_buffer("centre_F", torch.zeros(features))
        self.register_buffer("component_FW", torch.zeros(features, config.width))
        self.register_buffer("deviation_W", torch.ones(config.width))
        self.register_buffer("key_NW", torch.zeros(n, config.width))
        self.register_buffer("owner_N", torch.zeros(n, dtype=torch.long))
        self.register_buffer(
            "name_MK", torch.zeros(config.num_names, config.num_tokens, dtype=torch.long)
        )

    def fit_features(self, z_NPC: Tensor) -> None:
        """A memory is fitted by `remember`, which knows the names too."""

    def remember(self, z_NPC: Tensor, owner_N: Tensor, name_MK: Tensor) -> None:
        """Keep training pictures, the row of each one's name, and the words of the names."""
        self.mean_C.copy_(z_NPC.float().flatten(0, 1).mean(0))
        x_NF = self._unit(z_NPC)
        self.centre_F.copy_(x_NF.mean(0))
        x_NF = x_NF - self.centre_F
        # Of more features than pictures, through the matrix of products between pictures.
        value_N, vector_NN = torch.linalg.eigh(x_NF @ x_NF.T)
        value_W, vector_NW = value_N[-self.config.width :], vector_NN[:, -self.config.width :]
        self.component_FW.copy_(F.normalize(x_NF.T @ vector_NW, dim=0))
        deviation_W = (value_W / len(x_NF)).clamp_min(0).sqrt()
        # What hardly varies is noise, and a checkpoint keeps half precision.
        self.deviation_W.copy_(deviation_W.clamp_min(max(0.01 * float(deviation_W[-1]), 1e-6)))
        self.key_NW.copy_(F.normalize(self.coordinates(z_NPC), dim=-1))
        self.owner_N.copy_(owner_N)
        self.name_MK.copy_(name_MK)

    def _unit(self, z_BPC: Tensor) -> Tensor:
        return F.normalize((z_BPC.float() - self.mean_C).flatten(1), dim=-1)

    def coordinates(self, z_BPC: Tensor) -> Tensor:
        """Return c_BW, of variance 1 over the training pictures: what is compared.

        On the validation style no power of the deviation from 0.6 to 1 did worse, 0 did.
        """
        return (self._unit(z_BPC) - self.centre_F) @ self.component_FW / self.deviation_W

    def weights(self, z_BPC: Tensor) -> Tensor:
        """Return w_BM: how much of each remembered name a picture is, adding up to 1."""
        like_BN = F.normalize(self.coordinates(z_BPC), dim=-1) @ self.key_NW.T
        weight_BN = (self.config.sharpness * like_BN).softmax(-1)
        weight_BM = weight_BN.new_zeros(len(weight_BN), len(self.name_MK))
        return weight_BM.index_add(1, self.owner_N, weight_BN)

    @property
    def words(self) -> Tensor:
        """Return the words of all names, one name after the other."""
        return self.name_MK.flatten()

    def forward(self, z_BPC: Tensor, words_VD: Tensor) -> Tensor:
        """Return visual tokens v_BKD for features z_BPC and the vectors of `words`."""
        weight_BM = self.weights(z_BPC)
        words_MKD = words_VD.unflatten(0, self.name_MK.shape)
        return torch.einsum("bm,mkd->bkd", weight_BM.to(words_MKD.dtype), words_MKD)
