#include "core/simd.h"
#include "kernels/norm/norm.h"

namespace ivk {
namespace IVK_ISA {
namespace {

template <typename T>
void round_trip(f32x16& v) {
    if constexpr (!std::is_same_v<T, float>) {
        T buffer[kLanes];
        store(buffer, v);
        v = load(buffer);
    }
}

template <typename T>
void norm_row(const NormParams& p, const T* x, const T* branch, T* h, T* y) {
    const T* scale = static_cast<const T*>(p.scale);
    const T* weight = static_cast<const T*>(p.weight);
    const T* bias = static_cast<const T*>(p.bias);
    const int64_t cols = p.cols;
    f32x16 total = f32x16::zero();
    if (branch != nullptr) {
        for_lanes(cols, [&](int64_t i, int64_t n) {
            f32x16 b = at(branch + i, n);
            if (scale != nullptr) b = b * at(scale + i, n);
            put(h + i, at(x + i, n) + b, n);
        });
        if (y == nullptr) return;
        x = h;
    }
    // Two passes over a row that is in cache: the variance from centred values keeps its bits under large means.
    float mean = 0.0f;
    if (p.kind == NormKind::layer) {
        for_lanes(cols, [&](int64_t i, int64_t n) { total += at(x + i, n); });
        mean = sum(total) / static_cast<float>(cols);
        total = f32x16::zero();
        const f32x16 centre = f32x16::broadcast(mean);
        for_lanes(cols, [&](int64_t i, int64_t n) {
            f32x16 d = at(x + i, n) - centre;
            if (n < kLanes) {  // lanes past the row must not add mean^2
                float lane[kLanes];
                store(lane, d);
                d = load_tail(lane, n);
            }
            total += d * d;
        });
    } else {
        for_lanes(cols, [&](int64_t i, int64_t n) {
            const f32x16 v = at(x + i, n);
            total += v * v;
        });
    }
    const f32x16 centre = f32x16::broadcast(mean);
    const f32x16 factor = f32x16::broadcast(1.0f / std::sqrt(sum(total) / static_cast<float>(cols) + p.eps));
    for_lanes(cols, [&](int64_t i, int64_t n) {
        f32x16 v = (at(x + i, n) - centre) * factor;
        if (p.kind == NormKind::rms) round_trip<T>(v);
        v = v * at(weight + i, n);
        if (bias != nullptr) v = v + at(bias + i, n);
        put(y + i, v, n);
    });
}

template <typename T>
void norm_rows(const NormParams& p, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
        const T* branch = p.branch ? static_cast<const T*>(p.branch) + r * p.stride_branch : nullptr;
        T* h = p.branch ? static_cast<T*>(p.h) + r * p.stride_h : nullptr;
        T* y = p.y ? static_cast<T*>(p.y) + r * p.stride_y : nullptr;
        norm_row<T>(p, static_cast<const T*>(p.x) + r * p.stride_x, branch, h, y);
    }
}

}  // namespace

const NormTable norm_table = {norm_rows<float>, norm_rows<bf16>, norm_rows<f16>};

}  // namespace IVK_ISA
}  // namespace ivk
