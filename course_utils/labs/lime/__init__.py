"""The lab on LIME."""
