// mma.sync of f16, bf16, tf32, e4m3, e5m2 (f32 or f16 results), s8/u8 (s32) and f64.
//
// Fragments (g = lane / 4, t = lane % 4, E = elements of a 32-bit register):
//   a[q] = A[g + 8 (q & 1)][E t + 4 E (q >> 1) + 0..E-1],  b[q] = B[E t + 4 E q + 0..E-1][g],
//   c[v] = C[g + 8 (v >> 1)][2 t + (v & 1)]; m8 shapes have the rows below 8 only.
// Sums: products and sums in f64 (products are exact there), rounded once to the result: the exact sum for all
// practical purposes. Truncating mode imitates tensor cores of the sm_80 generation instead: blocks of 16 bytes of k;
// within a block the products and the running sum are aligned to the largest exponent, cut off below 2^-24 of it, added
// exactly, and cut (towards zero) to f32. Neither order nor width of real hardware is documented; a kernel has to pass
// under both.
#include <immintrin.h>

#include <cmath>

#include "exec/classes.h"
#include "exec/half_rows.h"
#include "exec/worker.h"

namespace vgpu {
namespace {

struct Shape {
    int m, n, k;
    Type d, a, b, c;
    int a_regs, b_regs, c_regs;  // registers of each operand; d has as many as c
    bool saturate;
};

constexpr int kMaxK = 32;

// Words of a fragment as a dense matrix: row g holds 4 * chunks words.
void dense(Warp& w, const uint32_t* rows, int registers, bool row_pairs, int words, uint32_t* out) {
    for (int q = 0; q < registers; ++q) {
        const uint32_t* r = row<uint32_t>(w, rows[q]);
        int down = row_pairs ? 8 * (q & 1) : 0, chunk = row_pairs ? q >> 1 : q;
        for (int g = 0; g < 8; ++g) std::memcpy(out + (g + down) * words + 4 * chunk, r + 4 * g, 16);
    }
}
// `count` elements of 16, 8 or 32 bits to f32; tf32 drops the lower 13 bits.
void widen_elements(Type t, const uint32_t* words, int count, float* out) {
    switch (t) {
        case Type::f16:
            for (int i = 0; i < count; i += 8)
                _mm256_storeu_ps(out + i,
                                 _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words + i / 2))));
            break;
        case Type::bf16:
            for (int i = 0; i < count; i += 8) {
                __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words + i / 2)));
                _mm256_storeu_ps(out + i, _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)));
            }
            break;
        case Type::tf32:
        case Type::f32:
            for (int i = 0; i < count; ++i) out[i] = bits_to_float(words[i] & 0xffffe000u);
            break;
        default: {
            const Format& f = t == Type::e4m3 ? kE4m3 : kE5m2;
            for (int i = 0; i < count; ++i) out[i] = float(to_double(f, words[i / 4] >> (8 * (i % 4)) & 0xff));
        }
    }
}

