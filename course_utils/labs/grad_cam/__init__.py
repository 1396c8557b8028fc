"""The lab on Grad-CAM and attacks."""
