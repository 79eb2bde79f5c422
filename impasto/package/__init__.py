"""The model package format: a folder with a manifest, graphs and engines, and what each of them says of the model."""
