"""This machine's processor, through OpenVINO."""
