"""Google Coral Edge TPU: fully quantised TFLite files, in the form that its compiler takes."""
