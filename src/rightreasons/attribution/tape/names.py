"""The operators that relevance can pass, by what they do to it."""

from __future__ import annotations

from rightreasons.attribution.operators import ACTIVATIONS, words
from rightreasons.attribution.tape.linear_map import WEIGHTED

MOVES = words(
    """flatten reshape reshape_as view view_as permute transpose t T mT swapaxes swapdims movedim moveaxis squeeze
    unsqueeze unflatten contiguous clone detach data alias to float double half bfloat16 type type_as cpu cuda getitem
    select narrow index_select take_along_dim gather chunk split split_with_sizes tensor_split unbind flip fliplr flipud
    rot90 roll channel_shuffle pixel_shuffle pixel_unshuffle pad unfold expand expand_as broadcast_to repeat tile
    repeat_interleave cat stack hstack vstack masked_fill where positive diagonal dropout dropout1d dropout2d dropout3d
    alpha_dropout feature_dropout feature_alpha_dropout"""
)
"""Values go to other places, some to several or to none, and stay what they are."""

AVERAGES = words(
    """mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate
    upsample"""
)
"""Values are mixed with constant weights."""

SUMS = words("add sub rsub neg mul div")
"""Sums and multiples; ``mul`` and ``div`` by constants."""

MAXIMA = words(
    """max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax max maximum"""
)
"""The largest value takes all."""

PRODUCTS = words("matmul einsum baddbmm")
"""Products of two tensors of the pass, or of one and a constant."""

NORMALIZATIONS = words("batch_norm layer_norm rms_norm group_norm")

ATTENTION = words("softmax scaled_dot_product_attention")

CONSTANTS = words(
    "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty new_tensor"
)
"""What they make does not hang on the image's values."""

SHAPED_LIKE = words("view_as reshape_as expand_as type_as")
"""Of their second tensor only the form counts."""

READS = words("item tolist numpy __array__ __float__ __int__ __bool__ __index__ __complex__ __setitem__ backward")
"""What they do cannot be followed."""

NONNEGATIVE = words("relu relu6 sigmoid hardsigmoid softplus softmax")

GATES = words("sigmoid hardsigmoid")

DROPOUT = words("dropout dropout1d dropout2d dropout3d feature_dropout")

RULED = MOVES | AVERAGES | SUMS | MAXIMA | PRODUCTS | NORMALIZATIONS | ATTENTION | ACTIVATIONS | frozenset(WEIGHTED)
"""Every operator that relevance can pass."""
