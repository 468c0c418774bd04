"""Derivatives of the inner loss: the gradient, and second-derivative products with a direction.

`Eager` and `Compiled` are two implementations; `Microbatches` wraps either and splits the images.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.func import grad

# L(θ, images, labels), a scalar: a mean over images. A pure, twice differentiable function.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Products(NamedTuple):
    """Products of the derivatives of L with one direction w ``[P]``.

    Attributes:
        slope: ⟨∂L/∂θ, w⟩, a scalar.
        hessian: (∂²L/∂θ²) w ``[P]``.
        mixed: (∂²L/∂S∂θ) w, shaped like the images.
    """

    slope: Tensor
    hessian: Tensor
    mixed: Tensor


class Linearisation(NamedTuple):
    """The gradient at a point, with the graph from which products with any direction follow.

    Attributes:
        gradient: ∂L/∂θ ``[P]``.
        products: takes a direction ``[P]``; once.
        bytes: the memory that the graph holds.
    """

    gradient: Tensor
    products: Callable[[Tensor], Products]
    bytes: int


class Derivatives(Protocol):
    """Derivatives of L at θ ``[P]``, on images ``[n, …]`` with labels ``[n]``."""

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """∂L/∂θ ``[P]``."""

    def products(
        self, theta: Tensor, images: Tensor, labels: Tensor, direction: Tensor
    ) -> Products:
        """The products with `direction` ``[P]``."""


class Eager:
    """Reverse-over-reverse mode, by autograd.

    Forward-over-reverse mode needs the same number of convolutions and was slower when measured.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.loss(leaf, images, labels), leaf)
        return gradient

    def products(
        self, theta: Tensor, images: Tensor, labels: Tensor, direction: Tensor
    ) -> Products:
        return self._linearise(theta, images, labels)[1](direction)

    def linearise(self, theta: Tensor, images: Tensor, labels: Tensor) -> Linearisation:
        """The gradient and its graph: `gradient` and `products` without computing L twice."""
        storages: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            gradient, products = self._linearise(theta, images, labels)
        return Linearisation(gradient.detach(), products, sum(storages.values()))

    def _linearise(
        self, theta: Tensor, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Products]]:
        leaves = theta.detach().requires_grad_(), images.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(*leaves, labels)
            (gradient,) = torch.autograd.grad(loss, leaves[0], create_graph=True)

        def products(direction: Tensor) -> Products:
            with torch.enable_grad():
                slope = gradient @ direction
                hessian, mixed = torch.autograd.grad(
                    slope, leaves, allow_unused=True, materialize_grads=True
                )
            return Products(slope.detach(), hessian, mixed)

        return gradient, products


