import pytest
import torch
from torch import Tensor, nn

from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.pruning.groups import find_groups
from unit.pruning import nets


def groups_of(model: nn.Module, *shape: int) -> dict[str, tuple[int, tuple[str, ...], tuple[str, ...], str]]:
    found = find_groups(nets.graph_of(model, *shape))
    return {g.name: (len(g.units), g.producers, g.consumers, g.frozen) for g in found.groups}


def test_chain_has_one_group_per_hidden_layer_and_a_frozen_output() -> None:
    found = groups_of(nets.Chain(), 3, 8, 8)
    assert found["a"] == (16, ("a",), ("b",), "")
    assert found["b"] == (32, ("b",), ("fc",), "")
    assert "output of the network" in found["fc"][3]


def test_residual_stream_ties_all_its_producers() -> None:
    count, producers, consumers, frozen = groups_of(nets.Residual(), 3, 8, 8)["stem"]
    assert (count, frozen) == (16, "")
    assert producers == ("stem", "blocks.0.3", "blocks.1.3")
    assert consumers == ("blocks.0.0", "blocks.1.0", "fc")


def test_zero_padded_shortcut_ties_only_the_carried_channels() -> None:
    found = groups_of(nets.ZeroPadded(), 3, 8, 8)
    assert found["stem"][:2] == (8, ("stem", "b"))
    assert found["b"][:2] == (8, ("b",))  # the channels that the padding makes come from the branch alone


def test_squeeze_and_excite_is_tied_to_what_it_scales() -> None:
    assert groups_of(nets.SqueezeExcite(), 3, 8, 8)["a"][:2] == (16, ("a", "up"))


def test_a_group_of_a_grouped_convolution_is_one_unit() -> None:
    assert groups_of(nets.Grouped(), 3, 4, 4)["a"][0] == 4


def test_few_wide_groups_lose_the_same_places() -> None:
    found = groups_of(nets.FewGroups(), 3, 8, 8)
    assert found["a"][:2] == (8, ("a",))
    assert found["g"][:2] == (16, ("g",))
    assert found["up"][:2] == (8, ("up",))


def test_norm_over_groups_of_channels_makes_them_units() -> None:
    assert groups_of(nets.GroupNormed(), 3, 8, 8)["a"][:2] == (4, ("a", "b"))


def test_norm_over_all_channels_freezes_them_in_words() -> None:
    found = groups_of(nets.Attention(), 3, 8, 8)
    assert "normalises over channels: without one, the others would change" in found["patches"][3]


@pytest.mark.parametrize("model", [nets.Attention, nets.CosineAttention])
def test_attention_loses_channels_of_all_heads(model: type[nn.Module]) -> None:
    found = groups_of(model(), 3, 8, 8)
    assert found["qkv"] == (6, ("qkv",), ("proj",), "")
    assert found["up"][0] == 48


def test_packed_attention_loses_channels_of_all_heads_at_any_batch() -> None:
    for batch in (1, 2, 3):
        x = torch.randn(batch, 3, 8, 8)
        graph = trace(nets.randomise(nets.PackedAttention()), x)
        shapes.propagate(graph, (x,))
        found = {g.name: g for g in find_groups(graph).groups}
        group = found["attention"]
        assert (len(group.units), group.width, group.consumers, group.frozen) == (6, 12, ("attention.out_proj",), "")


class Masked(nn.Module):
    """Attention with a mask: four heads of six channels, or of two."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out, self.width = nn.Linear(8, 12 * width), nn.Linear(4 * width, 5), width
        self.register_buffer("mask", torch.zeros(1, 4, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, self.width)).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        return self.out(y.transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize(("width", "prunable"), [(6, True), (2, False)])
def test_mask_over_heads_keeps_heads_but_not_channels_inside_them(width: int, prunable: bool) -> None:
    assert bool(groups_of(Masked(width), 9, 8)["qkv"][3]) != prunable


class TokensBehindBatch(nn.Module):
    """Merges the batch with what comes before it: (T, N, C) to (C, T*N)-like orders that hold for one batch alone."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.a, self.b, self.order = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), order

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        n, c, h, w = x.shape
        if self.order == "channels before batch":
            x = x.permute(1, 0, 2, 3).reshape(c * n, h, w).reshape(c, n, h, w).permute(1, 0, 2, 3)
        else:  # batch first, channels faster
            x = x.permute(2, 3, 0, 1).reshape(h, w, n * 2, c // 2).reshape(h, w, n, c).permute(2, 3, 0, 1)
        return self.b(x)


def test_channels_that_vary_slower_than_the_batch_are_frozen() -> None:
    found = groups_of(TokensBehindBatch("channels before batch"), 3, 4, 4)
    assert "mixes channels with the batch" in found["a"][3]


def test_channels_merged_behind_the_batch_are_tied() -> None:
    assert groups_of(TokensBehindBatch("batch first"), 3, 4, 4)["a"][:2] == (4, ("a",))


def test_pixel_shuffle_ties_the_channels_of_one_output_channel() -> None:
    assert groups_of(nets.PixelShuffle(), 3, 8, 8)["a"][0] == 8


def test_module_called_twice_ties_both_calls() -> None:
    found = groups_of(nets.Twice(), 3, 8, 8)
    assert found["stem"][:3] == (8, ("stem", "a"), ("a", "last"))


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nets.conv(3, 8), nets.conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.cumsum(self.a(x), 1))


def test_unknown_operator_freezes_its_channels_and_is_listed() -> None:
    graph = nets.graph_of(Unknown(), 3, 8, 8)
    found = find_groups(graph)
    assert found.labelling.unknown == {"cumsum": 1}
    group = next(g for g in found.groups if g.name == "a")
    assert "cumsum" in group.frozen
    assert "not known to treat channels one by one" in group.frozen


class Reduced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nets.conv(3, 8), nets.conv(1, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).mean(1, keepdim=True))


def test_mean_over_channels_freezes_them() -> None:
    found = groups_of(Reduced(), 3, 8, 8)
    assert "reduces over channels" in found["a"][3]


@pytest.mark.parametrize("name", nets.ALL)
def test_every_unit_belongs_to_one_group(name: str) -> None:
    make, shape = nets.ALL[name]
    found = find_groups(nets.graph_of(make(), *shape))
    units = [unit for group in found.groups for unit in group.units.tolist()]
    assert len(units) == len(set(units))
