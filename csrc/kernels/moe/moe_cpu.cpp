#include <limits>
#include <vector>

#include "core/simd_math.h"
#include "core/simd_norm.h"
#include "kernels/moe/moe.h"

namespace ivk {
namespace IVK_ISA {
namespace {

// The k largest of a row in descending order, lower index first; false when the row has no softmax.
template <typename T>
bool choose(const T* logits, int64_t num_experts, int64_t k, float* value, int64_t* index) {
    int64_t count = 0;
    bool number = true;
    for_lanes(num_experts, [&](int64_t i, int64_t n) {
        float lane[kLanes];
        store(lane, at(logits + i, n));
        for (int64_t l = 0; l < n; ++l) {
            const float v = lane[l];
            number = number && v == v;
            if (count == k && !(v > value[k - 1])) continue;
            int64_t place = count < k ? count++ : k - 1;
            for (; place > 0 && v > value[place - 1]; --place) {
                value[place] = value[place - 1];
                index[place] = index[place - 1];
            }
            value[place] = v;
            index[place] = i + l;
        }
    });
    return number && std::fabs(value[0]) <= std::numeric_limits<float>::max();
}

template <typename T>
float denominator(const T* logits, int64_t num_experts, float best) {
    return sum_lanes(num_experts,
                     [&](int64_t i, int64_t n) { return keep(exp(at(logits + i, n) - f32x16::broadcast(best)), n); });
}

template <typename T>
void route_rows(const MoeRouteParams& p, int64_t begin, int64_t end) {
    std::vector<float> value(p.k);
    for (int64_t r = begin; r < end; ++r) {
        const T* logits = static_cast<const T*>(p.logits) + r * p.stride_logits;
        int64_t* experts = p.experts + r * p.k;
        if (choose(logits, p.num_experts, p.k, value.data(), experts)) {
            const float best = value[0];
            for_lanes(p.k, [&](int64_t j, int64_t n) {
                put(value.data() + j, exp(at(value.data() + j, n) - f32x16::broadcast(best)), n);
            });
            float total = 0.0f;
            if (p.normalize)
                for (const float v : value) total += v;
            else
                total = denominator(logits, p.num_experts, best);
            for (float& v : value) v /= total;
        } else {
            for (int64_t j = 0; j < p.k; ++j) {
                value[j] = std::numeric_limits<float>::quiet_NaN();
                experts[j] = j;
            }
        }
        T* weights = static_cast<T*>(p.weights) + r * p.k;
        for_lanes(p.k, [&](int64_t i, int64_t n) { put(weights + i, at(value.data() + i, n), n); });
    }
}

template <typename T>
void combine_rows(const MoeCombineParams& p, int64_t begin, int64_t end) {
    std::vector<float> weight(p.k);
    for (int64_t t = begin; t < end; ++t) {
        const T* weights = static_cast<const T*>(p.weights) + t * p.stride_weights;
        for_lanes(p.k, [&](int64_t j, int64_t n) { put(weight.data() + j, at(weights + j, n), n); });
        const int64_t* row = p.row_of + t * p.k;
        T* out = static_cast<T*>(p.out) + t * p.cols;
        const auto part = [&](int64_t j, int64_t i, int64_t n) {
            return f32x16::broadcast(weight[j]) * at(static_cast<const T*>(p.y) + row[j] * p.stride_y + i, n);
        };
        for_lanes(p.cols, [&](int64_t i, int64_t n) {
            f32x16 total = part(0, i, n);
            for (int64_t j = 1; j < p.k; ++j) total += part(j, i, n);
            put(out + i, total, n);
        });
    }
}

}  // namespace

const MoeTable moe_table = {route_rows<float>,   route_rows<bf16>,   route_rows<f16>,
                            combine_rows<float>, combine_rows<bf16>, combine_rows<f16>};

}  // namespace IVK_ISA
}  // namespace ivk
