"""Slow, literal forms of the papers' formulas, as references for the fast ones."""

import torch
from torch import Tensor


def descent(network, start: Tensor, images, labels, rate, steps, momentum=0.0, batch=None):
    """θ_{m+1} = θ_m − η v_{m+1} (CWX Eq 3), one parameter at a time, every graph kept."""
    layout = list(network.named_parameters())
    pieces = start.split([p.numel() for _, p in layout])
    state = {n: piece.reshape(p.shape) for (n, p), piece in zip(layout, pieces, strict=True)}
    velocity = {n: torch.zeros_like(p) for n, p in state.items()}
    for step in range(steps):
        seen, its_labels = batch(images, step) if batch else (images, labels)
        logits = torch.func.functional_call(network, state, (seen,))
        loss = -logits.log_softmax(1)[torch.arange(len(seen)), its_labels].mean()
        gradients = {
            n: torch.autograd.grad(loss, p, create_graph=True, retain_graph=True)[0]
            for n, p in state.items()
        }
        velocity = {n: momentum * velocity[n] + gradients[n] for n in state}
        state = {n: p - rate * velocity[n] for n, p in state.items()}
    return flat(state.values())


def finite_difference(function, at: Tensor, step: float) -> Tensor:
    """The gradient of a scalar function by central differences, entry by entry."""
    gradient = torch.zeros_like(at)
    flat, out = at.reshape(-1), gradient.reshape(-1)
    for i in range(len(flat)):
        nudge = torch.zeros_like(flat)
        nudge[i] = step
        up, down = (function((flat + sign * nudge).view_as(at)) for sign in (1, -1))
        out[i] = (up - down) / (2 * step)
    return gradient


def flat(tensors) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def normalised_distance(a, b, c) -> Tensor:
    ratio = torch.dist(b, c) ** 2 / torch.dist(a, c) ** 2
    return ratio + 1 - torch.cosine_similarity(b - a, c - a, dim=0)


def literal_distance(a, b, c) -> Tensor:
    return torch.dist(b, c) ** 2 + 1 - torch.cosine_similarity(b, c, dim=0)


def gaussian_blur(image: list[list[float]], sigma: float, reach: int) -> list[list[float]]:
    """One grey image, pixel by pixel, its edges repeated."""
    import math

    height, width = len(image), len(image[0])
    weights = [math.exp(-(o**2) / (2 * sigma**2)) for o in range(-reach, reach + 1)]
    total = sum(weights) ** 2

    def pixel(y: int, x: int) -> float:
        value = 0.0
        for i, wy in enumerate(weights):
            for j, wx in enumerate(weights):
                row = min(max(y + i - reach, 0), height - 1)
                column = min(max(x + j - reach, 0), width - 1)
                value += wy * wx * image[row][column]
        return value / total

    return [[pixel(y, x) for x in range(width)] for y in range(height)]


def projected_gradient(network, image, label, start, mean, std, *, radius, step, steps, norm):
    """PGD (Madry et al. 2018, §2.1) on one unit image ``[C, H, W]``; `norm` is "linf" or "l2"."""
    mean, std = (torch.tensor(v, dtype=image.dtype).view(-1, 1, 1) for v in (mean, std))

    def within(moved):
        delta = moved - image
        if norm == "linf":
            delta = torch.minimum(torch.maximum(delta, -radius), radius)
        elif delta.square().sum() > radius**2:
            delta = delta * radius / delta.square().sum().sqrt()
        return (image + delta).clamp(0, 1)

    moved = within(image + start)
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        logits = network(((moved - mean) / std)[None])[0]
        (gradient,) = torch.autograd.grad(-logits.log_softmax(0)[label], moved)
        unit = gradient.sign() if norm == "linf" else gradient / gradient.square().sum().sqrt()
        moved = within(moved + step * unit)
    return moved.detach()


