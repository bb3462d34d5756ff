# Solutions of 3_spot_the_bug.ipynb: the cell of each exercise, as it can be completed.

# %% 3.1
def weighted_loss(logits, target, phi):
    loss = cross_entropy(logits, target, reduction="none")
    return ((1 + phi) * loss).mean()


# %% 3.2
def relative_distance(masks, spacing):
    maps = []
    for one in masks:
        inside = distance_transform_edt(one, spacing)
        maps.append(inside / inside.max() if inside.any() else inside)
    return np.array(maps)


# %% 3.3
def outside_distance(mask, spacing):
    if not mask.any():
        return np.zeros(mask.shape)
    return distance_transform_edt(~mask, spacing)


# %% 3.4
def both_distances(mask, spacing):
    mask = mask > 0
    return distance_transform_edt(~mask, spacing), distance_transform_edt(mask, spacing)


# %% 3.5
def signed(mask, spacing):
    return distance_transform_edt(~mask, spacing) - distance_transform_edt(mask, spacing)


# %% 3.6
def distance_channels(one_hot, spacing):
    return np.stack([distance_transform_edt(channel, spacing) for channel in one_hot])


# %% 3.7
def penalised_dice(p, g, phi):
    errors = ((1 + phi) * (p + g - 2 * p * g)).sum()
    return errors / (p.sum() + g.sum())


# %% 3.8
def generalised_dice(p, g):
    size = g.sum((2, 3))
    weight = 1 / size**2
    absent = weight.isinf()
    weight = torch.where(absent, weight.masked_fill(absent, 0).amax(1, keepdim=True), weight)
    overlap = (weight * (p * g).sum((2, 3))).sum(1)
    total = (weight * (p + g).sum((2, 3))).sum(1)
    return (1 - 2 * overlap / total).mean()


# %% 3.9
def confidence_penalty(logits, target, beta):
    logp = logits.log_softmax(1)
    entropy = -(logp.exp() * logp).sum(1).mean()
    return cross_entropy(logits, target) - beta * entropy


# %% 3.10
def focal_loss(logits, target, gamma):
    logp = logits.log_softmax(1).gather(1, target[:, None])
    return -((1 - logp.exp()) ** gamma * logp).mean()


# %% 3.11
def hd95(truth, prediction, spacing):
    def boundary(mask):
        inner = np.stack([binary_erosion(one, border_value=1) for one in mask])
        return np.argwhere(mask & ~inner) * np.array(spacing)

    a, b = boundary(truth), boundary(prediction)
    if not len(a) and not len(b):
        return 0.0
    if not len(a) or not len(b):
        return float(np.linalg.norm(np.multiply(truth.shape, spacing)))
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


# %% 3.12
def sdf_target(labels, spacing):
    mask = labels > 0
    outside, inside = distance_transform_edt(~mask, spacing), distance_transform_edt(mask, spacing)
    return inside / inside.max() - outside / outside.max()


def sdf_loss(p, sdf):
    return (2 * p - 1 - sdf).abs().mean()
