// The rows of the patch matrix that a block multiplies, made from pixels in shared memory.
//
// A panel holds 64 rows and up to 592 columns: slices of 64 columns, rows of 128 bytes in which the chunks of 16 bytes
// are rotated by the row, so that ldmatrix (8 rows, one chunk) and the pixels of 8 patches (every other word of 7, in
// each) meet no bank twice; the last 16 columns, [row][32 bytes], lie behind.
#pragma once

#include "device/divide.cuh"
#include "device/vector.cuh"
#include "kernels/patch_embed/patch_embed.h"

namespace ivk::device {

constexpr int kPanelSlices = 9;
constexpr int kPanelChunk = 64 * kPanelSlices;  // columns of all panels but the last
constexpr int kPanelBytes = kPanelRows * (kPanelChunk + 16) * 2;
constexpr int kPatch = 14, kPatchArea = kPatch * kPatch;  // of patches that move in whole words
constexpr int kUnit = 8;                                  // patches side by side: 112 pixels, four of each lane

struct PatchEmbedArgs {
    PatchEmbedParams p;
    int k, panels, each, tiles_n;  // columns of weight; of y's rows; of y's columns, `each` of a block
    int64_t rows;                  // of the patch matrix
    Divider patches, grid_cols, area, patch;
    float factor[3], shift[3];  // (u / 255 - mean) / std as one fused multiply-add
    bool words;                 // kPatch and addresses allow units
};

__device__ inline const char* panel_word(const char* panel, int row, int word) {
    constexpr int kLine = 128, kSlices = kPanelSlices * kLine;
    const int byte = word * 4;
    if (byte >= kSlices) return panel + kSlices * kPanelRows + row * 32 + ((byte ^ (row >> 2) * 16) & 31);
    return panel + byte / kLine * kLine * kPanelRows + row * kLine + (byte + row * 16) % kLine;
}
__device__ inline void put_word(char* panel, int row, int word, uint32_t value) {
    *reinterpret_cast<uint32_t*>(const_cast<char*>(panel_word(panel, row, word))) = value;
}

// Elements from tiles' first to the corner of a patch.
__device__ inline int64_t corner_of(const PatchEmbedArgs& a, int64_t patch) {
    const uint32_t i = static_cast<uint32_t>(patch), tile = a.patches.quotient(i);
    const uint32_t n = i - tile * a.patches.divisor, gy = a.grid_cols.quotient(n), gx = n - gy * a.grid_cols.divisor;
    return tile * a.p.stride_tile + gy * a.p.patch * a.p.stride_row + gx * a.p.patch * a.p.stride_column;
}

__device__ inline float normalised(const PatchEmbedArgs& a, float u, int c) {
    return (u / 255.0f - a.p.mean[c]) / a.p.std[c];
}
__device__ inline float normalised_short(const PatchEmbedArgs& a, float u, int c) {
    return fmaf(u, a.factor[c], a.shift[c]);
}

// Whether the short form gives the bits of the formula for every byte, after rounding; all threads of a block ask.
template <typename T>
__device__ inline bool short_form_holds(const PatchEmbedArgs& a) {
    bool differs = false;
    for (int i = threadIdx.x; i < 256; i += blockDim.x)
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const float u = static_cast<float>(i);
            differs |= close2<T>(normalised(a, u, c), 0.0f) != close2<T>(normalised_short(a, u, c), 0.0f);
        }
    return !__syncthreads_or(differs);
}

// Columns [begin, begin + count), an even number, of rows [first, first + kPanelRows), one by one; zeros outside the
// matrix.
template <typename T, typename From>
__device__ inline void build_any(char* panel, const PatchEmbedArgs& a, int64_t first, int begin, int count) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (int word = lane; word < count / 2; word += 32) {
        int64_t offset[2];
        int channel[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int k = begin + word * 2 + e, c = a.area.quotient(k), in_channel = k - c * a.area.divisor;
            const int py = a.patch.quotient(in_channel), px = in_channel - py * a.patch.divisor;
            channel[e] = k < a.k ? c : -1;
            offset[e] = c * a.p.stride_channel + py * a.p.stride_row + px * a.p.stride_column;
        }
        for (int row = threadIdx.x / 32; row < kPanelRows; row += warps) {
            uint32_t value = 0;
            if (first + row < a.rows) {
                const From* const corner = static_cast<const From*>(a.p.tiles) + corner_of(a, first + row);
                float v[2] = {};
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    if (channel[e] < 0) continue;
                    const From pixel = corner[offset[e]];
                    if constexpr (std::is_same_v<From, uint8_t>)
                        v[e] = normalised(a, static_cast<float>(pixel), channel[e]);
                    else if constexpr (std::is_same_v<From, float>)
                        v[e] = pixel;
                    else
                        value |= uint32_t{pixel.bits} << 16 * e;
                }
                if constexpr (!std::is_same_v<From, T>) value = close2<T>(v[0], v[1]);
            }
            put_word(panel, row, word, value);
        }
    }
}

// Where the four pixels of a lane in a unit belong: pairs 2 lane and 2 lane + 1 of 8 x 7.
struct UnitPlace {
    int row[2], word[2];

