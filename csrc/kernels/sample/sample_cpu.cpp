#include <algorithm>
#include <limits>
#include <vector>

#include "core/simd.h"
#include "kernels/sample/sample.h"

namespace ivk {
namespace IVK_ISA {
namespace {

constexpr int64_t kBlock = 1024;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Best {
    float value = -kInfinity;
    int64_t index = 0;
    bool nan = false;
};

// The maximum block by block; only the first block that holds it is searched for its place.
template <typename T>
Best largest(const T* x, int64_t n) {
    Best best;
    int64_t home = 0;
    native_i32 nan = {};
    float lane[kLanes];
    for (int64_t b = 0; b < n; b += kBlock) {
        f32x16 top = f32x16::broadcast(-kInfinity);
        for_lanes(std::min(kBlock, n - b), [&](int64_t i, int64_t lanes) {
            f32x16 v = at(x + b + i, lanes);
            if (lanes < kLanes) {
                store(lane, v);
                std::fill(lane + lanes, lane + kLanes, -kInfinity);
                v = load(lane);
            }
            for (int p = 0; p < kParts; ++p) nan |= v.part[p] != v.part[p];
            top = max(top, v);
        });
        store(lane, top);
        const float block = *std::max_element(lane, lane + kLanes);
        if (block > best.value) {
            best.value = block;
            home = b;
        }
    }
    for (int p = 0; p < kNative; ++p) best.nan = best.nan || nan[p] != 0;
    const int64_t end = std::min(home + kBlock, n);
    for (int64_t i = home; i < end; i += kLanes) {
        const int64_t lanes = std::min<int64_t>(kLanes, end - i);
        store(lane, at(x + i, lanes));
        const float* found = std::find(lane, lane + lanes, best.value);
        if (found == lane + lanes) continue;
        best.index = i + (found - lane);
        break;
    }
    return best;
}

template <typename T>
void argmax_rows(const SampleParams& p, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
        const Best best = largest(static_cast<const T*>(p.logits) + r * p.stride, p.vocab);
        p.tokens[r] = best.nan ? -1 : best.index;
    }
}

struct Token {
    float value;
    int32_t index;
};

bool better(const Token& a, const Token& b) { return a.value > b.value || (a.value == b.value && a.index < b.index); }

// The best `count` tokens in order. The heap's top is the worst of them; a later equal is worse still.
void rank(const float* x, int64_t vocab, int64_t count, std::vector<Token>& tokens) {
    tokens.resize(count);
    for (int64_t i = 0; i < count; ++i) tokens[i] = {x[i], static_cast<int32_t>(i)};
    if (count == vocab) {
        std::sort(tokens.begin(), tokens.end(), better);
        return;
    }
    std::make_heap(tokens.begin(), tokens.end(), better);
    for (int64_t i = count; i < vocab; ++i) {
        if (!(x[i] > tokens.front().value)) continue;
        std::pop_heap(tokens.begin(), tokens.end(), better);
        tokens.back() = {x[i], static_cast<int32_t>(i)};
        std::push_heap(tokens.begin(), tokens.end(), better);
    }
    std::sort_heap(tokens.begin(), tokens.end(), better);
}

int64_t draw(const SampleParams& p, const float* x, float best, double uniform, std::vector<Token>& tokens,
             std::vector<double>& sums) {
    const auto weight = [&](float value) {
        return std::exp((static_cast<double>(value) - static_cast<double>(best)) / p.temperature);
    };
    const bool cut = p.top_k > 0 && p.top_k < p.vocab;
    const int64_t limit = cut ? p.top_k : p.vocab;
    double total = 0.0;
    if (!cut)
        for (int64_t i = 0; i < p.vocab; ++i) total += weight(x[i]);
    // Few tokens carry most of the sum: rank more of them only when the sum asks for more.
    for (int64_t count = cut ? limit : std::min<int64_t>(limit, 64);; count = std::min(limit, count * 64)) {
        rank(x, p.vocab, count, tokens);
        if (cut)
            for (const Token& token : tokens) total += weight(token.value);
        sums.clear();
        double sum = 0.0;
        bool enough = false;
        for (const Token& token : tokens) {
            const double w = weight(token.value);
            if (w == 0.0) break;
            sums.push_back(sum += w);
            enough = p.top_p < 1.0 ? sum >= p.top_p * total : sum > uniform * total;
            if (enough) break;
        }
        if (!enough && count < limit && sums.size() == tokens.size()) continue;
        const double target = uniform * (enough && p.top_p == 1.0 ? total : sum);
        const auto place = std::upper_bound(sums.begin(), sums.end(), target) - sums.begin();
        return tokens[std::min<int64_t>(place, static_cast<int64_t>(sums.size()) - 1)].index;
    }
}

template <typename T>
void sample_rows(const SampleParams& p, int64_t begin, int64_t end) {
    std::vector<Token> tokens;
    std::vector<double> sums;
    std::vector<float> wide(std::is_same_v<T, float> ? 0 : p.vocab);
    for (int64_t r = begin; r < end; ++r) {
        const T* row = static_cast<const T*>(p.logits) + r * p.stride;
        const Best best = largest(row, p.vocab);
        if (best.nan || std::fabs(best.value) == kInfinity) {
            p.tokens[r] = -1;
            continue;
        }
        const float* x;
        if constexpr (std::is_same_v<T, float>) {
            x = row;
        } else {
            for_lanes(p.vocab, [&](int64_t i, int64_t n) { put(wide.data() + i, at(row + i, n), n); });
            x = wide.data();
        }
        p.tokens[r] = draw(p, x, best.value, p.uniform[r], tokens, sums);
    }
}

}  // namespace

const SampleTable sample_table = {argmax_rows<float>, argmax_rows<bf16>, argmax_rows<f16>,
                                  sample_rows<float>, sample_rows<bf16>, sample_rows<f16>};

}  // namespace IVK_ISA
}  // namespace ivk
