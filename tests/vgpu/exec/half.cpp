// f16, bf16 and their packed forms. Operands widen to f32; sums and products of two round once from there (f32 keeps
// more than twice the bits), fma goes through a result rounded to odd (numerics.h), so every result is rounded exactly
// once.
#include <immintrin.h>

#include <cmath>

#include "exec/classes.h"
#include "exec/half_rows.h"
#include "exec/lanes.h"

namespace vgpu {

void widen_half(const uint32_t* in, float* low, float* high) {
    for (int i = 0; i < 32; i += 8) {
        __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i));
        __m256i lo = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
        __m256i hi = _mm256_srli_epi32(v, 16);
        __m128i lo16 = _mm_packus_epi32(_mm256_castsi256_si128(lo), _mm256_extracti128_si256(lo, 1));
        _mm256_storeu_ps(low + i, _mm256_cvtph_ps(lo16));
        if (high) {
            __m128i hi16 = _mm_packus_epi32(_mm256_castsi256_si128(hi), _mm256_extracti128_si256(hi, 1));
            _mm256_storeu_ps(high + i, _mm256_cvtph_ps(hi16));
        }
    }
}
void widen_bf16(const uint32_t* in, float* low, float* high) {
    uint32_t* l = reinterpret_cast<uint32_t*>(low);
    uint32_t* h = reinterpret_cast<uint32_t*>(high);
    for (int i = 0; i < 32; ++i) l[i] = in[i] << 16;
    if (high)
        for (int i = 0; i < 32; ++i) h[i] = in[i] & 0xffff0000u;
}
static __m256i half8(const float* f) {
    __m256 v = _mm256_loadu_ps(f);
    __m256i h = _mm256_cvtepu16_epi32(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(h, _mm256_set1_epi32(0x7fff), _mm256_castps_si256(nan));
}
void narrow_half(const float* low, const float* high, uint32_t* out) {
    for (int i = 0; i < 32; i += 8) {
        __m256i v = half8(low + i);
        if (high) v = _mm256_or_si256(v, _mm256_slli_epi32(half8(high + i), 16));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), v);
    }
}
void narrow_bf16(const float* low, const float* high, uint32_t* out) {
    for (int i = 0; i < 32; ++i) out[i] = float_to_bf16(low[i]);
    if (high)
        for (int i = 0; i < 32; ++i) out[i] |= uint32_t(float_to_bf16(high[i])) << 16;
}

namespace {

enum Kind : uint8_t { op_add, op_sub, op_mul, op_fma, op_min, op_max, op_ex2, op_tanh, op_max_nan, op_min_nan };
// Op::mode here: bit 2 ftz, bit 3 sat, bit 4 relu, bit 5 abs xorsign.
constexpr uint8_t kRelu = 16, kXorsign = 32;

float quiet_nan() { return bits_to_float(0x7fffffff); }
template <bool kMax, bool kNan>
float pick(float a, float b) {
    bool na = a != a, nb = b != b, sa = float_to_bits(a) >> 31, sb = float_to_bits(b) >> 31;
    bool take_b = kMax ? (a < b || (a == b && sa)) : (b < a || (a == b && sb));
    float r = take_b ? b : a;
    if (kNan) return na | nb ? quiet_nan() : r;
    return na ? b : nb ? a : r;
}

template <uint8_t K>
void compute(const float* a, const float* b, const float* c, float* r) {
    for (int i = 0; i < 32; ++i) {
        if (K == op_add) r[i] = a[i] + b[i];
        if (K == op_sub) r[i] = a[i] - b[i];
        if (K == op_mul) r[i] = a[i] * b[i];
        if (K == op_fma) r[i] = fma_odd(a[i], b[i], c[i]);
        if (K == op_min) r[i] = pick<false, false>(a[i], b[i]);
        if (K == op_max) r[i] = pick<true, false>(a[i], b[i]);
        if (K == op_min_nan) r[i] = pick<false, true>(a[i], b[i]);
        if (K == op_max_nan) r[i] = pick<true, true>(a[i], b[i]);
        if (K == op_ex2) r[i] = narrow_odd(std::exp2(double(a[i])));
        if (K == op_tanh) r[i] = narrow_odd(std::tanh(double(a[i])));
    }
}

// 24-bit products and sums of bf16 can be inexact in f32 (exponents far apart), so they go through rounding to odd too.
template <>
void compute<op_add + 32>(const float* a, const float* b, const float*, float* r) {
    for (int i = 0; i < 32; ++i) r[i] = fma_odd(a[i], 1.0f, b[i]);
}
template <>
void compute<op_sub + 32>(const float* a, const float* b, const float*, float* r) {
    for (int i = 0; i < 32; ++i) r[i] = fma_odd(b[i], -1.0f, a[i]);
}

void flush_subnormal_half(float* v) {
    for (int i = 0; i < 32; ++i)
        if (std::fabs(v[i]) < 0x1p-14f) v[i] = std::copysign(0.0f, v[i]);
}

template <bool kBf16, bool kPair, uint8_t K>
Next half_op(Warp& w, const Op& o, uint32_t mask) {
    alignas(32) float a[2][32], b[2][32], c[2][32], r[2][32];
    auto widen = kBf16 ? widen_bf16 : widen_half;
    widen(row<uint32_t>(w, o.a), a[0], kPair ? a[1] : nullptr);
    if (o.b != kNoRow) widen(row<uint32_t>(w, o.b), b[0], kPair ? b[1] : nullptr);
    if (o.c != kNoRow) widen(row<uint32_t>(w, o.c), c[0], kPair ? c[1] : nullptr);
    for (int h = 0; h < (kPair ? 2 : 1); ++h) {
        bool ftz = !kBf16 && o.mode & kModeFtz;
        if (ftz) {
            flush_subnormal_half(a[h]);
            if (o.b != kNoRow) flush_subnormal_half(b[h]);
            if (o.c != kNoRow) flush_subnormal_half(c[h]);
        }
        uint32_t sign[32];
        if (o.mode & kXorsign)
            for (int i = 0; i < 32; ++i) {
                sign[i] = (float_to_bits(a[h][i]) ^ float_to_bits(b[h][i])) & 0x80000000u;
                a[h][i] = std::fabs(a[h][i]), b[h][i] = std::fabs(b[h][i]);
            }
        compute<(kBf16 && (K == op_add || K == op_sub)) ? K + 32 : K>(a[h], b[h], c[h], r[h]);
        if (o.mode & kXorsign)
            for (int i = 0; i < 32; ++i) r[h][i] = bits_to_float(float_to_bits(r[h][i]) | sign[i]);
        if (o.mode & kRelu)
            for (int i = 0; i < 32; ++i) r[h][i] = r[h][i] != r[h][i] ? r[h][i] : r[h][i] > 0 ? r[h][i] : 0.0f;
        if (o.mode & kModeSat)
            for (int i = 0; i < 32; ++i) r[h][i] = r[h][i] > 0 ? (r[h][i] < 1 ? r[h][i] : 1.0f) : 0.0f;
        if (ftz && K <= op_fma) flush_subnormal_half(r[h]);
    }
    alignas(32) uint32_t t[32];
    (kBf16 ? narrow_bf16 : narrow_half)(r[0], kPair ? r[1] : nullptr, t);
    store_row(row<uint32_t>(w, o.d), t, mask);
    return Next::step;
}

template <uint8_t K>
Handler handler(Type t) {
    switch (t) {
        case Type::f16:
            return half_op<false, false, K>;
        case Type::f16x2:
            return half_op<false, true, K>;
        case Type::bf16:
            return half_op<true, false, K>;
        case Type::bf16x2:
            return half_op<true, true, K>;
        default:
            return nullptr;
    }
}
// Subnormals of both halves to zeros of their sign; the upper half of a single value is zero.
uint32_t flush16(uint32_t a) {
    const uint32_t low = a & 0x7c00u ? 0xffffu : 0x8000u, high = a & 0x7c000000u ? 0xffff0000u : 0x80000000u;
    return a & (low | high);
}
uint32_t neg16(uint32_t a) { return (a ^ 0x8000u) & 0xffffu; }
uint32_t neg16x2(uint32_t a) { return a ^ 0x80008000u; }
uint32_t abs16(uint32_t a) { return a & 0x7fffu; }
uint32_t abs16x2(uint32_t a) { return a & 0x7fff7fffu; }
template <uint32_t (*kOf)(uint32_t)>
uint32_t flushed(uint32_t a) {
    return kOf(flush16(a));
}

}  // namespace

