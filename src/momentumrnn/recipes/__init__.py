"""The installed recipes: data, no code. One TOML for each row of a table, named dataset-model-size."""
