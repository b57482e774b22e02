// One pass of a resize on the GPU: along rows or along columns, into rows or into tiles.
#pragma once

#include "kernels/image/image.h"

namespace ivk {

// Four neighbouring source positions, the first a multiple of four: halves of two weights each, as WeightPair.
struct alignas(16) WeightQuad {
    int32_t high[2], low[2];
};

// Where bytes go: tiles of `tile_rows` rows of `tile_bytes`, `columns` side by side; rows that are no tiles are one.
struct ImageRows {
    uint8_t* to;
    int64_t stride;  // bytes between rows of a tile
    int tile_bytes, tile_rows, columns;
};

struct ImagePass {
    const uint8_t* from;
    int64_t stride;     // bytes between rows of `from`
    int pixel_bytes;    // of `from`
    int width, height;  // of `from`: pixels, rows
    int row_bytes;      // of `from`: of the last pixel only three bytes need exist
    int outputs;        // pixels of a row, or rows, that are made
    bool vertical;
    const Window* windows;    // one for each output: first and count in pairs (vertical) or quads, offset of weights
    const WeightPair* pairs;  // vertical
    const WeightQuad* quads;  // horizontal
    ImageRows rows;
};

}  // namespace ivk