bool is_half_type(Type t) { return t == Type::f16 || t == Type::f16x2 || t == Type::bf16 || t == Type::bf16x2; }

void decode_half(Decoder& d) {  // add sub mul fma min max abs neg ex2 tanh of f16 and bf16
    const std::string& n = d.in.parts[0];
    d.take("rn");
    d.take("approx");
    bool ftz = d.take("ftz"), sat = d.take("sat"), relu = d.take("relu"), nan = d.take("NaN"),
         xorsign = d.take("xorsign");
    d.take("abs");
    Type t = d.take_type();
    bool bf = t == Type::bf16 || t == Type::bf16x2, pair = t == Type::f16x2 || t == Type::bf16x2;
    if (n == "ex2" && bf)
        ftz = false;  // ex2.approx.ftz.bf16: bf16 has f32's range, subnormal results are kept by rounding
    d.op.mode = uint8_t((ftz ? kModeFtz : 0) | (sat ? kModeSat : 0) | (relu ? kRelu : 0) | (xorsign ? kXorsign : 0));
    int sources = 2;
    Handler h = nullptr;
    if (n == "add") h = handler<op_add>(t);
    if (n == "sub") h = handler<op_sub>(t);
    if (n == "mul") h = handler<op_mul>(t);
    if (n == "fma") h = handler<op_fma>(t), sources = 3;
    if (n == "min") h = nan ? handler<op_min_nan>(t) : handler<op_min>(t);
    if (n == "max") h = nan ? handler<op_max_nan>(t) : handler<op_max>(t);
    if (n == "ex2") h = handler<op_ex2>(t), sources = 1;
    if (n == "tanh") h = handler<op_tanh>(t), sources = 1;
    if (n == "neg") h = pair ? lanes<neg16x2> : lanes<neg16>, sources = 1;
    if (n == "abs") h = pair ? lanes<abs16x2> : lanes<abs16>, sources = 1;
    if (ftz && n == "neg") h = pair ? lanes<flushed<neg16x2>> : lanes<flushed<neg16>>;
    if (ftz && n == "abs") h = pair ? lanes<flushed<abs16x2>> : lanes<flushed<abs16>>;
    if (!h) d.fail("type");
    d.expect_operands(sources + 1, sources + 1);
    for (int i = 0; i <= sources; ++i) d.expect_width(i, t);
    d.op.a = d.source(1, 4, t);
    if (sources > 1) d.op.b = d.source(2, 4, t);
    if (sources > 2) d.op.c = d.source(3, 4, t);
    d.op.d = d.destination(0, 4);
    d.set(h);
}

}  // namespace vgpu
