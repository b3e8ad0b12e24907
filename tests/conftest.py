"""What every test may rely on: fixed seeds, one thread, skips that say why, and networks of other people."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason=f"needs the images and checkpoints of {SHARED_DATA}, which is not there")
    for item in items:
        if item.get_closest_marker("data"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of images and checkpoints; only for tests marked ``data``."""
    return SHARED_DATA


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    """The module torchvision; after this, timm can be imported as well.

    torchvision's compiled part belongs to one build of torch. Where it does not load, importing the Python part fails
    for want of two operators that classification networks never call; declaring them is enough.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_detection_operators()
        import torchvision
    except ImportError:
        pytest.skip("needs torchvision: pip install --no-deps -r tests/requirements-zoo.txt")
    return torchvision


_LIBRARIES: list[torch.library.Library] = []  # a library's operators live as long as the object does


def _declare_detection_operators() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)
