#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "core/simd_math.h"
#include "core/simd_product.h"
#include "kernels/gemm/gemm_table.h"

namespace ivk {
namespace IVK_ISA {
namespace {

constexpr int64_t kAhead = 4096;  // bytes in each panel

// Rows up to which 16-bit weights are widened in registers, once for each micro-panel; above, once for all rows.
#if defined(__F16C__) || defined(__aarch64__)
constexpr int64_t kDirect = std::numeric_limits<int64_t>::max();  // hides behind the products
#else
constexpr int64_t kDirect = 4;
#endif

// Rows up to which the panels are read as one stream. One call of the micro-kernel holds them.
constexpr int kStreamed = kRows < 4 ? kRows : 4;

template <typename W>
const W* zero_row() {
    static const W zeros[kDepth] = {};
    return zeros;
}

// Row of the weight behind lane `lane` of panel `panel`, or null past the end.
template <typename W>
const W* weight_row(const PackedWeight& w, int64_t panel, int64_t lane) {
    int64_t row = panel * kPanel + lane, end = w.n;
    if (w.swiglu) {
        row = panel / 2 * kPanel + lane;
        end = w.n / 2;
    }
    if (row >= end) return nullptr;
    if (w.swiglu && panel % 2) row += end;
    return static_cast<const W*>(w.data) + row * w.stride;
}

// A tile's weights for k in [begin, begin + depth) as fp32 [2][depth][kPanel] in `to`.
template <typename W>
void stage(const PackedWeight& w, int64_t tile, int64_t begin, int64_t depth, float* to) {
    for (int64_t half = 0; half < 2; ++half, to += depth * kPanel) {
        const int64_t panel = tile * 2 + half;
        if (w.packed) {
            const W* from = static_cast<const W*>(w.data) + (panel * w.k + begin) * kPanel;
            for (int64_t i = 0; i < depth * kPanel; i += kLanes) store(to + i, load(from + i));
        } else {
            const W* rows[kPanel];
            for (int64_t lane = 0; lane < kPanel; ++lane) {
                rows[lane] = weight_row<W>(w, panel, lane);
                rows[lane] = rows[lane] ? rows[lane] + begin : zero_row<W>();
            }
            interleave(rows, int(kPanel), depth, to);
        }
    }
}

template <typename T>
f32x16 operand(const void* p, int64_t index, int64_t lanes) {
    return at(static_cast<const T*>(p) + index, lanes);
}

// Sums over all of k, [tile][m][kTile], into rows [m_begin, m_begin + m) of y; residual and y are of R.
template <typename T, typename R>
void finish(const GemmParams& p, int64_t m_begin, int64_t m, int64_t t_begin, int64_t t_end, const float* sums) {
    const bool has_gate = p.epilogue == Epilogue::swiglu;
    const int64_t columns = has_gate ? p.weight.n / 2 : p.weight.n, wide = has_gate ? kPanel : kTile;
    const int64_t first = t_begin * wide, last = std::min(columns, t_end * wide);
    for (int64_t r = 0; r < m; ++r) {
        const int64_t row = m_begin + r;
        R* const y = static_cast<R*>(p.y) + row * p.stride_y;
        for (int64_t j = first; j < last; j += kPanel) {
            const int64_t lanes = std::min(kPanel, columns - j), tile = j / wide - t_begin;
            const float* const from = sums + (tile * m + r) * kTile + j % wide;
            f32x16 v = load(from);
            if (p.bias) v = v + operand<T>(p.bias, j, lanes);
            if (p.epilogue == Epilogue::gelu) {
                v = gelu(v);
            } else if (has_gate) {
                const f32x16 up = load(from + kPanel);
                v = gated(v, p.bias ? up + operand<T>(p.bias, columns + j, lanes) : up, p.limit);
            } else if (p.epilogue == Epilogue::residual) {
                if (p.scale) v = v * operand<T>(p.scale, j, lanes);
                v = operand<R>(p.residual, row * p.stride_r + j, lanes) + v;
            }
            put(y + j, v, lanes);
        }
    }
}

template <typename T>
struct Block {
    const GemmParams& p;
    const PackedWeight& w;
    int64_t m_begin, m;
    float *x, *sums, *staged;

    // x as fp32 [chain][panel of rows][k][row]
    void pack_rows() const {
        for (int64_t k = 0; k < w.k; k += kDepth) {
            const int64_t depth = std::min(kDepth, w.k - k);
            for (int64_t r = 0; r < m; r += kRows) {
                const int rows = int(std::min<int64_t>(kRows, m - r));
                const T* from[kRows];
                for (int i = 0; i < rows; ++i) {
                    const int64_t row = m_begin + r + i;
                    from[i] = static_cast<const T*>(p.x) + (p.rows ? p.rows[row] : row) * p.stride_x + k;
                }
                interleave(from, rows, depth, x + k * m + r * depth);
            }
        }
    }

