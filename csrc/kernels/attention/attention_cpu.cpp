#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "core/simd_math.h"
#include "core/simd_product.h"
#include "kernels/attention/attention_table.h"

namespace ivk {
namespace IVK_ISA {
namespace {

constexpr int kValueRows = kRows < 8 ? kRows : 8;  // head dimensions are multiples of 8 more often than of 12

constexpr int kChains = 4;

// body(i, i mod kChains) for i in [0, n).
template <typename Body>
void chains(int64_t n, Body&& body) {
    int64_t i = 0;
    for (; i + kChains <= n; i += kChains)
        for (int c = 0; c < kChains; ++c) body(i + c, c);
    for (; i < n; ++i) body(i, int(i % kChains));
}

// One key head and some of its queries. Everything is turned: a tile has keys (or head dimensions) as rows and queries
// as lanes, so that statistics are lane by lane and the probabilities are the next product's weights as they lie.
template <typename T>
struct Piece {
    const AttentionParams& p;
    const AttentionSequence& s;
    int64_t kv_head, begin, count, group;
    float *q, *o, *most, *total, *k, *v, *scores, *turned;

    int64_t row_of(int64_t query) const { return (begin + query) / group; }
    template <typename E>
    E* at_query(E* base, int64_t query, int64_t row_stride, int64_t head_stride) const {
        return base + row_of(query) * row_stride + (kv_head * group + (begin + query) % group) * head_stride;
    }
    // A query sees keys [from, seen).
    int64_t seen(int64_t query) const { return p.causal ? s.keys - s.rows + row_of(query) + 1 : s.keys; }

    int64_t from(int64_t query) const { return p.window ? std::max<int64_t>(0, seen(query) - p.window) : 0; }

    // q as fp32 [tile][panel][d][16], times scale * log2 e; missing queries are zeros.
    void pack_queries() const {
        static const T zeros[kMostHeadDim] = {};
        for (int64_t first = 0; first < count; first += kPanel) {
            const T* rows[kPanel];
            for (int64_t lane = 0; lane < kPanel; ++lane)
                rows[lane] = first + lane < count
                                 ? at_query(static_cast<const T*>(s.q), first + lane, p.q_row, p.q_head)
                                 : zeros;
            float* to = q + first * p.dim;
            interleave(rows, int(kPanel), p.dim, to);
            const f32x16 factor = f32x16::broadcast(p.scale * 0x1.715476p0f);
            for (int64_t i = 0; i < p.dim * kPanel; i += kLanes) store(to + i, load(to + i) * factor);
        }
    }

    // Keys [first, first + depth) as fp32 [panel of keys][d][key], values as [panel of d][key][d].
    void pack_keys(int64_t first, int64_t depth) const {
        if (p.kv_dtype == DType::f32)
            pack_keys_of<float>(first, depth);
        else if (p.kv_dtype == DType::bf16)
            pack_keys_of<bf16>(first, depth);
        else
            pack_keys_of<f16>(first, depth);
    }
    template <typename K>
    void pack_keys_of(int64_t first, int64_t depth) const {
        for (int64_t r = 0; r < depth; r += kRows) {
            const int rows = int(std::min<int64_t>(kRows, depth - r));
            const K* from[kRows];
            for (int i = 0; i < rows; ++i)
                from[i] =
                    static_cast<const K*>(s.k) + s.place(first + r + i, p.page_size) * p.k_row + kv_head * p.k_head;
            interleave(from, rows, p.dim, k + r * p.dim);
        }
        float wide[kMostHeadDim];
        for (int64_t key = 0; key < depth; ++key) {
            const K* from =
                static_cast<const K*>(s.v) + s.place(first + key, p.page_size) * p.v_row + kv_head * p.v_head;
            for_lanes(p.dim, [&](int64_t i, int64_t n) { put(wide + i, at(from + i, n), n); });
            for (int64_t d = 0; d < p.dim; d += kValueRows) {
                const int64_t rows = std::min<int64_t>(kValueRows, p.dim - d);
                float* to = v + d * depth + key * rows;
                if (rows == kValueRows)  // a known size is two moves
                    std::memcpy(to, wide + d, kValueRows * sizeof(float));
                else
                    std::memcpy(to, wide + d, rows * sizeof(float));
            }
        }
    }

    // Scores of a block's keys (packed `pitch` together, `depth` of them in sight) against the 16 P queries from `lane`
    // on become probabilities; their sums and the results so far follow.
    template <int P>
    void step(int64_t lane, int64_t first, int64_t depth, int64_t pitch) const {
        const Weights<float> queries{q + lane * p.dim, p.dim * kPanel, nullptr};
        for (int64_t r = 0; r < depth; r += kRows)
            micro<float, kRows, P, false>(int(std::min<int64_t>(kRows, pitch - r)), p.dim, k + r * p.dim, queries,
                                          {scores + r * kPanel, kPanel, kPanel * kKeyBlock}, false);
        for (int half = 0; half < P; ++half)
            weigh(lane + half * kPanel, first, depth, scores + half * kPanel * kKeyBlock);
        const Weights<float> weights{scores, kPanel * kKeyBlock, nullptr};
        for (int64_t d = 0; d < p.dim; d += kValueRows)
            micro<float, kValueRows, P, false>(int(std::min<int64_t>(kValueRows, p.dim - d)), depth, v + d * pitch,
                                               weights, {o + lane * p.dim + d * kPanel, kPanel, kPanel * p.dim}, true);
    }

