"""What runs on a device that is reached over ssh, and what asks it."""
