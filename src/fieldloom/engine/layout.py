"""The names of the files in a run's folder."""

RECIPE, MODEL, CODES, STATE, LOG, ENV, DATA = (
    "recipe.toml", "model.safetensors", "codes.safetensors", "state.safetensors", "log.jsonl",
    "env.json", "data.json",
)  # fmt: skip
SHARDS = "codes"
PREVIEW = "preview.png"
RESERVED = (RECIPE, MODEL, CODES, STATE, LOG, ENV, DATA, SHARDS)
"""Names that only training writes: no other verb may write such a file in a run."""
