# Solutions of 1_what_does_a_loss_ask.ipynb: the cell of each exercise, as it can be completed.

# %% 1.1
def pull(p):
    return np.sqrt(2) * (1 - p)


# %% 1.2
grid = np.linspace(0.005, 0.995, 199)
p_hardest = grid[np.argmax([pull_at(FocalLoss(gamma=2), p) for p in grid])]

# %% 1.3
shares = {}
for name in VARIANTS:
    loss = build_loss("dpce", num_classes=4, variant=name)
    shares[name] = measure_pull(loss, unsure, truth, SPACING).share
variant = max(shares, key=shares.get)

# %% 1.4
silent = {"dice", "gdice", "boundary"}
