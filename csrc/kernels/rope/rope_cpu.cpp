#include "core/simd_norm.h"
#include "kernels/rope/rope.h"

namespace ivk {
namespace IVK_ISA {
namespace {

// v as the dtype T holds it.
template <typename T>
f32x16 rounded(f32x16 v) {
    for (int p = 0; p < kParts; ++p) {
        if constexpr (std::is_same_v<T, bf16>) v.part[p] = widen(narrow(v.part[p]));
        if constexpr (std::is_same_v<T, f16>) v.part[p] = widen(narrow_f16(v.part[p]));
    }
    return v;
}

template <bool kNorm, typename T, typename Y>
void rotate_head(const T* x, const T* weight, const float* cos, const float* sin, Y* y, int64_t d, float eps) {
    f32x16 factor = f32x16::zero();
    if constexpr (kNorm) {
        const float squares = sum_lanes(d, [&](int64_t i, int64_t n) {
            const f32x16 v = at(x + i, n);
            return v * v;
        });
        factor = f32x16::broadcast(1.0f / std::sqrt(squares / static_cast<float>(d) + eps));
    }
    const auto element = [&](int64_t i, int64_t n) {
        const f32x16 v = at(x + i, n);
        return kNorm ? rounded<T>(rounded<T>(v * factor) * at(weight + i, n)) : v;
    };
    const int64_t half = d / 2;
    for_lanes(half, [&](int64_t i, int64_t n) {
        const f32x16 first = element(i, n), second = element(half + i, n);
        const f32x16 c = at(cos + i, n), s = at(sin + i, n);
        put(y + i, first * c - second * s, n);
        put(y + half + i, second * c + first * s, n);
    });
}

template <typename T, typename Y>
void rotate(const T* x, const void* weight, const float* cos, const float* sin, Y* y, int64_t d, float eps) {
    if (weight != nullptr)
        rotate_head<true>(x, static_cast<const T*>(weight), cos, sin, y, d, eps);
    else
        rotate_head<false, T>(x, nullptr, cos, sin, y, d, eps);
}

template <typename T, typename K>
void rope_rows(const RopeParams& p, int64_t begin, int64_t end) {
    const int64_t d = p.head_dim;
    for (int64_t r = begin; r < end; ++r) {
        const T* x = static_cast<const T*>(p.qkv) + r * p.stride_qkv;
        const float* cos = p.cos + r * p.stride_cos;
        const float* sin = p.sin + r * p.stride_sin;
        T* q = static_cast<T*>(p.q) + r * p.heads * d;
        for (int64_t h = 0; h < p.heads; ++h, x += d) rotate(x, p.q_weight, cos, sin, q + h * d, d, p.eps);
        const int64_t slot = p.slots != nullptr ? p.slots[r * p.stride_slot] : r;
        K* k = static_cast<K*>(p.k) + slot * p.stride_k;
        for (int64_t h = 0; h < p.kv_heads; ++h, x += d)
            rotate(x, p.k_weight, cos, sin, k + h * p.stride_k_head, d, p.eps);
        K* v = static_cast<K*>(p.v) + slot * p.stride_v;
        for (int64_t h = 0; h < p.kv_heads; ++h, x += d) {
            if constexpr (std::is_same_v<T, K>)
                std::memcpy(v + h * p.stride_v_head, x, d * sizeof(T));
            else
                for_lanes(d, [&](int64_t i, int64_t n) { put(v + h * p.stride_v_head + i, at(x + i, n), n); });
        }
    }
}

}  // namespace

const RopeTable rope_table = {{{rope_rows<float, float>, rope_rows<float, bf16>, rope_rows<float, f16>},
                               {rope_rows<bf16, float>, rope_rows<bf16, bf16>, rope_rows<bf16, f16>},
                               {rope_rows<f16, float>, rope_rows<f16, bf16>, rope_rows<f16, f16>}}};

}  // namespace IVK_ISA
}  // namespace ivk
