#include "core/simd.h"
#include "kernels/gemm/gemm_few_rows.h"

namespace ivk {
namespace IVK_ISA {
namespace {

// A block of R rows of x against C rows of the weight: R*C independent chains over k.
template <typename T, int R, int C>
void block(const FewRowsParams& p, int64_t row, int64_t column) {
    const T* x = static_cast<const T*>(p.x) + row * p.stride_x;
    const T* w = static_cast<const T*>(p.weight) + column * p.stride_w;
    f32x16 total[R][C];
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) total[r][c] = f32x16::zero();
    const auto step = [&](int64_t i, auto read) {
        f32x16 a[R];
        for (int r = 0; r < R; ++r) a[r] = read(x + r * p.stride_x + i);
        for (int c = 0; c < C; ++c) {
            const f32x16 b = read(w + c * p.stride_w + i);
            for (int r = 0; r < R; ++r) total[r][c] = multiply_add(a[r], b, total[r][c]);
        }
    };
    const int64_t whole = p.k / kLanes * kLanes;
    for (int64_t i = 0; i < whole; i += kLanes) step(i, [](const T* from) { return load(from); });
    if (whole < p.k) step(whole, [&](const T* from) { return load_tail(from, p.k - whole); });
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) {
            float value = sum(total[r][c]);
            if (p.bias != nullptr) {
                T shift[kLanes] = {static_cast<const T*>(p.bias)[column + c]};
                float lane[kLanes];
                store(lane, load(shift));
                value += lane[0];
            }
            store_tail(static_cast<T*>(p.y) + (row + r) * p.n + column + c, f32x16::broadcast(value), 1);
        }
    }
}

// Accumulators must stay in registers: 4 x 4 of them with 512-bit registers, 2 x 2 where sixteen lanes take several.
constexpr int kBlock = kParts == 1 ? 4 : 2;

template <typename T, int C>
void rows(const FewRowsParams& p, int64_t column) {
    int64_t row = 0;
    for (; row + kBlock <= p.m; row += kBlock)
        for (int c = 0; c < C; c += kBlock) block<T, kBlock, (C < kBlock ? C : kBlock)>(p, row, column + c);
    for (; row < p.m; ++row) block<T, 1, C>(p, row, column);
}

template <typename T>
void columns(const FewRowsParams& p, int64_t begin, int64_t end) {
    int64_t n = begin;
    for (; n + 4 <= end; n += 4) rows<T, 4>(p, n);
    for (; n < end; ++n) rows<T, 1>(p, n);
}

}  // namespace

const FewRowsTable few_rows_table = {columns<float>, columns<bf16>, columns<f16>};

}  // namespace IVK_ISA
}  // namespace ivk
