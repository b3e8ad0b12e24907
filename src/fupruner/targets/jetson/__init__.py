"""NVIDIA Jetson TX2 and Nano: TensorRT 8.2 in half precision."""
