"""IDX files for the tests, written without the reader's code."""

import struct


def format_idx(values):
    """The IDX file of a uint8 tensor."""
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.contiguous().numpy().tobytes()
