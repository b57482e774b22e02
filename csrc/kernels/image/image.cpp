#include "kernels/image/image.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
namespace {

constexpr int64_t kMaxSide = 1 << 24;  // positions stay exact in float32, which Pillow uses for the source box

// Keys' cubic convolution with a = -0.5. The order of operations is part of the contract: weights are rounded from it.
double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

WeightPair split(int32_t first, int32_t second) {
    const auto pack = [](int32_t a, int32_t b) {
        return static_cast<int32_t>((static_cast<uint32_t>(b) << 16) | (static_cast<uint32_t>(a) & 0xffffu));
    };
    constexpr int32_t mask = (1 << kLowBits) - 1;
    return {pack(first >> kLowBits, second >> kLowBits), pack(first & mask, second & mask)};
}

}  // namespace

ResizeAxis resize_axis(int64_t source, int64_t target) {
    const double scale = static_cast<double>(source) / static_cast<double>(target);
    const double stretch = std::max(scale, 1.0);
    const double support = 2.0 * stretch;
    const double shrink = 1.0 / stretch;
    ResizeAxis axis;
    axis.windows.reserve(target);
    std::vector<double> exact;
    std::vector<int32_t> weights;
    for (int64_t i = 0; i < target; ++i) {
        const double centre = (static_cast<double>(i) + 0.5) * scale;
        // At scale 1 every other weight is exactly zero (and Pillow skips the pass).
        const int64_t begin = scale == 1.0 ? i : std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0);
        const int64_t end = scale == 1.0 ? i + 1 : std::min(static_cast<int64_t>(centre + support + 0.5), source);
        exact.clear();
        double total = 0.0;
        for (int64_t x = begin; x < end; ++x) {
            // Pillow counts from the window's start: (x + begin) - centre + 0.5, in this order.
            exact.push_back(bicubic((static_cast<double>(x) - centre + 0.5) * shrink));
            total += exact.back();
        }
        weights.clear();
        for (double w : exact) {
            if (total != 0.0) w /= total;
            const double fixed = w * (1 << kWeightBits);
            weights.push_back(static_cast<int32_t>(w < 0 ? fixed - 0.5 : fixed + 0.5));
        }
        Window window{begin / 2, (end + 1) / 2 - begin / 2, static_cast<int64_t>(axis.weights.size())};
        const auto weight = [&](int64_t x) { return x < begin || x >= end ? 0 : weights[x - begin]; };
        for (int64_t p = window.first; p < window.first + window.count; ++p)
            axis.weights.push_back(split(weight(2 * p), weight(2 * p + 1)));
        axis.windows.push_back(window);
        axis.longest = std::max(axis.longest, window.count);
    }
    return axis;
}

void tile_pixels(const std::vector<TensorView>& bands, int64_t columns, int64_t rows, int64_t size, bool thumbnail,
                 bool tall_first, const TensorView& tiles, int threads) {
    require(!bands.empty(), "tile_pixels: no pixels");
    require(columns >= 1 && rows >= 1 && size >= 1 && columns <= kMaxSide / size && rows <= kMaxSide / size,
            "tile_pixels: grid ", columns, " x ", rows, " of size ", size, "; allowed: 1 and more, up to ", kMaxSide,
            " pixels a side");
    TileParams params{};
    params.width = bands[0].ndim == 3 ? bands[0].shape[1] : 0;
    params.pixel_bytes = static_cast<int>(params.width == 1 ? 3 : bands[0].stride[1]);
    params.size = size;
    std::vector<const uint8_t*> pointers;
    for (const TensorView& band : bands) {
        require(band.dtype == DType::u8 && band.ndim == 3 && band.shape[2] == 3 && band.stride[2] == 1 &&
                    band.shape[0] >= 1 && band.shape[1] >= 1 && band.shape[1] == params.width,
                "tile_pixels: pixels are ", band.describe(),
                "; allowed: uint8 [height, width, 3], adjacent channels, no empty side");
        require(params.width == 1 ||
                    (band.stride[1] == params.pixel_bytes && (params.pixel_bytes == 3 || params.pixel_bytes == 4)),
                "tile_pixels: pixels are ", band.describe(), "; allowed: pixels 3 or 4 bytes apart");
        for (int64_t y = 0; y < band.shape[0]; ++y) pointers.push_back(band.as<const uint8_t>() + y * band.stride[0]);
    }
    params.rows = pointers.data();
    params.height = static_cast<int64_t>(pointers.size());
    require(params.width <= kMaxSide && params.height <= kMaxSide, "tile_pixels: a picture of ", params.width, " x ",
            params.height, " pixels; allowed: up to ", kMaxSide, " a side");
    const int64_t count = columns * rows + (thumbnail ? 1 : 0);
    require(tiles.dtype == DType::u8 && tiles.ndim == 4 && tiles.shape[0] == count && tiles.shape[1] == size &&
                tiles.shape[2] == size && tiles.shape[3] == 3 && tiles.contiguous(),
            "tile_pixels: tiles are ", tiles.describe(), "; allowed: contiguous uint8 [", count, ", ", size, ", ", size,
            ", 3]");

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
