"""The losses in MONAI and nnU-Net."""