    // One panel of 16 queries: score [depth][16].
    void weigh(int64_t lane, int64_t first, int64_t depth, float* score) const {
        const float none = -std::numeric_limits<float>::infinity();
        if (p.causal && seen(lane) < first + depth) {
            for (int64_t i = 0; i < kPanel; ++i) {
                const int64_t hidden = lane + i < count ? seen(lane + i) - first : depth;
                for (int64_t key = std::max<int64_t>(hidden, 0); key < depth; ++key) score[key * kPanel + i] = none;
            }
        }
        if (p.window && from(std::min(count, lane + kPanel) - 1) > first) {
            for (int64_t i = 0; i < std::min(kPanel, count - lane); ++i)
                for (int64_t key = 0; key < std::min(from(lane + i) - first, depth); ++key)
                    score[key * kPanel + i] = none;
        }
        // Each in four chains, one would wait for itself.
        const f32x16 before = load(most + lane);
        f32x16 highs[kChains] = {before, before, before, before}, sums[kChains] = {};
        chains(depth, [&](int64_t key, int c) { highs[c] = max(highs[c], load(score + key * kPanel)); });
        const f32x16 high = max(max(highs[0], highs[1]), max(highs[2], highs[3]));
        // Where nothing has been seen yet 0 stands for the maximum: e^-inf is 0, and not e^(inf - inf).
        f32x16 shift = high;
        for (int part = 0; part < kParts; ++part)
            shift.part[part] = high.part[part] == none ? native_f32{} : high.part[part];
        const f32x16 fade = exp2_bounded(before - shift);
        chains(depth, [&](int64_t key, int c) {
            const f32x16 e = exp2_bounded(load(score + key * kPanel) - shift);
            store(score + key * kPanel, e);
            sums[c] = sums[c] + e;
        });
        const f32x16 sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        store(most + lane, high);
        store(total + lane, load(total + lane) * fade + sum);
        float* result = o + lane * p.dim;
        for (int64_t d = 0; d < p.dim; ++d) store(result + d * kPanel, load(result + d * kPanel) * fade);
    }

    void finish() const {
        const float* rows[kMostHeadDim];
        for (int64_t lane = 0; lane < count; lane += kPanel) {
            float* result = o + lane * p.dim;
            const f32x16 sum = load(total + lane);
            for (int64_t d = 0; d < p.dim; ++d) {
                store(result + d * kPanel, load(result + d * kPanel) / sum);
                rows[d] = result + d * kPanel;
            }
            interleave(rows, int(p.dim), kPanel, turned);
            for (int64_t i = 0; i < std::min(kPanel, count - lane); ++i) {
                T* to = at_query(static_cast<T*>(s.y), lane + i, p.y_row, p.y_head);
                for_lanes(p.dim, [&](int64_t d, int64_t n) { put(to + d, at(turned + i * p.dim + d, n), n); });
            }
        }
    }

    void run() const {
        pack_queries();
        std::fill(o, o + (count + kPanel - 1) / kPanel * kPanel * p.dim, 0.0f);
        std::fill(total, total + count + kPanel, 0.0f);
        std::fill(most, most + count + kPanel, -std::numeric_limits<float>::infinity());
        if (p.sinks) {  // a key seen before all others, whose value is 0
            for (int64_t i = 0; i < count; ++i)
                most[i] = as_float(*at_query(static_cast<const T*>(p.sinks), i, 0, 1)) * 0x1.715476p0f;
            std::fill(total, total + count, 1.0f);
        }
        const int64_t keys = seen(count - 1);
        for (int64_t first = from(0) / kKeyBlock * kKeyBlock; first < keys; first += kKeyBlock) {
            // Keys behind these queries' sight would only add zeros to their chains.
            const int64_t depth = std::min(kKeyBlock, keys - first);
            pack_keys(first, depth);
            for (int64_t lane = 0; lane < count; lane += kTile) {
                const int64_t sight = std::min(depth, seen(std::min(count, lane + kTile) - 1) - first);
                if (sight <= 0 || from(lane) >= first + depth) continue;
                if (count - lane > kPanel)
                    step<2>(lane, first, sight, depth);
                else
                    step<1>(lane, first, sight, depth);
            }
        }
        finish();
    }
};

template <typename T>
void piece(const AttentionParams& p, const AttentionSequence& s, int64_t kv_head, int64_t begin, int64_t end) {
    const int64_t count = end - begin, lanes = attention_lanes(count);
    float* const memory = scratch(attention_scratch(count, p.dim));
    float *const q = memory, *const o = q + lanes * p.dim, *const k = o + lanes * p.dim,
                 *const v = k + kKeyBlock * p.dim;
    float *const scores = v + kKeyBlock * p.dim, *const turned = scores + kKeyBlock * kTile;
    float *const most = turned + kTile * p.dim, *const total = most + lanes;
    Piece<T>{p, s, kv_head, begin, count, p.heads / p.kv_heads, q, o, most, total, k, v, scores, turned}.run();
}

}  // namespace

const AttentionTable attention_table = {piece<float>, piece<bf16>, piece<f16>};

}  // namespace IVK_ISA
}  // namespace ivk
