"""A Hub on this machine for the real huggingface_hub client: see `tests.hub.server.LoopbackHub`."""
