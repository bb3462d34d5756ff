# Solutions of 4_write_your_own_loss.ipynb: the cell of each exercise, as it can be completed.

# %% 4.1
class MyLoss(MapLoss):
    map_spec = {"map": "distance_penalty"}

    def compute_map(self, labels, spacing):
        return distance_penalty(labels, spacing)

    def forward(self, logits, target, phi=None):
        ce = cross_entropy(logits, target, reduction="none")
        return ((1 + phi**2) * ce).mean()


# %% 4.2
class Inverted(torch.nn.Module):
    def forward(self, logits, target, phi=None):
        ce = cross_entropy(logits, target, reduction="none")
        return ((1 + phi) * ce).mean()


# %% 4.3
def weight(labels, spacing):
    unscaled = 1 + distance_penalty(labels, spacing)
    return unscaled / unscaled.mean()


# %% 4.4
row = practice.table().loc[list(losses)[-1]]
verdict = "better" if row["from"] > 0 else "worse" if row["to"] < 0 else "cannot tell"
