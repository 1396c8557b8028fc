"""The lab on gradients."""