// Eight columns of eight rows, turned and widened: b[0..7][n] = bt[n][0..7].
void turn(const float* bt, int stride, double (*b)[8]) {
    __m256 r[8], t[8];
    for (int n = 0; n < 8; ++n) r[n] = _mm256_loadu_ps(bt + n * stride);
    for (int n = 0; n < 8; n += 2)
        t[n] = _mm256_unpacklo_ps(r[n], r[n + 1]), t[n + 1] = _mm256_unpackhi_ps(r[n], r[n + 1]);
    for (int n = 0; n < 8; n += 4)
        for (int h = 0; h < 2; ++h) {
            r[n + 2 * h] = _mm256_shuffle_ps(t[n + h], t[n + h + 2], 0x44);
            r[n + 2 * h + 1] = _mm256_shuffle_ps(t[n + h], t[n + h + 2], 0xEE);
        }
    for (int k = 0; k < 4; ++k) {  // columns k and k + 4 lie in the halves of r[k] and r[k + 4]
        _mm256_storeu_pd(b[k], _mm256_cvtps_pd(_mm256_castps256_ps128(r[k])));
        _mm256_storeu_pd(b[k] + 4, _mm256_cvtps_pd(_mm256_castps256_ps128(r[k + 4])));
        _mm256_storeu_pd(b[k + 4], _mm256_cvtps_pd(_mm256_extractf128_ps(r[k], 1)));
        _mm256_storeu_pd(b[k + 4] + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(r[k + 4], 1)));
    }
}
void multiply_exact(const Shape& s, const float* a, const float* bt, double* acc) {
    alignas(32) double b[kMaxK][8], wide[16 * kMaxK];
    if (s.k % 8 == 0) {
        for (int k = 0; k < s.k; k += 8) turn(bt + k, s.k, b + k);
    } else {
        for (int n = 0; n < 8; ++n)
            for (int k = 0; k < s.k; ++k) b[k][n] = bt[n * s.k + k];
    }
    for (int i = 0; i < s.m * s.k; i += 4) _mm256_store_pd(wide + i, _mm256_cvtps_pd(_mm_loadu_ps(a + i)));
    for (int i = 0; i < s.m; i += 4) {
        __m256d c[4][2];
        for (int r = 0; r < 4; ++r)
            c[r][0] = _mm256_loadu_pd(acc + (i + r) * 8), c[r][1] = _mm256_loadu_pd(acc + (i + r) * 8 + 4);
        const double* x = wide + i * s.k;
        for (int k = 0; k < s.k; ++k) {
            __m256d b0 = _mm256_load_pd(b[k]), b1 = _mm256_load_pd(b[k] + 4);
            for (int r = 0; r < 4; ++r) {
                __m256d v = _mm256_broadcast_sd(x + r * s.k + k);
                c[r][0] = _mm256_fmadd_pd(v, b0, c[r][0]);
                c[r][1] = _mm256_fmadd_pd(v, b1, c[r][1]);
            }
        }
        for (int r = 0; r < 4; ++r)
            _mm256_storeu_pd(acc + (i + r) * 8, c[r][0]), _mm256_storeu_pd(acc + (i + r) * 8 + 4, c[r][1]);
    }
}
// Lane l holds elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4: of two registers, one word each.
void widen_sums(const float* even, const float* odd, double* acc) {
    for (int l = 0; l < 32; l += 4) {
        __m128 e = _mm_loadu_ps(even + l), o = _mm_loadu_ps(odd + l);
        _mm256_storeu_pd(acc + 2 * l, _mm256_cvtps_pd(_mm_unpacklo_ps(e, o)));
        _mm256_storeu_pd(acc + 2 * l + 4, _mm256_cvtps_pd(_mm_unpackhi_ps(e, o)));
    }
}
void narrow_sums(const double* acc, float* even, float* odd) {
    const __m128 nan = _mm_castsi128_ps(_mm_set1_epi32(0x7fffffff));
    for (int l = 0; l < 32; l += 4) {
        __m128 low = _mm256_cvtpd_ps(_mm256_loadu_pd(acc + 2 * l)),
               high = _mm256_cvtpd_ps(_mm256_loadu_pd(acc + 2 * l + 4));
        low = _mm_blendv_ps(low, nan, _mm_cmpunord_ps(low, low));
        high = _mm_blendv_ps(high, nan, _mm_cmpunord_ps(high, high));
        _mm_storeu_ps(even + l, _mm_shuffle_ps(low, high, 0x88));
        _mm_storeu_ps(odd + l, _mm_shuffle_ps(low, high, 0xDD));
    }
}
double cut_to_float(double v) {
    float f = float(v);
    return std::fabs(double(f)) > std::fabs(v) ? double(std::nextafterf(f, 0.0f)) : double(f);
}
void multiply_truncating(const Shape& s, const float* a, const float* bt, double* acc) {
    int block = 16 / size_of(s.a);
    for (int i = 0; i < s.m; ++i)
        for (int n = 0; n < 8; ++n) {
            double sum = acc[i * 8 + n];
            for (int from = 0; from < s.k; from += block) {
                double term[17];
                int count = 0, top = -100000, e;
                bool finite = true;
                term[count++] = sum;
                for (int k = from; k < from + block && k < s.k; ++k)
                    term[count++] = double(a[i * s.k + k]) * bt[n * s.k + k];
                for (int k = 0; k < count; ++k) {
                    finite &= std::isfinite(term[k]);
                    if (term[k] != 0) std::frexp(term[k], &e), top = std::max(top, e);
                }
                if (!finite) {
                    for (int k = 1; k < count; ++k) sum += term[k];
                    continue;
                }
                double total = 0;
                for (int k = 0; k < count; ++k)
                    if (term[k] != 0) total += std::trunc(std::ldexp(term[k], 25 - top));
                sum = cut_to_float(std::ldexp(total, top - 25));
            }
            acc[i * 8 + n] = sum;
        }
}

