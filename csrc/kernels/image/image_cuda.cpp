#include <cstring>

#include "core/check.h"
#include "core/cuda/memory.h"
#include "kernels/image/image_pass.h"

namespace ivk {
namespace {

constexpr int64_t kRowBytes = 32;  // rows between two passes begin at multiples of it

int64_t padded(int64_t bytes) { return (bytes + kRowBytes - 1) / kRowBytes * kRowBytes; }

// Tables of all passes side by side, to be copied at once.
class Tables {
  public:
    template <typename T>
    int64_t add(const std::vector<T>& values) {
        const int64_t at = padded(static_cast<int64_t>(bytes_.size()));
        bytes_.resize(at + values.size() * sizeof(T));
        std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(T));
        return at;
    }
    const std::vector<uint8_t>& bytes() const { return bytes_; }

  private:
    std::vector<uint8_t> bytes_;
};

// Windows in quads instead of pairs.
void to_quads(ResizeAxis& axis, std::vector<WeightQuad>& quads) {
    for (Window& w : axis.windows) {
        const int64_t first = w.first / 2, count = (w.first + w.count + 1) / 2 - first;
        const auto pair = [&](int64_t at) {
            return at < w.first || at >= w.first + w.count ? WeightPair{0, 0} : axis.weights[w.offset + at - w.first];
        };
        const int64_t offset = static_cast<int64_t>(quads.size());
        for (int64_t q = first; q < first + count; ++q) {
            const WeightPair one = pair(2 * q), two = pair(2 * q + 1);
            quads.push_back({{one.high, two.high}, {one.low, two.low}});
        }
        w = {first, count, offset};
    }
}

struct Planned {
    ImagePass pass;
    int64_t windows, weights;  // where they begin in the tables
};

Planned plan(Tables& tables, bool vertical, int64_t source, int64_t target, const uint8_t* from, int64_t stride,
             int pixel_bytes, int64_t width, int64_t height, const ImageRows& rows) {
    ResizeAxis axis = resize_axis(source, target);
    std::vector<WeightQuad> quads;
    if (!vertical) to_quads(axis, quads);
    const int64_t windows = tables.add(axis.windows);
    const int64_t weights = vertical ? tables.add(axis.weights) : tables.add(quads);
    return {{from, stride, pixel_bytes, static_cast<int>(width), static_cast<int>(height),
             static_cast<int>((width - 1) * pixel_bytes + 3), static_cast<int>(target), vertical, nullptr, nullptr,
             nullptr, rows},
            windows,
            weights};
}

}  // namespace

void image_cuda(const ImageParams& p, const Device& on, Stream stream) {
    std::string why;
    require(supports_image_sm80(p, on, &why), "tile_pixels: no CUDA kernel takes ", describe(p), "; image_sm80: ", why);
    struct Target {
        int64_t columns, rows;
        uint8_t* to;
    };
    std::vector<Target> targets = {{p.columns, p.rows, p.tiles}};
    if (p.thumbnail) targets.push_back({1, 1, p.tiles + p.columns * p.rows * p.size * p.size * 3});

    // Rows between two passes: of the picture's height and the target's width, or the other way round.
    int64_t between = 0;
    for (const Target& t : targets) {
        const bool tall = vertical_first(p, t.rows, t.columns);
        between = std::max(between, tall ? t.rows * p.size * padded((p.width - 1) * p.pixel_bytes + 3)
                                         : p.height * padded(3 * t.columns * p.size));
    }
    const DeviceMemory memory(between);
    auto* const middle = static_cast<uint8_t*>(memory.data());

    Tables tables;
    std::vector<Planned> passes;
    for (const Target& t : targets) {
        const int64_t wide = t.columns * p.size, high = t.rows * p.size;
        const int side = static_cast<int>(p.size);
        const ImageRows tiles{t.to, 3 * p.size, 3 * side, side, static_cast<int>(t.columns)};
        const bool tall = vertical_first(p, t.rows, t.columns);
        const int64_t row = tall ? (p.width - 1) * p.pixel_bytes + 3 : 3 * wide, rows = tall ? high : p.height;
        const ImageRows kept{middle, padded(row), static_cast<int>(row), static_cast<int>(rows), 1};
        const int64_t along = tall ? p.height : p.width, across = tall ? p.width : p.height;
        passes.push_back(
            plan(tables, tall, along, tall ? high : wide, p.pixels, p.stride, p.pixel_bytes, p.width, p.height, kept));
        passes.push_back(plan(tables, !tall, across, tall ? wide : high, middle, kept.stride, tall ? p.pixel_bytes : 3,
                              tall ? p.width : wide, rows, tiles));
    }
    const DeviceMemory held(static_cast<int64_t>(tables.bytes().size()));
    copy_bytes(held.data(), tables.bytes().data(), static_cast<int64_t>(tables.bytes().size()), stream);
    const auto* const base = static_cast<const uint8_t*>(held.data());
    for (Planned& one : passes) {
        one.pass.windows = reinterpret_cast<const Window*>(base + one.windows);
        one.pass.pairs = reinterpret_cast<const WeightPair*>(base + one.weights);
        one.pass.quads = reinterpret_cast<const WeightQuad*>(base + one.weights);
        image_sm80(one.pass, stream);
    }
    synchronize(stream);  // tables and rows are given back
}

}  // namespace ivk
