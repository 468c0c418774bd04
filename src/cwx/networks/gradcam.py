"""Grad-CAM maps of a class (Selvaraju et al. 2017; ISCP, Appendix F)."""

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F


def grad_cam(network: nn.Module, layer: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The Grad-CAM map for each image's label, upsampled to the image: ``[n, H, W]``, ≥ 0.

        α_k = mean over positions of ∂y/∂A_k,   ReLU(Σ_k α_k A_k)

    with y the logit of the label and A_k the channels of the layer (Selvaraju et al., Eq 1, 2). A
    map is 0 everywhere if no position supports the class. Maps have no gradient.

    Args:
        network: in eval mode, from normalised images to logits; its parameters get no gradients.
        layer: a module of `network` whose output is ``[n, channels, h, w]``.
        images: normalised, ``[n, C, H, W]``.
        labels: ``[n]``.
    """
    # Captum warns if the images do not require gradients.
    leaf = images.detach().requires_grad_()
    maps = LayerGradCam(network, layer).attribute(leaf, labels, relu_attributions=True)
    size = images.shape[2:]
    return F.interpolate(maps.detach(), size, mode="bilinear", align_corners=False)[:, 0]


def attention_maps(
    network: nn.Module, layer: nn.Module, images: Tensor, labels: Tensor, batch_size: int
) -> Tensor:
    """`grad_cam` in batches of `batch_size` on the network's device; the maps are on the CPU."""
    pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    device = next(network.parameters()).device
    return torch.cat([grad_cam(network, layer, i.to(device), y.to(device)).cpu() for i, y in pairs])
