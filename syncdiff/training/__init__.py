"""Training: prepare -> data -> train. Imported by `evaluation` alone."""
