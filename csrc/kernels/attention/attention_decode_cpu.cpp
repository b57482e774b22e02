// One new row of a sequence against its keys, which are read once, where they lie and as memory has them: a key of all
// heads after the other, then their values. Memory is fastest where whole rows follow each other.
#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "core/simd_math.h"
#include "core/simd_product.h"
#include "kernels/attention/attention_table.h"
#include "kernels/attention/lanes.h"

namespace ivk {
namespace IVK_ISA {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr int64_t kMostAhead = 8, kAheadBytes = 8192;  // of the row that is fetched: rows, and about the bytes

// Query heads of some key heads. q and o are [head][wide], weights [head][kDecodeRange].
struct State {
    int64_t heads, wide;
    float *q, *o, *weights, *most, *total;
    quad* sums;  // [head][4 keys]
};

float largest(const f32x16& v) {
    float lane[kLanes];
    store(lane, v);
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
    return lane[0];
}

// A head's scores become weights; `most` and `total` hold a sink's, or nothing yet.
void weigh(float* score, int64_t count, float* most, float* total) {
    const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = count; i < padded; ++i) score[i] = kNone;
    f32x16 highest = f32x16::broadcast(*most);
    for (int64_t i = 0; i < padded; i += kLanes) highest = max(highest, load(score + i));
    const float high = largest(highest);
    // Where nothing was seen 0 stands for the maximum: e^-inf is 0, and not e^(inf - inf).
    const f32x16 shift = f32x16::broadcast(high == kNone ? 0.0f : high);
    f32x16 sum = f32x16::zero();
    for (int64_t i = 0; i < padded; i += kLanes) {
        const f32x16 e = exp2(load(score + i) - shift);
        store(score + i, e);
        sum = sum + e;
    }
    float lane[kLanes];
    store(lane, exp2(f32x16::broadcast(*most) - shift));
    *total = *total * lane[0] + ivk::IVK_ISA::sum(sum);
    *most = high;
}

template <typename K, int V>
void decode(const AttentionParams& p, const DecodeRange& range, const State& state) {
    const AttentionSequence& s = *range.sequence;
    const int64_t group = p.heads / p.kv_heads, count = range.end - range.begin, heads = range.head_end - range.head;
    const int64_t ahead = std::clamp<int64_t>(kAheadBytes / (p.k_row * int64_t(sizeof(K)) + 1), 1, kMostAhead);
    // Rows of the first of the heads: keys, values behind them, and the last one again.
    const K* rows[2 * kDecodeRange + kMostAhead];
    for (int64_t i = 0; i < count; ++i) {
        const int64_t place = s.place(range.begin + i, p.page_size);
        rows[i] = static_cast<const K*>(s.k) + place * p.k_row + range.head * p.k_head;
        rows[count + i] = static_cast<const K*>(s.v) + place * p.v_row + range.head * p.v_head;
    }
    std::fill_n(rows + 2 * count, ahead, rows[2 * count - 1]);
    quad* const sums = state.sums;
    for (int64_t first = 0; first < count; first += 4) {
        const int64_t some = std::min<int64_t>(4, count - first);
        if (some < 4) std::fill_n(sums, 4 * state.heads, quad{});
        for (int64_t key = 0; key < some; ++key) {
            const K *const row = rows[first + key], *const next = rows[first + key + ahead];
            const int64_t apart = first + key + ahead < count ? p.k_head : p.v_head;
            in_groups(group, [&](int64_t g, auto h) {
                score<h(), V>(Row<K>{row, p.k_head, next, apart, heads}, state.q + g * state.wide, p.dim, state.wide,
                              group, sums + g * 4 + key);
            });
        }
        for (int64_t h = 0; h < state.heads; ++h) {
            quad* const x = sums + h * 4;
            turn(x[0], x[1], x[2], x[3]);
            const quad all = (x[0] + x[2]) + (x[1] + x[3]);
            std::memcpy(state.weights + h * kDecodeRange + first, &all, sizeof all);
        }
    }
    for (int64_t h = 0; h < state.heads; ++h)
        weigh(state.weights + h * kDecodeRange, count, state.most + h, state.total + h);
    for (int64_t key = 0; key < count; ++key) {
        const K *const row = rows[count + key], *const next = rows[count + key + ahead];
        in_groups(group, [&](int64_t g, auto h) {
            mix<h(), V>(Row<K>{row, p.v_head, next, p.v_head, heads}, state.weights + g * kDecodeRange + key, p.dim,
                        state.wide, group, state.o + g * state.wide);
        });
    }
}

template <typename K>
void decode(const AttentionParams& p, const DecodeRange& range, const State& state) {
    (p.dim == 128 ? decode<K, 128 / kLanes> : p.dim == 64 ? decode<K, 64 / kLanes> : decode<K, 0>)(p, range, state);
}

template <typename T>
void finish(const float* o, float total, int64_t dim, T* y) {
    const f32x16 sum = f32x16::broadcast(total);
    for_lanes(dim, [&](int64_t d, int64_t n) { put(y + d, load(o + d) / sum, n); });
}

template <typename T>
void range(const AttentionParams& p, const DecodeRange& range) {
    const AttentionSequence& s = *range.sequence;
    const int64_t group = p.heads / p.kv_heads, first = range.head * group;
    const int64_t heads = (range.head_end - range.head) * group, wide = decode_width(p.dim) - kLanes;
    float* const memory = scratch(heads * decode_scratch(p.dim));
    float *const q = memory, *const o = q + heads * wide, *const weights = o + heads * wide;
    float *const sums = weights + heads * kDecodeRange, *const most = sums + heads * 16, *const total = most + heads;
    std::fill(o, weights, 0.0f);
    std::fill(most, total, kNone);
    std::fill_n(total, heads, 0.0f);
    const f32x16 factor = f32x16::broadcast(p.scale * 0x1.715476p0f);
    const int64_t from = p.window ? std::max<int64_t>(0, s.keys - p.window) : 0;
    for (int64_t h = 0; h < heads; ++h) {
        widen_row(static_cast<const T*>(s.q) + (first + h) * p.q_head, p.dim, q + h * wide);
        for (int64_t i = 0; i < wide; i += kLanes) store(q + h * wide + i, load(q + h * wide + i) * factor);
        if (p.sinks && range.begin == from) {  // as a key before all others, whose value is 0
            most[h] = as_float(static_cast<const T*>(p.sinks)[first + h]) * 0x1.715476p0f;
            total[h] = 1.0f;
        }
    }
    const State state{heads, wide, q, o, weights, most, total, reinterpret_cast<quad*>(sums)};
    if (p.kv_dtype == DType::f32)
        decode<float>(p, range, state);
    else if (p.kv_dtype == DType::bf16)
        decode<bf16>(p, range, state);
    else
        decode<f16>(p, range, state);
    for (int64_t h = 0; h < heads; ++h) {
        if (range.partial == nullptr) {
            finish(o + h * wide, total[h], p.dim, static_cast<T*>(s.y) + (first + h) * p.y_head);
            continue;
        }
        float* const part = range.partial + (first + h) * decode_width(p.dim);
        std::memcpy(part, o + h * wide, wide * sizeof(float));
        part[wide] = most[h], part[wide + 1] = total[h];
    }
}

template <typename T>
void join(const AttentionParams& p, const AttentionSequence& s, int64_t h, const float* parts, int64_t ranges) {
    const int64_t width = decode_width(p.dim), wide = width - kLanes;
    const auto part = [&](int64_t r) { return parts + (r * p.heads + h) * width; };
    float o[kMostHeadDim], high = kNone, total = 0.0f;
    for (int64_t r = 0; r < ranges; ++r) high = part(r)[wide] > high ? part(r)[wide] : high;
    std::fill(o, o + wide, 0.0f);
    for (int64_t r = 0; r < ranges; ++r) {
        const f32x16 weight = exp2(f32x16::broadcast(part(r)[wide] - (high == kNone ? 0.0f : high)));
        for (int64_t i = 0; i < wide; i += kLanes) store(o + i, multiply_add(weight, load(part(r) + i), load(o + i)));
        total += weight.part[0][0] * part(r)[wide + 1];
    }
    finish(o, total, p.dim, static_cast<T*>(s.y) + h * p.y_head);
}

}  // namespace

const DecodeTable decode_table = {{range<float>, range<bf16>, range<f16>}, {join<float>, join<bf16>, join<f16>}};

}  // namespace IVK_ISA
}  // namespace ivk
