"""A trained model for other people's tools: `save`, `load`, `hub`, `interop`."""
