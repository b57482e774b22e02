#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/check.h"
#include "kernels/image/image.h"

namespace ivk {
namespace {

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

void check_tiles(int64_t columns, int64_t rows, int64_t size, bool thumbnail, const TensorView& tiles) {
    require(columns >= 1 && rows >= 1 && size >= 1 && columns <= kMaxSide / size && rows <= kMaxSide / size,
            "tile_pixels: grid ", columns, " x ", rows, " of size ", size, "; allowed: 1 and more, up to ", kMaxSide,
            " pixels a side");
    const int64_t count = columns * rows + (thumbnail ? 1 : 0);
    require(tiles.dtype == DType::u8 && tiles.ndim == 4 && tiles.shape[0] == count && tiles.shape[1] == size &&
                tiles.shape[2] == size && tiles.shape[3] == 3 && tiles.contiguous(),
            "tile_pixels: tiles are ", tiles, "; allowed: contiguous uint8 [", count, ", ", size, ", ", size, ", 3]");
}

void check_band(const TensorView& band, int64_t width, int64_t pixel_bytes) {
    require(band.dtype == DType::u8 && band.ndim == 3 && band.shape[2] == 3 && band.stride[2] == 1 &&
                band.shape[0] >= 1 && band.shape[1] >= 1 && band.shape[1] == width,
            "tile_pixels: pixels are ", band, "; allowed: uint8 [height, width, 3], adjacent channels, no empty side");
    require(width == 1 || (band.stride[1] == pixel_bytes && (pixel_bytes == 3 || pixel_bytes == 4)),
            "tile_pixels: pixels are ", band, "; allowed: pixels 3 or 4 bytes apart");
}

ImageParams image_problem(const TensorView& pixels, int64_t columns, int64_t rows, int64_t size, bool thumbnail,
                          bool tall_first, const TensorView& tiles) {
    const int64_t width = pixels.ndim == 3 ? pixels.shape[1] : 0;
    const int64_t apart = width == 1 ? 3 : pixels.stride[1];
    check_tiles(columns, rows, size, thumbnail, tiles);
    check_band(pixels, width, apart);
    const int64_t height = pixels.shape[0];
    require(width <= kMaxSide && height <= kMaxSide, "tile_pixels: a picture of ", width, " x ", height,
            " pixels; allowed: up to ", kMaxSide, " a side");
    require(height == 1 || pixels.stride[0] >= (width - 1) * apart + 3, "tile_pixels: pixels are ", pixels,
            "; allowed on cuda: rows that do not overlap");
    const int64_t extent = (height - 1) * pixels.stride[0] + (width - 1) * apart + 3;
    const uint8_t *from = pixels.as<const uint8_t>(), *to = tiles.as<const uint8_t>();
    require(to >= from + extent || from >= to + tiles.numel(), "tile_pixels: tiles are ", tiles,
            "; allowed: apart from pixels");
    return {from,
            height == 1 ? extent : pixels.stride[0],
            static_cast<int>(apart),
            width,
            height,
            columns,
            rows,
            size,
            thumbnail,
            tall_first,
            tiles.as<uint8_t>()};
}

bool vertical_first(const ImageParams& p, int64_t rows, int64_t columns) {
    return p.tall_first && p.height - rows * p.size > 2 * std::max<int64_t>(p.width - columns * p.size, 0);
}

int64_t image_bytes(const ImageParams& p) {
    const auto target = [&](int64_t rows, int64_t columns) {
        const int64_t wide = columns * p.size, high = rows * p.size;
        const int64_t between = vertical_first(p, rows, columns) ? high * p.width : p.height * wide;
        return 3 * (p.height * p.width + 2 * between + wide * high);
    };
    return target(p.rows, p.columns) + (p.thumbnail ? target(1, 1) : 0);
}

std::string describe(const ImageParams& p) {
    std::ostringstream text;
    text << "tiles " << p.columns << " x " << p.rows << " of size " << p.size << (p.thumbnail ? " and a thumbnail" : "")
         << " of a picture of " << p.width << " x " << p.height << " pixels, " << p.pixel_bytes << " bytes apart, rows "
         << p.stride << (p.tall_first ? ", tall first" : "") << ", addresses pixels "
         << static_cast<const void*>(p.pixels) << " tiles " << static_cast<const void*>(p.tiles);
    return text.str();
}

}  // namespace ivk
