"""The lab on filters and receptive fields."""
