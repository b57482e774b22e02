// SwiGLU behind its product: rows of the weight in turns of eight of the gate and the eight of up that belong to them,
// so that a lane holds both sums of a column of y.
#pragma once

#include "device/tile.cuh"
#include "kernels/gemm/gemm_sm80_epilogue.cuh"

namespace ivk::device {

constexpr int kTurn = 8;  // rows

// Rows [first, first + kRows) of the weight in turns; inner: rows of the gate, and of up.
template <typename T, int kRows, int kThreads, bool kAligned>
struct GatedCopy : TileCopy<T, kRows, kThreads, kAligned> {
    using Base = TileCopy<T, kRows, kThreads, kAligned>;
    static_assert(Base::kApart % (2 * kTurn) == 0);  // a thread's rows are all the gate's, or all up's

    __device__ GatedCopy(const void* matrix, int64_t stride, int64_t first, int64_t inner, int64_t k)
        : Base(matrix, stride, 0, 0, k) {
        const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
        const int64_t at = first + row, column = at / (2 * kTurn) * kTurn + at % kTurn;
        this->from =
            static_cast<const T*>(matrix) + (column + (at / kTurn % 2 ? inner : 0)) * stride + chunk * kLanes<T>;
        this->apart = Base::kApart / 2 * stride;
        this->rows = row + static_cast<int>(min(2 * (inner - column), int64_t{kRows}));
    }
};

template <typename T, int kTile, bool kAligned>
struct GatedEpilogue {
    using Plain = Epilogues<T, kTile, kAligned>;
    static constexpr int kM = Plain::kM, kN = Plain::kN;
    static_assert(kN % 8 == 0);  // 32 columns of y, which four lanes share

    Plain plain;  // its column: of y

    __device__ void operator()(const float (&sums)[kM][kN][4]) const {
        const int lane = threadIdx.x % 32, t = lane % 4;
        const int64_t inner = plain.p.weight.n / 2;
        const int left = static_cast<int>(min(inner - plain.column, int64_t{kN * 4}));
#pragma unroll
        for (int group = 0; group < kN / 8; ++group) {
            uint32_t shift[4] = {}, lift[4] = {};  // biases of gate and of up
            if (plain.p.bias != nullptr)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int at = group * 32 + i * 8 + t * 2, n = min(max(left - at, 0), 2);
                    const T* const from = static_cast<const T*>(plain.p.bias) + plain.column + at;
                    shift[i] = load_pair<T, kAligned>(from, n), lift[i] = load_pair<T, kAligned>(from + inner, n);
                }
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float2 v[4];
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float (&gate)[4] = sums[m][group * 8 + 2 * i], (&up)[4] = sums[m][group * 8 + 2 * i + 1];
                        const float2 g = open2<T>(shift[i]), u = open2<T>(lift[i]);
                        v[i] = make_float2(gated(gate[half * 2] + g.x, up[half * 2] + u.x, plain.p.limit),
                                           gated(gate[half * 2 + 1] + g.y, up[half * 2 + 1] + u.y, plain.p.limit));
                    }
                    plain.put(plain.row + m * 16 + half * 8 + lane / 4, group * 32, left, v);
                }
        }
    }
};

}  // namespace ivk::device
