"""ONNX files as input: the operators that convolutional networks use, as layers and functions of PyTorch."""

from fupruner.onnx_import.importer import Imported, import_onnx

__all__ = ["Imported", "import_onnx"]
