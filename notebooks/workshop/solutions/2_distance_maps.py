# Solutions of 2_distance_maps.ipynb: the cell of each exercise, as it can be completed.

# %% 2.1
def my_distance(labels, spacing):
    distance = np.zeros(labels.shape)
    for index in np.ndindex(labels.shape):
        others = np.argwhere(labels != labels[index])
        distance[index] = np.linalg.norm((others - index) * np.array(spacing), axis=1).min()
    return distance


# %% 2.2
def my_phi(labels, spacing):
    distance = boundary_distance(labels, spacing)
    phi = np.zeros(labels.shape)
    if np.isinf(distance).any():
        return phi
    for label in np.unique(labels):
        mask = labels == label
        d = distance[mask]
        phi[mask] = (d.max() - d) / (d.max() - d.min()) if d.max() > d.min() else 1
    return phi


# %% 2.3
low, high = 0.5, 20.0
for _ in range(40):
    tau = (low + high) / 2
    share, _mean = weight_near_boundary(distance_penalty(truth, SPACING, decay=tau), truth, SPACING, within=2.0)
    low, high = (tau, high) if share > 0.14 else (low, tau)


# %% 2.4
def phi_of_patch(labels, spacing, box):
    return distance_penalty(labels, spacing)[box]
