"""The paper's experiment: profiles, scores, claims."""
