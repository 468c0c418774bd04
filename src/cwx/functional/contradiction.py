"""A score of evidence that contradicts a prediction (Dong et al., §4 and Figure 10, as a number).

A unit stands for the classes of the real images that excite it most. In the paper's example, an
adversarial image of a bird is classified as a moving van, and a unit that responds to birds has an
influence on the prediction: evidence that real images of moving vans do not have.
"""

import torch
from torch import Tensor


def contradiction(weights: Tensor, similarity: Tensor, predicted: Tensor) -> Tensor:
    """How much more the units of a prediction stand for another class than for the predicted one.

        E_k = Σ_i w_i s_ik / Σ_i |w_i|,   contradiction = max_{k ≠ ŷ} E_k − E_ŷ

    It is in [−1, 1]: −1 if all weight is on units whose top images are of the predicted class ŷ and
    unlike all others, and 1 if it is on units of one other class. A unit that responds to all
    classes alike adds the same to every E_k. With w_i = max(c_i, 0) and c_i the contribution to
    the predicted logit, these are the units that make the prediction.

    Args:
        weights: w of each unit for each image, ``[n, units]``.
        similarity: s_i = C p_i, the similarity of each class to the top images of a unit,
            ``[units, K]`` with K ≥ 2; rows of 0 for units without top images, which do not count.
        predicted: ŷ, ``[n]``.

    Returns:
        ``[n]`` in float64, 0 if no unit has a weight.
    """
    weights, similarity = weights.double(), similarity.double()
    weights = weights * similarity.any(1)
    total = weights.abs().sum(1, keepdim=True)
    evidence = weights @ similarity / total.masked_fill(total == 0, 1)
    own = evidence.gather(1, predicted[:, None])[:, 0]
    others = evidence.scatter(1, predicted[:, None], -torch.inf).amax(1)
    return others - own
