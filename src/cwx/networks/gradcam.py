"""Where a network looks for a class: Grad-CAM (Selvaraju et al. 2017; ISCP, Appendix F; I21)."""

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F


def grad_cam(network: nn.Module, layer: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The Grad-CAM map of each image's label, upsampled to the image: ``[n, H, W]``, 0 or more.

        α_k = mean over places of ∂y/∂A_k,   ReLU(Σ_k α_k A_k)

    with y the logit of the label and A_k the channels of the layer (Selvaraju et al., Eq 1, 2). A
    map may be 0 everywhere: nothing in the layer speaks for the class. It has no gradient.

    Args:
        network: in eval mode, from normalised images to logits; its parameters get no gradients.
        layer: one of its modules, whose output is ``[n, channels, h, w]``.
        images: normalised, ``[n, C, H, W]``.
        labels: ``[n]``.
    """
    # Captum warns where it has to ask for the gradient itself.
    asking = images.detach().requires_grad_()
    maps = LayerGradCam(network, layer).attribute(asking, labels, relu_attributions=True)
    size = images.shape[2:]
    return F.interpolate(maps.detach(), size, mode="bilinear", align_corners=False)[:, 0]


def attention_of(
    network: nn.Module, layer: nn.Module, images: Tensor, labels: Tensor, batch_size: int
) -> Tensor:
    """`grad_cam` of any number of images, in batches, on the CPU."""
    pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    device = next(network.parameters()).device
    return torch.cat([grad_cam(network, layer, i.to(device), y.to(device)).cpu() for i, y in pairs])
