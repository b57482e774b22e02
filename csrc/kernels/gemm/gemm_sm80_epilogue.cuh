// From sums in registers to y: bias, activation, layer scale and residual in fp32, one rounding. Four lanes share 32
// columns of a row: turned among them, each has eight neighbours and stores one vector.
#pragma once

#include "device/activation.cuh"
#include "device/quad.cuh"
#include "device/statistics.cuh"
#include "device/vector.cuh"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/gemm_tiles.h"

namespace ivk::device {

// Two neighbouring elements, of which n are there; aligned, both or none.
template <typename T, bool kAligned>
__device__ inline uint32_t load_pair(const T* from, int n) {
    if constexpr (kAligned) return n > 0 ? *reinterpret_cast<const uint32_t*>(from) : 0;
    uint32_t word = n > 0 ? from[0].bits : 0;
    if (n > 1) word |= uint32_t{from[1].bits} << 16;
    return word;
}

template <typename T>
__device__ inline float2 open2(uint32_t word) {
    const Vector v{{word}};
    return make_float2(open<T>(v, 0), open<T>(v, 1));
}

template <typename T, int kTile, bool kAligned>
struct Epilogues {
    static constexpr GemmTile kShape = kGemmTiles[kTile];
    static constexpr int kM = kShape.wm / 16, kN = kShape.wn / 8;

    const GemmParams& p;
    int64_t row, column;    // of this warp's corner in y
    const float2* factors;  // of this warp's rows, in shared memory; with a norm folded in

    // The sums of two neighbouring columns with x's norm: r * sum - r * mean * (sum of weight's row) + bias.
    __device__ static float2 normed(float2 v, float2 row, float4 columns) {
        return make_float2(fmaf(row.x, v.x, fmaf(-row.y, columns.x, columns.y)),
                           fmaf(row.x, v.y, fmaf(-row.y, columns.z, columns.w)));
    }
    __device__ float4 pair_of_columns(int at, int n) const {
        const float2* const from = reinterpret_cast<const float2*>(p.fold.columns) + column + at;
        if constexpr (kAligned) return n > 0 ? *reinterpret_cast<const float4*>(from) : float4{};
        const float2 one = n > 0 ? from[0] : float2{}, two = n > 1 ? from[1] : float2{};
        return make_float4(one.x, one.y, two.x, two.y);
    }
    __device__ static float2 after(Epilogue epilogue, float2 v, bool biased, uint32_t bias) {
        if (biased) {
            const float2 b = open2<T>(bias);
            v.x += b.x, v.y += b.y;
        }
        if (epilogue == Epilogue::gelu) v.x = gelu(v.x), v.y = gelu(v.y);
        return v;
    }
    __device__ static float2 added(float2 residual, float2 v, bool scaled, uint32_t scale) {
        if (scaled) {
            const float2 s = open2<T>(scale);
            v.x *= s.x, v.y *= s.y;
        }
        return make_float2(residual.x + v.x, residual.y + v.y);
    }