def targeted_signs(network, image, target, mean, std, *, step, steps):
    """G of one unit image ``[C, H, W]`` (Dong et al., Eq 9-11), on the scale of unit pixels."""
    mean, std = (torch.tensor(v, dtype=image.dtype).view(-1, 1, 1) for v in (mean, std))
    moved = image
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        logits = network(((moved - mean) / std)[None])[0]
        (gradient,) = torch.autograd.grad(-logits.log_softmax(0)[target], moved)
        moved = (moved - step * gradient.sign()).clamp(0, 1)
    return moved.detach()


def consistency(logits, attacked, features, attacked_features, label, alpha, beta) -> float:
    """The loss of one image (Dong et al., Eq 8), from lists of numbers."""
    import math

    def entropy(row: list[float]) -> float:
        return math.log(sum(math.exp(value) for value in row)) - row[label]

    pairs = zip(features, attacked_features, strict=True)
    apart = sum((a - b) ** 2 for a, b in pairs)
    return alpha * entropy(logits) + (1 - alpha) * entropy(attacked) + beta * apart


def add_stripes(row: list[int], delta: float, frequency: float) -> list[float]:
    """One row of bytes with SIG's stripes (Barni et al. 2019, §3), not rounded."""
    import math

    stripes = [
        delta * math.sin(2 * math.pi * frequency * column / len(row)) for column in range(len(row))
    ]
    return [min(max(x + s, 0), 255) for x, s in zip(row, stripes, strict=True)]


def blend_rows(row: list[int], picture: list[float], ratio: float) -> list[float]:
    """One row of bytes mixed with a row of unit pixels (Chen et al. 2017), not rounded."""
    return [(1 - ratio) * x + ratio * 255 * p for x, p in zip(row, picture, strict=True)]


def overlap(values: list[list[float]], mask: list[list[float]]) -> tuple[float, float]:
    """IoU of a mask with the highest of distinct values, and pixels from its centre to that of the
    mask where it covers the highest."""
    import math

    height, width = len(values), len(values[0])
    true = [(y, x) for y in range(height) for x in range(width) if mask[y][x]]
    moves = [(dy, dx) for dy in range(-height, height) for dx in range(-width, width)]
    moved = [[(y + dy, x + dx) for y, x in true] for dy, dx in moves]
    inside = [m for m in moved if all(0 <= y < height and 0 <= x < width for y, x in m)]
    fitting = max(inside, key=lambda places: sum(values[y][x] for y, x in places))
    centres = [[sum(p[axis] for p in of) / len(of) for axis in (0, 1)] for of in (fitting, true)]
    places = [(y, x) for y in range(height) for x in range(width)]
    top = sorted(places, key=lambda place: -values[place[0]][place[1]])[: len(true)]
    return len({*top} & {*true}) / len({*top} | {*true}), math.dist(*centres)


def revealed_map_literal(own: Tensor, others: Tensor) -> list[list[float]]:
    """Pixel by pixel, |image − mean of others| / (σ + mean σ), the mean of channels and images."""
    channels, height, width = own.shape[1:]

    def column(images, c, y, x):
        return [float(image[c, y, x]) for image in images]

    def mean(values):
        return sum(values) / len(values)

    def spread(values):
        return mean([(v - mean(values)) ** 2 for v in values]) ** 0.5

    spreads = {
        (c, y, x): spread(column(others, c, y, x))
        for c in range(channels)
        for y in range(height)
        for x in range(width)
    }
    floor = mean(list(spreads.values()))

    def value(c, y, x):
        centre = mean(column(others, c, y, x))
        deviation = mean([abs(value - centre) for value in column(own, c, y, x)])
        return deviation / (spreads[c, y, x] + floor)

    return [
        [mean([value(c, y, x) for c in range(channels)]) for x in range(width)]
        for y in range(height)
    ]


