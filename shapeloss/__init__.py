"""Distance-penalised losses."""
