"""This machine's processor, through LiteRT (TensorFlow Lite)."""
