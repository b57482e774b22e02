#include "core/simd.h"
#include "kernels/patch_embed/patch_embed.h"

namespace ivk {
namespace IVK_ISA {
namespace {

template <typename T>
void cast_run(const float* from, T* to, int64_t count) {
    for_lanes(count, [&](int64_t i, int64_t n) { put(to + i, at(from + i, n), n); });
}

// Normalised value of every byte in every channel, already in the dtype of the result.
template <typename T>
struct ByteTable {
    T value[3][256];

    ByteTable(const std::array<float, 3>& mean, const std::array<float, 3>& std) {
        float row[256];
        for (int c = 0; c < 3; ++c) {
            for (int u = 0; u < 256; ++u) row[u] = (static_cast<float>(u) / 255.0f - mean[c]) / std[c];
            cast_run(row, value[c], 256);
        }
    }
};

template <typename T>
void patchify_bytes(const PatchifyParams& p, int64_t begin, int64_t end) {
    const ByteTable<T> table(p.mean, p.std);
    const int64_t area = p.patch * p.patch;
    for (int64_t band = begin; band < end; ++band) {
        const int64_t tile = band / p.grid_rows, gy = band % p.grid_rows;
        T* a = static_cast<T*>(p.a) + band * p.grid_cols * 3 * area;
        for (int64_t py = 0; py < p.patch; ++py) {
            const uint8_t* pixel =
                static_cast<const uint8_t*>(p.tiles) + tile * p.stride_tile + (gy * p.patch + py) * p.stride_row;
            for (int64_t gx = 0; gx < p.grid_cols; ++gx) {
                T* to = a + gx * 3 * area + py * p.patch;
                for (int64_t px = 0; px < p.patch; ++px, pixel += 3) {
                    to[px] = table.value[0][pixel[0]];
                    to[area + px] = table.value[1][pixel[1]];
                    to[2 * area + px] = table.value[2][pixel[2]];
                }
            }
        }
    }
}

template <typename From, typename T>
void patchify_floats(const PatchifyParams& p, int64_t begin, int64_t end) {
    const int64_t area = p.patch * p.patch;
    for (int64_t band = begin; band < end; ++band) {
        const int64_t tile = band / p.grid_rows, gy = band % p.grid_rows;
        T* a = static_cast<T*>(p.a) + band * p.grid_cols * 3 * area;
        for (int64_t row = 0; row < 3 * p.patch; ++row) {  // channel, then pixel row: the order of a's columns
            const From* from = static_cast<const From*>(p.tiles) + tile * p.stride_tile +
                               row / p.patch * p.stride_channel + (gy * p.patch + row % p.patch) * p.stride_row;
            for (int64_t gx = 0; gx < p.grid_cols; ++gx) {
                T* to = a + gx * 3 * area + row * p.patch;
                if constexpr (std::is_same_v<From, T>)
                    std::memcpy(to, from + gx * p.patch, p.patch * sizeof(T));
                else
                    cast_run(from + gx * p.patch, to, p.patch);
            }
        }
    }
}

template <typename T>
void patchify_bands(const PatchifyParams& p, int64_t begin, int64_t end) {
    if (p.tile_dtype == DType::u8)
        patchify_bytes<T>(p, begin, end);
    else if (p.tile_dtype == DType::f32)
        patchify_floats<float, T>(p, begin, end);
    else
        patchify_floats<T, T>(p, begin, end);
}

template <typename T>
void position_rows(const PositionParams& p, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
        const T* from = r == 0 ? static_cast<const T*>(p.cls) : static_cast<const T*>(p.product) + (r - 1) * p.width;
        const T* pos = static_cast<const T*>(p.pos) + r * p.width;
        T* y = static_cast<T*>(p.y) + r * p.width;
        for_lanes(p.width, [&](int64_t i, int64_t n) { put(y + i, at(from + i, n) + at(pos + i, n), n); });
    }
}

}  // namespace

const PatchEmbedTable patch_embed_table = {patchify_bands<float>, patchify_bands<bf16>, patchify_bands<f16>,
                                           position_rows<float>,  position_rows<bf16>,  position_rows<f16>};

}  // namespace IVK_ISA
}  // namespace ivk
