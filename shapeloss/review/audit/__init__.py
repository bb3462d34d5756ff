"""Can reported numbers be true? What means, SDs and p-values imply."""
