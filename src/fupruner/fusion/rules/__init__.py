"""The catalogue in the order in which it is applied; the reason for each place is said here."""

from __future__ import annotations

from collections.abc import Iterable

from fupruner.errors import unknown_name
from fupruner.fusion.rule import Rule
from fupruner.fusion.rules.affine import AffineAfterLayer, AffineBeforeLayer
from fupruner.fusion.rules.clean_up import MergeClips, MergePermutes, RemoveNoOp
from fupruner.fusion.rules.concat import ConcatStack, ConcatStackWide, SameInputStack
from fupruner.fusion.rules.conv_chain import ConvAfterConv, ConvAfterConvWide
from fupruner.fusion.rules.linear import LinearAsConv
from fupruner.fusion.rules.norm_after import NormAfterLayer
from fupruner.fusion.rules.parallel_sum import ParallelSum, ParallelSumWide
from fupruner.fusion.rules.permutation import PermutationIntoWeights
from fupruner.fusion.rules.pooling import (
    ActivationBeforePool,
    ConvBeforePool,
    PoolAsDepthwise,
    PoolBeforePointwise,
    PoolIntoFilters,
)
from fupruner.fusion.rules.preactivation import PreactivationIntoFilters
from fupruner.fusion.rules.shortcut import ShortcutIntoFilters
from fupruner.fusion.rules.shortcut_back import FiltersIntoShortcut
from fupruner.fusion.rules.sum_of_convs import SumOfConvs
from fupruner.fusion.rules.upsample import UpsampleIntoConv

ORDER: tuple[Rule, ...] = (
    RemoveNoOp(),  # first: neighbours have to meet before any other rule can see them
    MergePermutes(),
    MergeClips(),
    NormAfterLayer(),  # before the other foldings: they are written for layers without norms between them
    AffineAfterLayer(),
    AffineBeforeLayer(),  # after the foldings backwards, which never need padding
    PermutationIntoWeights(),  # before merging: a permutation between two layers hides the pair
    ParallelSum(),  # before chains: a chain merged first could end parallel to nothing
    ActivationBeforePool(),
    PoolBeforePointwise(),  # before pools are merged: the swap saves work, the merge does not
    UpsampleIntoConv(),
    ConcatStack(),
    ConvBeforePool(),
    ConvAfterConv(),  # last of the basic rules: it swallows layers that the others look for
    ShortcutIntoFilters(),  # first of the rules that add filters: it needs the block as it was written
    PreactivationIntoFilters(),  # after it: a projecting block is an ordinary shortcut
    ConvAfterConvWide(),  # after shortcuts: only then is a projection read by the next expansion alone
    ParallelSumWide(),
    SumOfConvs(),  # after everything that removes an Add without a concatenation
    ConcatStackWide(),
    PoolIntoFilters(),
    SameInputStack(),  # from here on: only on request
    FiltersIntoShortcut(),
    PoolAsDepthwise(),
    LinearAsConv(),
)


def select(level: str, *, only: Iterable[str] = (), without: Iterable[str] = ()) -> list[Rule]:
    """Rules of a level in order.

    Args:
        level: ``none``, ``basic``, ``aggressive`` or ``auto`` (all rules; the caller gives the engine a cost model).
        only: names of rules to keep; all of the level when empty. Rules that run on request must be named here.
        without: names of rules to leave out.

    Raises:
        InputError: a level or rule is unknown; the nearest names are suggested.
    """
    names = {rule.name for rule in ORDER}
    for name in (*only, *without):
        if name not in names:
            raise unknown_name("fusion rule", name, names)
    levels: dict[str, set[str]] = {
        "none": set(),
        "basic": {"basic"},
        "aggressive": {"basic", "aggressive"},
        "auto": {"basic", "aggressive"},
    }
    if level not in levels:
        raise unknown_name("fusion level", level, levels)
    chosen = set(only)
    allowed = levels[level] | ({"request"} if chosen and level != "none" else set())
    return [r for r in ORDER if r.level in allowed and r.name not in set(without) and (not chosen or r.name in chosen)]
