"""Training: prepare -> data -> train -> evaluate. Sees every room; nothing outside this folder imports it."""