def pearson(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    squares = [sum((x - m) ** 2 for x in v) for v, m in ((a, mean_a), (b, mean_b))]
    return product / (squares[0] * squares[1]) ** 0.5


def matched_psnr(a: list[float], b: list[float]) -> float:
    """PSNR in dB of `a` after the affine match to `b`, by the normal equations; positive gain."""
    import math

    n, sum_a, sum_b = len(a), sum(a), sum(b)
    square, product = sum(x * x for x in a), sum(x * y for x, y in zip(a, b, strict=True))
    gain = (n * product - sum_a * sum_b) / (n * square - sum_a**2)
    gain = max(gain, 0)
    shift = (sum_b - gain * sum_a) / n
    error = sum((gain * x + shift - y) ** 2 for x, y in zip(a, b, strict=True)) / n
    return 10 * math.log10((max(b) - min(b)) ** 2 / error)


def pattern_search(network, canvas, label, batches, *, normalize, alpha, beta=0.0, step=0.02):
    """ISCP's Algorithm 1 up to line 10, one image and one search at a time.

    Args:
        canvas: a unit image ``[C, H, W]``.
        batches: unit images ``[b, C, H, W]``, in the order of all passes.
    """
    height, width = canvas.shape[1:]
    mask = torch.full((height, width), 0.5, dtype=canvas.dtype)
    for images in batches:
        leaf = mask.clone().requires_grad_()
        loss = 0
        for image in images:
            mixed = leaf * canvas + (1 - leaf) * image
            probability = network(normalize(mixed[None])).softmax(1)[0, label]
            edges = ((leaf[1:] - leaf[:-1]) ** 2).sum() + ((leaf[:, 1:] - leaf[:, :-1]) ** 2).sum()
            size = height * width
            loss = loss - probability.log() + alpha * leaf.abs().sum() / size + beta * edges / size
        (gradient,) = torch.autograd.grad(loss, leaf)
        mask = (mask - step * gradient.sign()).clamp(0, 1)
    return mask


def grad_cam(head, features: Tensor, label: int) -> list[list[float]]:
    """ReLU(Σ_k α_k A^k), α_k = 1/Z Σ_i Σ_j ∂y/∂A^k_ij (Selvaraju et al. 2017, Eq 1, 2).

    Args:
        head: from the channels A of one image ``[K, h, w]`` to its logits.
    """
    leaf = features.detach().clone().requires_grad_()
    (gradients,) = torch.autograd.grad(head(leaf)[label], leaf)
    channels = leaf.detach()
    count, height, width = channels.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    alphas = [sum(float(gradients[k, i, j]) for i, j in places) / len(places) for k in range(count)]

    def value(i, j):
        return max(0.0, sum(alphas[k] * float(channels[k, i, j]) for k in range(count)))

    return [[value(i, j) for j in range(width)] for i in range(height)]


def upsample(values: list[list[float]], height: int, width: int) -> list[list[float]]:
    """Bilinear between the centres of pixels; beyond the outermost, the nearest."""
    import math

    def between(position, old, new):
        place = min(max((position + 0.5) * old / new - 0.5, 0), old - 1)
        low = math.floor(place)
        return low, min(low + 1, old - 1), place - low

    def value(y, x):
        top, bottom, down = between(y, len(values), height)
        left, right, along = between(x, len(values[0]), width)
        upper = (1 - along) * values[top][left] + along * values[top][right]
        lower = (1 - along) * values[bottom][left] + along * values[bottom][right]
        return (1 - down) * upper + down * lower

    return [[value(y, x) for x in range(width)] for y in range(height)]


def mean_distance(points, others) -> float:
    """The mean Euclidean distance of all pairs, pair by pair."""
    import math

    pairs = [math.dist(a, b) for a in points for b in others]
    return sum(pairs) / len(pairs)


def distance_ratios(point, original: int, own, aimed) -> tuple[float, float]:
    """r1 and r2 of one adversarial representation (Dong et al., Eq 6, 7), pair by pair.

    Args:
        original: which of its class's is that of its original; it is left out of r1's numerator.
        own, aimed: the real representations of its class and of its target, as lists.
    """
    import math

    others = [real for place, real in enumerate(own) if place != original]
    within = [math.dist(a, b) for i, a in enumerate(own) for j, b in enumerate(own) if i != j]
    r1 = mean_distance([point], others) / (sum(within) / len(within))
    return r1, mean_distance([point], aimed) / mean_distance(own, aimed)


def area_under_roc(negative: list[float], positive: list[float]) -> float:
    """The probability that a positive scores higher than a negative one, ties counting half."""
    wins = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    return sum(wins) / len(wins)


def prediction_difference(head, features: Tensor, channel: int, correlation) -> float:
    """‖g(φ) − g(φ without i)‖²_C (Dong et al., Eq 12), entry by entry.

    Args:
        head: from one image's features ``[channels, h, w]`` to logits.
    """
    without = features.clone()
    without[channel] = 0
    v = (head(features).softmax(0) - head(without).softmax(0)).tolist()
    k = range(len(v))
    return sum(v[i] * float(correlation[i][j]) * v[j] for i in k for j in k)


def correlation(distances: list[list[float]], sigma: float) -> list[list[float]]:
    """Dong et al., Eq 2, one pair of classes at a time."""
    import math

    return [[math.exp(-(d**2) / (2 * sigma**2)) for d in row] for row in distances]


def inner_product(p: list[float], q: list[float], common: list[list[float]]) -> float:
    """pᵀCq, term by term; of p with itself it is LC (Dong et al., Eq 3)."""
    pairs = [(i, j) for i in range(len(p)) for j in range(len(q))]
    return sum(p[i] * common[i][j] * q[j] for i, j in pairs)


def cosine(p: list[float], q: list[float], common: list[list[float]]) -> float:
    """CS (Dong et al., Eq 4 and 5)."""
    return (
        inner_product(p, q, common)
        / (inner_product(p, p, common) * inner_product(q, q, common)) ** 0.5
    )


def discrepancy_map(
    neuron, image: Tensor, places: list[list[int]], patches: Tensor, stride: int
) -> list[list[float]]:
    """The mean loss of activation over the occluders that cover a pixel, pixel by pixel.

    An occluder covers a pixel as far as it covers, on average, the `stride` pixels of each axis
    around it, of which one more lies before it if their number is even.

    Args:
        neuron: from one image ``[C, H, W]`` to its activation.
    """
    size, (height, width) = patches.shape[-1], image.shape[1:]
    losses = []
    for (top, left), patch in zip(places, patches, strict=True):
        covered = image.clone()
        for row in range(size):
            for column in range(size):
                if 0 <= top + row < height and 0 <= left + column < width:
                    covered[:, top + row, left + column] = patch[:, row, column]
        losses.append(float(neuron(image)) - float(neuron(covered)))

    def cover(start, position):
        first = position - stride // 2
        return sum(start <= first + i < start + size for i in range(stride)) / stride

    def pixel(y, x):
        weights = [cover(top, y) * cover(left, x) for top, left in places]
        return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)

    return [[pixel(y, x) for x in range(image.shape[2])] for y in range(image.shape[1])]