    __device__ UnitPlace() {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int pair = threadIdx.x % 32 * 2 + i;
            row[i] = pair / (kPatch / 2);
            word[i] = pair % (kPatch / 2);
        }
    }
    __device__ void put(char* panel, int unit, int first_word, uint32_t low, uint32_t high) const {
        put_word(panel, unit * kUnit + row[0], first_word + word[0], low);
        put_word(panel, unit * kUnit + row[1], first_word + word[1], high);
    }
};

// A unit's pixel row is 84 words of interleaved channels: read in order, then three neighbours to each lane.
struct TurnThree {
    int source[3], word[3];

    __device__ TurnThree() {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            source[i] = (3 * lane + i) % 28;
            word[i] = (3 * ((lane + 28 - i) * 19 % 28) + i) / 28;  // 19 is 1 / 3 mod 28: what this lane is asked for
        }
    }
    __device__ void operator()(uint32_t (&w)[3]) const {
        uint32_t got[3];
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            const uint32_t give = word[i] == 0 ? w[0] : word[i] == 1 ? w[1] : w[2];
            got[i] = __shfl_sync(0xFFFFFFFFu, give, source[i]);
        }
#pragma unroll
        for (int i = 0; i < 3; ++i) w[i] = got[i];
    }
};

template <int kByte>
__device__ inline float byte_of(const uint32_t (&w)[3]) {  // 2^23 + u, less 2^23
    return __uint_as_float(__byte_perm(w[kByte / 4], 0x4B000000u, 0x7440u | kByte % 4)) - 0x1p23f;
}

// The whole panel of patches of 14 x 14 bytes.
template <typename T>
__device__ inline void build_bytes(char* panel, const PatchEmbedArgs& a, int64_t first) {
    constexpr int kBatch = 7;  // pixel rows of a unit under way
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const UnitPlace place;
    const TurnThree turn;
    for (int item = threadIdx.x / 32; item < kPanelRows / kUnit * (kPatch / kBatch); item += warps) {
        const int unit = item % (kPanelRows / kUnit), top = item / (kPanelRows / kUnit) * kBatch;
        const bool inside = first + unit * kUnit < a.rows && lane < 28;
        const uint8_t* const from = static_cast<const uint8_t*>(a.p.tiles) +
                                    (inside ? corner_of(a, first + unit * kUnit) + top * a.p.stride_row : 0) + lane * 4;
        uint32_t w[kBatch][3] = {};
#pragma unroll
        for (int y = 0; y < kBatch; ++y)
#pragma unroll
            for (int e = 0; e < 3; ++e)
                if (inside) w[y][e] = __ldg(reinterpret_cast<const uint32_t*>(from + y * a.p.stride_row + e * 112));
#pragma unroll
        for (int y = 0; y < kBatch; ++y) {
            turn(w[y]);
            const auto channel = [&](auto which) {
                constexpr int c = decltype(which)::value;
                float v[4] = {byte_of<c>(w[y]), byte_of<c + 3>(w[y]), byte_of<c + 6>(w[y]), byte_of<c + 9>(w[y])};
#pragma unroll
                for (int i = 0; i < 4; ++i) v[i] = normalised_short(a, v[i], c);
                if (lane < 28)
                    place.put(panel, unit, (c * kPatchArea + (top + y) * kPatch) / 2, close2<T>(v[0], v[1]),
                              close2<T>(v[2], v[3]));
            };
            channel(std::integral_constant<int, 0>{});
            channel(std::integral_constant<int, 1>{});
            channel(std::integral_constant<int, 2>{});
        }
    }
}

// The whole panel of patches of 14 x 14 floats.
template <typename T, typename From>
__device__ inline void build_floats(char* panel, const PatchEmbedArgs& a, int64_t first) {
    constexpr int kBatch = 7, kRows = 3 * kPatch;  // pixel rows of a patch, all channels
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const UnitPlace place;
    for (int item = threadIdx.x / 32; item < kPanelRows / kUnit * (kRows / kBatch); item += warps) {
        const int unit = item % (kPanelRows / kUnit), top = item / (kPanelRows / kUnit) * kBatch;
        const bool inside = first + unit * kUnit < a.rows && lane < 28;
        const From* const from = static_cast<const From*>(a.p.tiles) +
                                 (inside ? corner_of(a, first + unit * kUnit) : 0) + top / kPatch * a.p.stride_channel +
                                 top % kPatch * a.p.stride_row + lane * 4;
        float v[kBatch][4] = {};
        uint2 w[kBatch] = {};
#pragma unroll
        for (int y = 0; y < kBatch; ++y) {
            if (!inside) continue;
            if constexpr (std::is_same_v<From, float>) {
                const float4 got = __ldg(reinterpret_cast<const float4*>(from + y * a.p.stride_row));
                v[y][0] = got.x, v[y][1] = got.y, v[y][2] = got.z, v[y][3] = got.w;
            } else {
                w[y] = __ldg(reinterpret_cast<const uint2*>(from + y * a.p.stride_row));
            }
        }
#pragma unroll
        for (int y = 0; y < kBatch; ++y) {
            if constexpr (std::is_same_v<From, float>)
                w[y] = make_uint2(close2<T>(v[y][0], v[y][1]), close2<T>(v[y][2], v[y][3]));
            if (lane < 28) place.put(panel, unit, (top + y) * kPatch / 2, w[y].x, w[y].y);
        }
    }
}

}  // namespace ivk::device