class Graphs:
    """Which steps of an inner loop keep their graph within a memory budget.

    The graphs of the last steps are kept: the backward pass frees them first. How many fit follows
    from the size of the graph of the first step, which is measured for every new shape.

    Args:
        budget: bytes.
        derivatives: of the loss.
    """

    def __init__(self, budget: float, derivatives: Eager) -> None:
        self.budget, self.derivatives = budget, derivatives
        self._sizes: dict[Any, int] = {}

    def count(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """The number of graphs that fit into the budget.

        Raises:
            ValueError: not a single graph fits.
        """
        key = (images.shape, images.dtype, images.device.type)
        if key not in self._sizes:
            self._sizes[key] = self.derivatives.linearise(theta, images, labels).bytes
        size = self._sizes[key]
        if size > self.budget:
            raise ValueError(
                f"unroll.memory is {self.budget / 1e9:.3g} GB, but the graph of one step on "
                f"{len(images)} images takes {size / 1e9:.3g} GB: raise it, or set it to null"
            )
        return int(self.budget // size)


class Compiled:
    """The derivatives compiled by `torch.compile`, about a third faster.

    For each new shape, the compiled function is first compared to `Eager` on the actual arguments.
    If compilation fails or the results differ, it warns and uses `Eager` for that shape.

    Args:
        mode: torch.compile's; "reduce-overhead" captures CUDA graphs.
    """

    def __init__(self, loss: Loss, *, mode: str = "default") -> None:
        self._eager = Eager(loss)
        gradient = grad(loss)

        def products(theta: Tensor, images: Tensor, labels: Tensor, direction: Tensor) -> Any:
            def slope(theta: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
                value = gradient(theta, images, labels) @ direction
                return value, value

            (hessian, mixed), value = grad(slope, argnums=(0, 1), has_aux=True)(theta, images)
            return value, hessian, mixed

        self._gradient = torch.compile(gradient, mode=mode, dynamic=False)
        self._products = torch.compile(products, mode=mode, dynamic=False)
        self._trusted: dict[Any, bool] = {}

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        arguments = (theta.detach(), images.detach(), labels)
        if self._trusts("gradient", self._gradient, arguments):
            # A captured CUDA graph writes its next result over this one.
            result: Tensor = self._gradient(*arguments).clone()
            return result
        return self._eager.gradient(*arguments)

    def products(
        self, theta: Tensor, images: Tensor, labels: Tensor, direction: Tensor
    ) -> Products:
        # Tracing may treat two arguments that are the same tensor as one.
        direction = direction.clone() if direction is theta else direction
        arguments = (theta.detach(), images.detach(), labels, direction.detach())
        if self._trusts("products", self._products, arguments):
            return Products(*(tensor.clone() for tensor in self._products(*arguments)))
        return self._eager.products(*arguments)

    def _trusts(self, name: str, compiled: Callable[..., Any], arguments: Any) -> bool:
        images = arguments[1]
        reduced = torch.is_autocast_enabled(images.device.type)
        key = (name, arguments[0].shape, images.shape, images.dtype, images.device, reduced)
        if key not in self._trusted:
            self._trusted[key] = self._agrees(name, compiled, arguments, _tolerance(images))
        return self._trusted[key]

    def _agrees(
        self, name: str, compiled: Callable[..., Any], arguments: Any, tolerance: float
    ) -> bool:
        expected = getattr(self._eager, name)(*arguments)
        try:
            with warnings.catch_warnings():
                # Compilers warn about their internals.
                warnings.simplefilter("ignore")
                actual = compiled(*arguments)
            error = max(map(_relative_error, _vectors(actual), _vectors(expected)))
        except Exception as failure:
            # Backends raise exceptions of any type: no compiler, an unsupported operation, …
            reason = f"fails ({type(failure).__name__}: {str(failure).splitlines()[0][:200]})"
        else:
            if error <= tolerance:
                return True
            reason = f"has a relative error of {error:.1e}, more than {tolerance:.0e}"
        warnings.warn(f"compiled {name} {reason}: continuing without compilation", stacklevel=2)
        return False


class Microbatches:
    """Computes `derivatives` on at most `size` images at a time.

    The result is the same up to rounding for a loss that is a mean over images which do not
    influence each other. Peak memory is that of one microbatch.
    """

    def __init__(self, derivatives: Derivatives, size: int) -> None:
        if size < 1:
            raise ValueError(f"unroll.microbatch is {size} images: give 1 or more, or null for all")
        self.derivatives, self.size = derivatives, size

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        total = torch.zeros_like(theta)
        for part, part_labels in self._split(images, labels):
            gradient = self.derivatives.gradient(theta, part, part_labels)
            total.add_(gradient, alpha=len(part) / len(images))
        return total

    def products(
        self, theta: Tensor, images: Tensor, labels: Tensor, direction: Tensor
    ) -> Products:
        slope, hessian = torch.zeros_like(theta[0]), torch.zeros_like(theta)
        mixed = []
        for part, part_labels in self._split(images, labels):
            fraction = len(part) / len(images)
            products = self.derivatives.products(theta, part, part_labels, direction)
            slope.add_(products.slope, alpha=fraction)
            hessian.add_(products.hessian, alpha=fraction)
            mixed.append(products.mixed * fraction)
        return Products(slope, hessian, torch.cat(mixed))

    def _split(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        # Sizes as equal as possible: compiled code is specialised to each size.
        count = max(1, math.ceil(len(images) / self.size))
        return zip(images.tensor_split(count), labels.tensor_split(count), strict=True)


def _vectors(result: Any) -> tuple[Tensor, ...]:
    """The tensors to compare; not the slope, which may be a small difference of large terms."""
    return (result,) if isinstance(result, Tensor) else tuple(result)[1:]


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    error = (actual - expected).norm() / expected.norm().clamp_min(1e-30)
    return error.item() if bool(torch.isfinite(error)) else math.inf


def _tolerance(images: Tensor) -> float:
    device = images.device.type
    if torch.is_autocast_enabled(device) or torch.get_float32_matmul_precision() != "highest":
        return 5e-2
    # A different rounding of a value near a ReLU's kink changes a gradient by up to 1e-3.
    return 1e-9 if images.dtype == torch.float64 else 1e-2