def ensemble_attack(networks, image, target, mean, std, *, weight, scale, step, steps, epsilon):
    """Eq 1 of Dong et al. by Adam, on one unit image ``[C, H, W]``: its attacked unit image."""
    mean, std = (torch.tensor(v, dtype=image.dtype).view(-1, 1, 1) for v in (mean, std))
    start = image * scale
    leaf = start.clone().requires_grad_()
    adam = torch.optim.Adam([leaf], lr=step)
    for _ in range(steps):
        squares = sum((a - b) ** 2 for a, b in zip(leaf.flatten(), start.flatten(), strict=True))
        # At 0 the root has no gradient, and 0 is one of its subgradients.
        loss = weight * squares.sqrt() if squares > 0 else torch.zeros((), dtype=image.dtype)
        for network in networks:
            logits = network(((leaf / scale - mean) / std)[None])[0]
            loss = loss - logits.log_softmax(0)[target]
        (leaf.grad,) = torch.autograd.grad(loss, leaf)
        adam.step()
        with torch.no_grad():
            leaf.clamp_(0, scale)
            if epsilon is not None:
                leaf.copy_(start + (leaf - start).clamp(-epsilon, epsilon))
    return leaf.detach() / scale


def least_likely(probabilities: list[float], label: int, count: int) -> list[int]:
    """Classes other than the label, from the least likely on."""
    others = [c for c in range(len(probabilities)) if c != label]
    return sorted(others, key=lambda c: (probabilities[c], c))[:count]