// Definedness: an element of the result needs its row of A, its column of B and its own element of C.
void spread_definedness(Warp& w, const Op& o, const Shape& s) {
    const uint16_t* id = o.x->ids.data();
    uint32_t all = ~0u;
    int d_regs = s.c_regs, inputs = s.a_regs + s.b_regs + s.c_regs;
    for (int i = 0; i < inputs; ++i) all &= read_defined(w, id[d_regs + i]);
    if (all == ~0u) {
        for (int i = 0; i < d_regs; ++i) write_defined(w, id[i], ~0u, ~0u);
        return;
    }
    bool bad_row[16] = {}, bad_column[8] = {};
    for (int q = 0; q < s.a_regs; ++q)
        VGPU_FOR_LANES(l, ~read_defined(w, id[d_regs + q])) bad_row[l / 4 + (s.m == 16 ? 8 * (q & 1) : 0)] = true;
    for (int q = 0; q < s.b_regs; ++q)
        VGPU_FOR_LANES(l, ~read_defined(w, id[d_regs + s.a_regs + q])) bad_column[l / 4] = true;
    bool packed = s.c == Type::f16;
    for (int v = 0; v < d_regs; ++v) {
        uint32_t r = read_defined(w, id[d_regs + s.a_regs + s.b_regs + v]);
        for (uint32_t l = 0; l < 32; ++l) {
            uint32_t at_row = l / 4 + 8 * uint32_t(packed ? v : v >> 1), column = 2 * (l % 4) + (packed ? 0 : v & 1);
            if (bad_row[at_row] || bad_column[column] || (packed && bad_column[column + 1])) r &= ~(1u << l);
        }
        write_defined(w, id[v], ~0u, r);
    }
}

bool whole_warp(Warp& w, const Op& o, uint32_t mask, Next* next) {
    if (mask == ~0u) return true;
    Group& g = w.groups[w.current];
    if (w.live == ~0u && g.mask != ~0u) {
        g.state = State::collect;
        g.need = ~0u;
        *next = Next::blocked;
    } else {
        report(w, o, first_lane(mask), "collective", "mma needs all 32 lanes", true);
        *next = Next::failed;
    }
    return false;
}

// Rows in x: d, a, b, c.
Next mma_float(Warp& w, const Op& o, uint32_t mask) {
    Next next;
    if (!whole_warp(w, o, mask, &next)) return next;
    const Shape& s = *reinterpret_cast<const Shape*>(o.x->text.data());
    const uint32_t *rd = o.x->rows.data(), *ra = rd + s.c_regs, *rb = ra + s.a_regs, *rc = rb + s.b_regs;
    const int words = s.k * size_of(s.a) / 4;
    alignas(32) uint32_t a_words[16 * 16], b_words[8 * 16];
    alignas(32) float a[16 * kMaxK], bt[8 * kMaxK];
    alignas(32) double acc[16 * 8];
    dense(w, ra, s.a_regs, true, words, a_words);
    dense(w, rb, s.b_regs, false, words, b_words);
    widen_elements(s.a, a_words, 16 * s.k, a);
    widen_elements(s.b, b_words, 8 * s.k, bt);
    if (s.c == Type::f16) {
        for (int v = 0; v < 2; ++v) {
            alignas(32) float lo[32], hi[32];
            widen_half(row<uint32_t>(w, rc[v]), lo, hi);
            for (int l = 0; l < 32; ++l) acc[64 * v + 2 * l] = lo[l], acc[64 * v + 2 * l + 1] = hi[l];
        }
    } else {
        for (int v = 0; v < 4; v += 2) widen_sums(row<float>(w, rc[v]), row<float>(w, rc[v + 1]), acc + 32 * v);
    }
    (w.worker->launch.options.truncating_mma ? multiply_truncating : multiply_exact)(s, a, bt, acc);
    if (w.worker->definedness) spread_definedness(w, o, s);
    if (s.d == Type::f16) {
        for (int v = 0; v < 2; ++v) {
            alignas(32) float lo[32], hi[32];
            for (int l = 0; l < 32; ++l)
                lo[l] = narrow_odd(acc[64 * v + 2 * l]), hi[l] = narrow_odd(acc[64 * v + 2 * l + 1]);
            narrow_half(lo, hi, row<uint32_t>(w, rd[v]));
        }
    } else {
        for (int v = 0; v < 4; v += 2) narrow_sums(acc + 32 * v, row<float>(w, rd[v]), row<float>(w, rd[v + 1]));
    }
    return Next::step;
}

