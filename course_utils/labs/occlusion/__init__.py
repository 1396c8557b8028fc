"""The lab on occlusion."""
