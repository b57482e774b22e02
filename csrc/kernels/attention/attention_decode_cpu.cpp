// One new row of a sequence against its keys, which are read once, where they lie, a few keys of all heads after each
// other: as memory has them. Lanes lie over d, for scores and for values.
#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "core/simd_math.h"
#include "core/simd_product.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/lanes.h"

namespace ivk {
namespace IVK_ISA {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr int kAhead = 8;  // keys between those that are read and those that are fetched

// One key head of keys or values.
template <typename K>
struct Head {
    const K* data;
    int64_t row;
    const K* at(int64_t place) const { return data + place * row; }
};

// Rows of a head, `left` of them in its block: as fp32 of whole registers, in place where they are that, else copied to
// `memory`. Rows to fetch lie further on, or, behind the block, at the places `then` of the head that is read next.
template <typename K, int kCount>
struct Rows {
    const float* now[kCount];
    const char* next[kCount];

    Rows(const Head<K>& head, const int64_t* places, int64_t left, const Head<K>& after, const int64_t* then,
         int64_t dim, int64_t wide, float* memory) {
        const bool in_place = std::is_same_v<K, float> && dim == wide;
        for (int i = 0; i < kCount; ++i) {
            const int64_t far = kAhead + i;
            next[i] = reinterpret_cast<const char*>(far < left ? head.at(places[far]) : after.at(then[far - left]));
            const K* from = head.at(places[i]);
            if (!in_place && i < left) widen_row(from, dim, memory + i * wide);
            now[i] = in_place ? reinterpret_cast<const float*>(from) : memory + std::min<int64_t>(i, left - 1) * wide;
        }
    }
};

// Query heads of some key heads. q and o are [head][wide]; a sum has 16 lanes until the end.
struct State {
    int64_t wide;
    float *q, *o, *most, *total, *weights, *memory;
};

// Scores of a head become weights; what was there so far fades.
inline void weigh(float* score, int64_t count, int64_t wide, float* most, float* total, float* o) {
    const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = count; i < padded; ++i) score[i] = kNone;
    f32x16 highest = f32x16::broadcast(*most);
    for (int64_t i = 0; i < padded; i += kLanes) highest = max(highest, load(score + i));
    float lane[kLanes];
    store(lane, highest);
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
    const float high = lane[0], before = *most;
    // Where nothing has been seen yet 0 stands for the maximum: e^-inf is 0, and not e^(inf - inf).
    const f32x16 shift = f32x16::broadcast(high == kNone ? 0.0f : high);
    f32x16 sum = load(total);
    if (high != before) {
        const f32x16 fade = exp2(f32x16::broadcast(before) - shift);
        sum = sum * fade;
        for (int64_t i = 0; i < wide; i += kLanes) store(o + i, load(o + i) * fade);
        *most = high;
    }
    for (int64_t i = 0; i < padded; i += kLanes) {
        const f32x16 e = exp2(load(score + i) - shift);
        store(score + i, e);
        sum = sum + e;
    }
    store(total, sum);
}

template <typename T, typename K>
void decode(const AttentionParams& p, const DecodeRange& range, const State& state) {
    const AttentionSequence& s = *range.sequence;
    const int64_t group = p.heads / p.kv_heads, wide = state.wide;
    const int64_t all = (range.head_end - range.head) * group;
    int64_t places[kDecodeBlock + kAhead + kValues];  // of the block and what follows
    const auto keys = [&](int64_t head) { return Head<K>{static_cast<const K*>(s.k) + head * p.k_head, p.k_row}; };
    const auto values = [&](int64_t head) { return Head<K>{static_cast<const K*>(s.v) + head * p.v_head, p.v_row}; };
    for (int64_t first = range.begin; first < range.end;) {
        const int64_t next = std::min((first / kDecodeBlock + 1) * kDecodeBlock, range.end), count = next - first;
        for (int64_t i = 0; i < count + kAhead + kValues; ++i)
            places[i] = s.place(std::min(first + i, range.end - 1), p.page_size);
        for (int64_t key = 0; key < count; key += kKeys)
            for (int64_t head = range.head; head < range.head_end; ++head) {
                const int64_t at = (head - range.head) * group;
                const Rows<K, kKeys> rows(keys(head), places + key, count - key, values(head), places, p.dim, wide,
                                          state.memory);
                in_groups<kScoreHeads>(group, [&](int64_t h, auto heads) {
                    score<heads()>(rows.now, state.q + (at + h) * wide, wide,
                                   state.weights + (at + h) * kDecodeBlock + key, {rows.next, sizeof(K)});
                });
            }
        for (int64_t h = 0; h < all; ++h)
            weigh(state.weights + h * kDecodeBlock, count, wide, state.most + h, state.total + h * kLanes,
                  state.o + h * wide);
        for (int64_t key = 0; key < count; key += kValues)
            for (int64_t head = range.head; head < range.head_end; ++head) {
                const int64_t at = (head - range.head) * group;
                const Rows<K, kValues> rows(values(head), places + key, count - key, keys(head), places + count, p.dim,
                                            wide, state.memory);
                in_groups<kMixHeads>(group, [&](int64_t h, auto heads) {
                    mix_row<heads()>(rows.now, 0, std::min<int64_t>(kValues, count - key),
                                     state.weights + (at + h) * kDecodeBlock + key, wide, state.o + (at + h) * wide,
                                     {rows.next, sizeof(K)});
                });
            }
        first = next;
    }
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
    const int64_t heads = (range.head_end - range.head) * group, wide = (p.dim + kLanes - 1) / kLanes * kLanes;
    float* const memory = scratch(heads * (2 * wide + kLanes + kDecodeBlock + 1) + kValues * wide);
    float *const q = memory, *const o = q + heads * wide, *const total = o + heads * wide;
    float *const weights = total + heads * kLanes, *const copied = weights + heads * kDecodeBlock;
    float* const most = copied + kValues * wide;
    std::fill(o, weights, 0.0f);
    std::fill(most, most + heads, kNone);
    const f32x16 factor = f32x16::broadcast(p.scale * 0x1.715476p0f);
    const int64_t from = p.window ? std::max<int64_t>(0, s.keys - p.window) : 0;
    for (int64_t h = 0; h < heads; ++h) {
        widen_row(static_cast<const T*>(s.q) + (first + h) * p.q_head, p.dim, q + h * wide);
        for (int64_t i = 0; i < wide; i += kLanes) store(q + h * wide + i, load(q + h * wide + i) * factor);
        if (p.sinks && range.begin == from) {  // as a key before all others, whose value is 0
            most[h] = as_float(static_cast<const T*>(p.sinks)[first + h]) * 0x1.715476p0f;
            total[h * kLanes] = 1.0f;
        }
    }
    const State state{wide, q, o, most, total, weights, copied};
    if (p.kv_dtype == DType::f32)
        decode<T, float>(p, range, state);
    else if (p.kv_dtype == DType::bf16)
        decode<T, bf16>(p, range, state);
    else
        decode<T, f16>(p, range, state);
    for (int64_t h = 0; h < heads; ++h) {
        const float all = sum(load(total + h * kLanes));
        if (range.partial == nullptr) {
            finish(o + h * wide, all, p.dim, static_cast<T*>(s.y) + (first + h) * p.y_head);
            continue;
        }
        float* const part = range.partial + (first + h) * decode_width(p.dim);
        std::memcpy(part, o + h * wide, wide * sizeof(float));
        part[wide] = most[h], part[wide + 1] = all;
    }
}

template <typename T>
void join(const AttentionParams& p, const AttentionSequence& s, const float* parts, int64_t ranges) {
    const int64_t width = decode_width(p.dim), wide = width - kLanes;
    float o[kMostHeadDim];
    for (int64_t h = 0; h < p.heads; ++h, parts += width) {
        const auto part = [&](int64_t r) { return parts + r * p.heads * width; };
        float high = kNone, total = 0.0f;
        for (int64_t r = 0; r < ranges; ++r) high = part(r)[wide] > high ? part(r)[wide] : high;
        std::fill(o, o + wide, 0.0f);
        for (int64_t r = 0; r < ranges; ++r) {
            const f32x16 weight = exp2(f32x16::broadcast(part(r)[wide] - (high == kNone ? 0.0f : high)));
            for (int64_t i = 0; i < wide; i += kLanes)
                store(o + i, multiply_add(weight, load(part(r) + i), load(o + i)));
            total += weight.part[0][0] * part(r)[wide + 1];
        }
        finish(o, total, p.dim, static_cast<T*>(s.y) + h * p.y_head);
    }
}

}  // namespace

const DecodeTable decode_table = {{range<float>, range<bf16>, range<f16>}, {join<float>, join<bf16>, join<f16>}};

}  // namespace IVK_ISA
}  // namespace ivk
