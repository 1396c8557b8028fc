"""The lab on embeddings and ideal inputs."""
