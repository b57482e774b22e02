// From sums in registers to y: bias and position in fp32, one rounding. Four lanes share 32 columns of a row: turned
// among them, each has eight neighbours and stores one vector.
#pragma once

#include "device/quad.cuh"
#include "kernels/patch_embed/patch_embed_sm80_panel.cuh"

namespace ivk::device {

constexpr int kWarpRows = 32, kWarpColumns = 64;  // of a warp's sums
constexpr int kEmbedM = kWarpRows / 16, kEmbedN = kWarpColumns / 8;

// row, column: of the warp's corner in the products.
template <typename T, bool kAligned>
__device__ inline void store_sums(const PatchEmbedArgs& a, int64_t row, int64_t column,
                                  const float (&sums)[kEmbedM][kEmbedN][4]) {
    const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
    for (int group = 0; group < kWarpColumns / 32; ++group) {
        const int64_t at = column + group * 32 + t * kLanes<T>;  // of this lane's vector
        const int n = static_cast<int>(max(min(a.p.width - at, int64_t{kLanes<T>}), int64_t{0}));
        Vector bias{};
        if (n > 0) bias = load_vector<T, kAligned>(static_cast<const T*>(a.p.bias) + at, n);
        turn_quad(bias.word);
#pragma unroll
        for (int m = 0; m < kEmbedM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int64_t i = row + m * 16 + half * 8 + lane / 4;
                const bool inside = i < a.rows;
                const uint32_t tile = a.patches.quotient(static_cast<uint32_t>(inside ? i : 0));
                const int64_t patch = i - int64_t{tile} * a.patches.divisor, y_row = i + tile + 1;
                Vector pos{}, out;
                if (inside && n > 0)
                    pos = load_vector<T, kAligned>(static_cast<const T*>(a.p.pos) + (1 + patch) * a.p.width + at, n);
                turn_quad(pos.word);
                float2 v[4];
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    v[e].x = sums[m][group * 4 + e][half * 2] + open<T>(bias, e * 2) + open<T>(pos, e * 2);
                    v[e].y = sums[m][group * 4 + e][half * 2 + 1] + open<T>(bias, e * 2 + 1) + open<T>(pos, e * 2 + 1);
                    out.word[e] = close2<T>(v[e].x, v[e].y);
                }
                if (a.p.out == a.p.dtype) {
                    turn_quad(out.word);
                    if (inside && n > 0)
                        store_vector<T, kAligned>(static_cast<T*>(a.p.y) + y_row * a.p.width + at, out, n);
                    continue;
                }
#pragma unroll
                for (int e = 0; e < 4; ++e) {  // a quad's pairs of floats are whole sectors as they are
                    const int64_t pair = column + group * 32 + e * 8 + t * 2;
                    float* const y = static_cast<float*>(a.p.y) + y_row * a.p.width + pair;
                    if (!inside || pair >= a.p.width) continue;
                    if constexpr (kAligned) {
                        __stwb(reinterpret_cast<float2*>(y), v[e]);
                    } else {
                        y[0] = v[e].x;
                        if (pair + 1 < a.p.width) y[1] = v[e].y;
                    }
                }
            }
    }
}

// cls + pos[0] for every tile whose first patch lies in the panel; as many columns as threads.
template <typename T, bool kAligned>
__device__ inline void store_cls(const PatchEmbedArgs& a, int64_t first, int64_t column) {
    constexpr int kFour = 4;
    const uint32_t begin = a.patches.quotient(static_cast<uint32_t>(first + a.patches.divisor - 1));
    const uint32_t last = static_cast<uint32_t>(min(first + kPanelRows, a.rows)) - 1;
    const int64_t tiles = int64_t{a.patches.quotient(last)} + 1 - begin, vectors = blockDim.x / kFour;
    for (int64_t i = threadIdx.x; i < tiles * vectors; i += blockDim.x) {
        const int64_t at = column + i % vectors * kFour,
                      y_row = (begin + i / vectors) * (int64_t{a.patches.divisor} + 1);
        const int n = static_cast<int>(min(a.p.width - at, int64_t{kFour}));
        if (n <= 0) continue;
        float cls[kFour], pos[kFour];
        load_floats<T, kFour, kAligned>(static_cast<const T*>(a.p.cls) + at, n, cls);
        load_floats<T, kFour, kAligned>(static_cast<const T*>(a.p.pos) + at, n, pos);
#pragma unroll
        for (int e = 0; e < kFour; ++e) cls[e] += pos[e];
        if (a.p.out == a.p.dtype)
            store_floats<T, kFour, kAligned>(static_cast<T*>(a.p.y) + y_row * a.p.width + at, cls, n);
        else
            store_floats<float, kFour, kAligned>(static_cast<float*>(a.p.y) + y_row * a.p.width + at, cls, n);
    }
}

}  // namespace ivk::device