Next mma_integer(Warp& w, const Op& o, uint32_t mask) {
    Next next;
    if (!whole_warp(w, o, mask, &next)) return next;
    const Shape& s = *reinterpret_cast<const Shape*>(o.x->text.data());
    const uint32_t *rd = o.x->rows.data(), *ra = rd + s.c_regs, *rb = ra + s.a_regs, *rc = rb + s.b_regs;
    const int words = s.k / 4;
    alignas(32) uint32_t a_words[16 * 8] = {}, b_words[8 * 8];
    dense(w, ra, s.a_regs, s.m == 16, words, a_words);
    dense(w, rb, s.b_regs, false, words, b_words);
    alignas(32) int16_t a[16 * kMaxK], b[8 * kMaxK];
    auto widen = [](Type t, const uint32_t* in, int count, int16_t* out) {
        const uint8_t* p = reinterpret_cast<const uint8_t*>(in);
        for (int i = 0; i < count; ++i) out[i] = t == Type::s8 ? int16_t(int8_t(p[i])) : int16_t(p[i]);
    };
    widen(s.a, a_words, s.m * s.k, a);
    widen(s.b, b_words, 8 * s.k, b);
    int32_t out[4][32];
    for (int v = 0; v < s.c_regs; ++v)
        for (int l = 0; l < 32; ++l) {
            const int16_t *x = a + (l / 4 + 8 * (v >> 1)) * s.k, *y = b + (2 * (l % 4) + (v & 1)) * s.k;
            int32_t dot = 0;
            for (int k = 0; k < s.k; ++k) dot += int32_t(x[k]) * y[k];
            int64_t sum = int64_t(dot) + int32_t(row<uint32_t>(w, rc[v])[l]);
            if (s.saturate) sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
            out[v][l] = int32_t(uint32_t(sum));
        }
    if (w.worker->definedness) spread_definedness(w, o, s);
    for (int v = 0; v < s.c_regs; ++v) std::memcpy(row<uint32_t>(w, rd[v]), out[v], 128);
    return Next::step;
}

// m8n8k4 f64: fused, k in order.
Next mma_double(Warp& w, const Op& o, uint32_t mask) {
    Next next;
    if (!whole_warp(w, o, mask, &next)) return next;
    const Shape& s = *reinterpret_cast<const Shape*>(o.x->text.data());
    const uint32_t* r = o.x->rows.data();
    const double *a = row<double>(w, r[2]), *b = row<double>(w, r[3]);
    double out[2][32];
    for (int v = 0; v < 2; ++v)
        for (int l = 0; l < 32; ++l) {
            double sum = row<double>(w, r[4 + v])[l];
            for (int k = 0; k < 4; ++k) sum = __builtin_fma(a[l / 4 * 4 + k], b[(2 * (l % 4) + v) * 4 + k], sum);
            out[v][l] = sum;
        }
    if (w.worker->definedness) spread_definedness(w, o, s);
    for (int v = 0; v < 2; ++v) std::memcpy(row<double>(w, r[v]), out[v], 256);
    return Next::step;
}

}  // namespace

void decode_mma(Decoder& d) {
    for (std::string_view part : {"sync", "aligned", "row", "col"}) d.take(part);
    Shape s{};
    int shape = d.take_one({"m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32", "m8n8k16", "m8n8k4"});
    static const int sizes[6][3] = {{16, 8, 4}, {16, 8, 8}, {16, 8, 16}, {16, 8, 32}, {8, 8, 16}, {8, 8, 4}};
    s.m = sizes[shape][0], s.n = sizes[shape][1], s.k = sizes[shape][2];
    s.saturate = d.take("satfinite");
    s.d = d.take_type(), s.a = d.take_type(), s.b = d.take_type(), s.c = d.take_type();
    auto eight = [](Type t) { return t == Type::s8 || t == Type::u8; };
    bool f64 = s.a == Type::f64, integer = eight(s.a) && eight(s.b);
    const int bits = f64 ? 64 : s.a == Type::tf32 ? 32 : s.a == Type::f16 || s.a == Type::bf16 ? 16 : 8;
    s.a_regs = f64 ? 1 : s.m * s.k * bits / 1024, s.b_regs = f64 ? 1 : 8 * s.k * bits / 1024;
    s.c_regs = s.m == 8 ? 2 : s.c == Type::f16 ? 2 : 4;
    d.expect_operands(4, 4);
    OpExtra& x = d.extra();
    int counts[4] = {s.c_regs, s.a_regs, s.b_regs, s.c_regs}, bytes = f64 ? 8 : 4;
    for (int i = 0; i < 4; ++i) {
        const Operand& o = d.operand(i);
        std::vector<Operand> list = o.kind == OperandKind::vector ? o.elements : std::vector<Operand>{o};
        if (int(list.size()) != counts[i]) d.fail("fragment of another size");
        for (const Operand& e : list) {
            x.rows.push_back(d.raw(e, bytes, i == 3 ? s.c : Type::b32));
            x.ids.push_back(d.id(e));
        }
    }
    x.text.assign(reinterpret_cast<const char*>(&s), sizeof s);
    d.op.flops = uint32_t(2 * s.m * s.n * s.k);
    d.set(f64 ? mma_double : integer ? mma_integer : mma_float);
}

}  // namespace vgpu