    template <bool Fetch, typename W>
    void multiply(int64_t k, int64_t depth, const Weights<W>& weights, float* c) const {
        int64_t r = 0;
        for (; r + kRows < m; r += kRows)
            micro_rows<W, kRows, 2, false>(depth, x + k * m + r * depth, weights, {c + r * kTile, kTile, kPanel},
                                           k > 0);
        micro<W, kRows, 2, Fetch>(int(m - r), depth, x + k * m + r * depth, weights, {c + r * kTile, kTile, kPanel},
                                  k > 0);
    }

    template <typename W>
    void tile(int64_t t, int64_t k, int64_t depth, float* c) const {
        if (w.packed && (std::is_same_v<W, float> || m <= kDirect)) {
            const int64_t pitch = w.k * kPanel;
            const W* const data = static_cast<const W*>(w.data) + t * 2 * pitch + k * kPanel;
            // Many rows: the next tile comes while this one is in use. Few: a little ahead of the stream.
            multiply<true, W>(k, depth, {data, pitch, data + (m > kRows ? 2 * pitch : kAhead / int64_t(sizeof(W)))}, c);
        } else {
            stage<W>(w, t, k, depth, staged);
            multiply<false, float>(k, depth, {staged, depth * kPanel, nullptr}, c);
        }
    }

    // Both panels of a tile from one end to the other: memory is fastest as a single stream.
    template <typename W>
    void stream(int64_t t, float* c) const {
        for (int64_t panel = 0; panel < 2; ++panel, c += kPanel)
            for (int64_t k = 0; k < w.k; k += kDepth) {
                const W* const data = static_cast<const W*>(w.data) + ((t * 2 + panel) * w.k + k) * kPanel;
                micro<W, kStreamed, 1, true>(int(m), std::min(kDepth, w.k - k), x + k * m,
                                             {data, 0, data + kAhead / int64_t(sizeof(W))}, {c, kTile, 0}, k > 0);
            }
    }

    template <typename W>
    void run(int64_t t_begin, int64_t t_end) const {
        pack_rows();
        for (int64_t first = t_begin; first < t_end; first += kGroup) {
            const int64_t last = std::min(t_end, first + kGroup);
            const auto chain = [&](int64_t t, int64_t k) {
                tile<W>(t, k, std::min(kDepth, w.k - k), sums + (t - first) * m * kTile);
            };
            if (m <= kStreamed && w.packed && (std::is_same_v<W, float> || m <= kDirect)) {
                for (int64_t t = first; t < last; ++t) stream<W>(t, sums + (t - first) * m * kTile);
            } else if (m <= kRows) {  // the weights as they lie
                for (int64_t t = first; t < last; ++t)
                    for (int64_t k = 0; k < w.k; k += kDepth) chain(t, k);
            } else {  // x as long as it is near
                for (int64_t k = 0; k < w.k; k += kDepth)
                    for (int64_t t = first; t < last; ++t) chain(t, k);
            }
            (p.stream == p.dtype ? finish<T, T> : finish<T, float>)(p, m_begin, m, first, last, sums);
        }
    }
};

template <typename T>
void block(const GemmParams& p, int64_t m_begin, int64_t m_end, int64_t t_begin, int64_t t_end) {
    const int64_t m = m_end - m_begin, group = std::min(kGroup, t_end - t_begin);
    float* const x = scratch(gemm_scratch(m, p.weight.k, group));
    const Block<T> b{p, p.weight, m_begin, m, x, x + m * p.weight.k, x + m * (p.weight.k + group * kTile)};
    switch (p.weight.dtype) {
        case DType::f32:
            return b.template run<float>(t_begin, t_end);
        case DType::bf16:
            return b.template run<bf16>(t_begin, t_end);
        default:
            return b.template run<f16>(t_begin, t_end);
    }
}

void any_block(const GemmParams& p, int64_t m_begin, int64_t m_end, int64_t t_begin, int64_t t_end) {
    (p.dtype == DType::f32    ? block<float>
     : p.dtype == DType::bf16 ? block<bf16>
                              : block<f16>)(p, m_begin, m_end, t_begin, t_end);
}

template <typename W>
void pack(const PackedWeight& plain, void* packed, int64_t t_begin, int64_t t_end) {
    for (int64_t panel = 2 * t_begin; panel < 2 * t_end; ++panel) {
        W* to = static_cast<W*>(packed) + panel * plain.k * kPanel;
        for (int64_t lane = 0; lane < kPanel; ++lane) {
            const W* from = weight_row<W>(plain, panel, lane);
            for (int64_t i = 0; i < plain.k; ++i) to[i * kPanel + lane] = from ? from[i] : W{};
        }
    }
}

void any_pack(const PackedWeight& plain, void* packed, int64_t t_begin, int64_t t_end) {
    if (plain.dtype == DType::f32)
        pack<float>(plain, packed, t_begin, t_end);
    else
        pack<bf16>(plain, packed, t_begin, t_end);  // sixteen bits, whatever they mean
}

}  // namespace

const GemmTable gemm_table = {any_block, any_pack, kRows};

}  // namespace IVK_ISA
}  // namespace ivk
