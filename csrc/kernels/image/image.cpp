#include "kernels/image/image.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
void tile_pixels(const std::vector<TensorView>& bands, int64_t columns, int64_t rows, int64_t size, bool thumbnail,
                 bool tall_first, const TensorView& tiles, int threads) {
    require(!bands.empty(), "tile_pixels: no pixels");
    check_tiles(columns, rows, size, thumbnail, tiles);
    TileParams params{};
    params.width = bands[0].ndim == 3 ? bands[0].shape[1] : 0;
    params.pixel_bytes = static_cast<int>(params.width == 1 ? 3 : bands[0].stride[1]);
    params.size = size;
    std::vector<const uint8_t*> pointers;
    for (const TensorView& band : bands) {
        check_band(band, params.width, params.pixel_bytes);
        for (int64_t y = 0; y < band.shape[0]; ++y) pointers.push_back(band.as<const uint8_t>() + y * band.stride[0]);
    }
    params.rows = pointers.data();
    params.height = static_cast<int64_t>(pointers.size());
    require(params.width <= kMaxSide && params.height <= kMaxSide, "tile_pixels: a picture of ", params.width, " x ",
            params.height, " pixels; allowed: up to ", kMaxSide, " a side");
    const int64_t count = columns * rows + (thumbnail ? 1 : 0);
    ResizeAxis axes[2][3];
    const auto add_target = [&](int64_t wide, int64_t high, uint8_t* to) {
        ResizeAxis* axis = axes[params.num_targets];
        axis[0] = resize_axis(params.width, wide * size);
        axis[1] = resize_axis(params.height, high * size);
        const bool tall =
            tall_first && params.height - high * size > 2 * std::max<int64_t>(params.width - wide * size, 0);
        if (tall) axis[2] = resize_axis(high * size, high * size);
        params.targets[params.num_targets++] = {&axis[0], tall ? &axis[2] : &axis[1], tall ? &axis[1] : nullptr, wide,
                                                to};
    };
    add_target(columns, rows, tiles.as<uint8_t>());
    if (thumbnail) add_target(1, 1, tiles.as<uint8_t>() + (count - 1) * size * size * 3);
    // Bands share a few source rows at their borders, so there are no more of them than threads.
    const int64_t parts = std::min<int64_t>(std::max(threads == 0 ? default_threads() : threads, 1), size);
    const ImageTable& table = IVK_SELECT(image_table);
    parallel_for(parts, 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t part = begin; part < end; ++part) table.tile_band(params, part, parts);
    });
}

}  // namespace ivk
