# SPDX-License-Identifier: Apache-2.0
"""Memory that JAX's arrays take on each device."""

import jax


def live_bytes() -> dict[int, int]:
    """Bytes of all arrays on each device, each buffer once."""
    buffers: dict[tuple[int, int], int] = {}
    for array in jax.live_arrays():
        for shard in array.addressable_shards:
            place = (shard.device.id, shard.data.unsafe_buffer_pointer())
            buffers[place] = max(buffers.get(place, 0), shard.data.nbytes)
    return {
        device.id: sum(n for (i, _), n in buffers.items() if i == device.id)
        for device in jax.local_devices()
    }
