"""The loss of affinities: high affinity for neighbours of one label, low affinity for neighbours of two labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ppl.errors import PPLValueError
from ppl.refine.affinity.labels import UNSURE
from ppl.refine.stencil import half_plane_offsets

__all__ = ["affinity_loss", "pair_masks"]

_TINY = 1e-5


def pair_masks(labels: torch.Tensor, radius: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return which pairs of neighbours are both background, both of one class, or of two labels.

    Args:
        labels: `(B, h, w)` integers, 0 background, 255 unsure; a pair with an unsure cell belongs to none of the masks.
        radius: cells nearer than this are neighbours.

    Returns:
        Three boolean `(B, D, h, w)` with the layout of `ppl.refine.stencil.edge_affinity`.

    Example:
        >>> background, same, different = pair_masks(torch.tensor([[[0, 0, 3, 255]]]), radius=2)
        >>> [int(mask.sum()) for mask in (background, same, different)]
        [1, 0, 1]
    """
    h, w = labels.shape[-2:]
    reach = radius - 1
    padded = F.pad(labels, (reach, reach, reach, reach), value=UNSURE)
    others = torch.stack(
        [padded[:, reach + dy : reach + dy + h, reach + dx : reach + dx + w] for dy, dx in half_plane_offsets(radius)],
        dim=1,
    )
    here = labels[:, None]
    valid = (here != UNSURE) & (others != UNSURE)
    same = valid & (here == others)
    return same & (here == 0), same & (here > 0), valid & (here != others)


def affinity_loss(affinity: torch.Tensor, labels: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the cross-entropy of affinities; background pairs, class pairs and unlike pairs weigh 1/4, 1/4 and 1/2.

    Source: PSA (Ahn and Kwak, CVPR 2018), equation 7; IRN (Ahn et al., CVPR 2019), equation 6, has the same weights.

    Args:
        affinity: `(B, D, h, w)` in [0, 1], of `edge_affinity` or `feature_affinity` with the same radius.
        labels: `(B, h, w)` integers, 0 background, 255 unsure.
        radius: cells nearer than this are neighbours.

    Returns:
        A scalar. A kind of pairs that does not occur adds 0.

    Raises:
        PPLValueError: if the shapes do not fit together.

    Example:
        >>> from ppl.refine.stencil import edge_affinity
        >>> labels = torch.tensor([[[0, 0, 2, 2]]])
        >>> right, wrong = torch.tensor([[[0.0, 0.0, 1.0, 0.0]]]), torch.zeros(1, 1, 4)
        >>> loss = [affinity_loss(edge_affinity(edges, 2), labels, 2) for edges in (right, wrong)]
        >>> bool(loss[0] < loss[1])
        True
    """
    expected = (labels.shape[0], len(half_plane_offsets(radius)), *labels.shape[1:])
    if tuple(affinity.shape) != expected:
        raise PPLValueError(
            f"affinity must be {expected} for these labels and radius {radius}: {tuple(affinity.shape)}"
        )
    background, same, different = pair_masks(labels, radius)
    # a pair belongs to one kind at most, so a single logarithm serves all kinds
    right = torch.where(different, 1.0 - affinity, affinity)
    weights = torch.zeros_like(right)
    for mask, share in ((background, 0.25), (same, 0.25), (different, 0.5)):
        weights[mask] = share / mask.sum().clamp(min=1)
    return -(torch.log(right + _TINY) * weights).sum()