    __device__ void operator()(const float (&sums)[kM][kN][4]) const {
        const int lane = threadIdx.x % 32, t = lane % 4;
        const int left = static_cast<int>(min(p.weight.n - column, int64_t{kShape.wn}));
#pragma unroll
        for (int group = 0; group < kN / 4; ++group) {  // 32 columns
            uint32_t bias[4] = {}, scale[4] = {};
            float4 columns[4] = {};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int at = group * 32 + i * 8 + t * 2, n = min(max(left - at, 0), 2);
                if (p.bias != nullptr) bias[i] = load_pair<T, kAligned>(static_cast<const T*>(p.bias) + column + at, n);
                if (p.fold.rows != nullptr) columns[i] = pair_of_columns(at, n);
                if (p.scale != nullptr)
                    scale[i] = load_pair<T, kAligned>(static_cast<const T*>(p.scale) + column + at, n);
            }
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float2 v[4], norm{};
                    if (p.fold.rows != nullptr) norm = factors[m * 16 + half * 8 + lane / 4];
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float (&s)[4] = sums[m][group * 4 + i];
                        v[i] = make_float2(s[half * 2], s[half * 2 + 1]);
                        if (p.fold.rows != nullptr) v[i] = normed(v[i], norm, columns[i]);
                        v[i] = after(p.epilogue, v[i], p.bias != nullptr, bias[i]);
                    }
                    row_of_y(row + m * 16 + half * 8 + lane / 4, group * 32, left, v, scale);
                }
        }
    }

    // Columns [first, first + 32) of a row, in pairs; four lanes share it.
    __device__ void row_of_y(int64_t y_row, int first, int left, float2 (&v)[4], const uint32_t (&scale)[4]) const {
        if (p.epilogue != Epilogue::residual)
            put(y_row, first, left, v);
        else if (p.stream == DType::f32)
            add_wide(y_row, first, left, v, scale);
        else
            add(y_row, first, left, v, scale);
    }

    __device__ int count(int64_t y_row, int at, int left) const {  // of a pair's elements, how many are in y
        return y_row < p.m ? min(max(left - at, 0), 2) : 0;
    }

    __device__ void put(int64_t y_row, int first, int left, const float2 (&v)[4]) const {
        const int t = threadIdx.x % 4;
        T* const y = static_cast<T*>(p.y) + y_row * p.stride_y + column;
        Vector out;
#pragma unroll
        for (int i = 0; i < 4; ++i) out.word[i] = close2<T>(v[i].x, v[i].y);
        if constexpr (kAligned) {
            const int at = first + t * 8;  // of this lane's vector
            turn_quad(out.word);
            if (y_row < p.m && at < left) store_vector<T, true>(y + at, out, kLanes<T>);
            if (p.fold.result != nullptr) tell(y_row, first, left, out);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int at = first + i * 8 + t * 2, n = count(y_row, at, left);
                if (n > 0) y[at].bits = static_cast<uint16_t>(out.word[i]);
                if (n > 1) y[at + 1].bits = static_cast<uint16_t>(out.word[i] >> 16);
            }
            turn_quad(out.word);
            if (p.fold.result != nullptr) tell(y_row, first, left, out);
        }
    }

    // Statistics of a part of y as stored, for the next norm.
    __device__ void tell(int64_t y_row, int first, int left, const Vector& eight) const {
        const int t = threadIdx.x % 4;
        const int64_t part = (column + first) / kPart;
        const float2 s = part_statistics<T>(eight, min(max(left - first - t * 8, 0), 8), min(left - first, kPart));
        if (t == 0 && y_row < p.m && part < p.fold.parts)
            reinterpret_cast<float2*>(p.fold.result + part * p.fold.result_apart)[y_row] = s;
    }

    __device__ void add(int64_t y_row, int first, int left, float2 (&v)[4], const uint32_t (&scale)[4]) const {
        const int t = threadIdx.x % 4;
        const T* const r = static_cast<const T*>(p.residual) + y_row * p.stride_r + column;
        Vector old{};
        if constexpr (kAligned) {
            const int at = first + t * 8;
            if (y_row < p.m && at < left) old = load_vector<T, true>(r + at, kLanes<T>);
            turn_quad(old.word);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int at = first + i * 8 + t * 2;
                old.word[i] = load_pair<T, false>(r + at, count(y_row, at, left));
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = added(open2<T>(old.word[i]), v[i], p.scale != nullptr, scale[i]);
        put(y_row, first, left, v);
    }

    // A quad's pairs of floats are whole sectors as they are.
    __device__ void add_wide(int64_t y_row, int first, int left, float2 (&v)[4], const uint32_t (&scale)[4]) const {
        const float* const r = static_cast<const float*>(p.residual) + y_row * p.stride_r + column;
        float* const y = static_cast<float*>(p.y) + y_row * p.stride_y + column;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int at = first + i * 8 + threadIdx.x % 4 * 2, n = count(y_row, at, left);
            if constexpr (kAligned) {
                if (n == 0) continue;
                const float2 old = *reinterpret_cast<const float2*>(r + at);
                __stwb(reinterpret_cast<float2*>(y + at), added(old, v[i], p.scale != nullptr, scale[i]));
            } else {
                const float2 old = make_float2(n > 0 ? r[at] : 0.0f, n > 1 ? r[at + 1] : 0.0f);
                const float2 sum = added(old, v[i], p.scale != nullptr, scale[i]);
                if (n > 0) y[at] = sum.x;
                if (n > 1) y[at + 1] = sum.y;
            }
        }
    }
};

}  // namespace ivk::device
