// f32 and f64 arithmetic. Rounding modes and .ftz run in the machine's own modes (lanes.h: FloatMode). Approximate
// functions are nearest-rounded or within one unit in the last place, inside the errors the ISA documents.
#include <cmath>

#include "exec/classes.h"
#include "exec/lanes.h"
#include "exec/numerics.h"

namespace vgpu {
namespace {

template <class T>
T add(T a, T b) {
    return a + b;
}
template <class T>
T sub(T a, T b) {
    return a - b;
}
template <class T>
T mul(T a, T b) {
    return a * b;
}
template <class T>
T fma_(T a, T b, T c) {
    return __builtin_fma(a, b, c);
}
template <>
float fma_(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
template <class T>
T divide(T a, T b) {
    return a / b;
}
template <class T>
T reciprocal(T a) {
    return T(1) / a;
}
double square_root_d(double a) { return __builtin_sqrt(a); }
float square_root_f(float a) { return __builtin_sqrtf(a); }
float rsqrt_f(float a) { return float(1.0 / __builtin_sqrt(double(a))); }
double rsqrt_d(double a) { return 1.0 / __builtin_sqrt(a); }
// div.approx: a quotient by a divisor beyond 2^126 is zero (the reciprocal underflows), infinity by it is NaN.
float div_approx(float a, float b) {
    float m = std::fabs(b);
    float q = a / b;
    return m > 0x1p126f && m < INFINITY
               ? (std::fabs(a) == INFINITY ? bits_to_float(0x7fffffff) : std::copysign(0.0f, q))
               : q;
}
// rcp.approx.ftz.f64 keeps the upper 32 bits.
double rcp_gross(double a) { return bits_to_double(double_to_bits(1.0 / a) & 0xffffffff00000000ull); }
double rsqrt_gross(double a) { return bits_to_double(double_to_bits(1.0 / __builtin_sqrt(a)) & 0xffffffff00000000ull); }

// 2^x: Taylor series of 2^f on [-1/2, 1/2] in f64, error below 3e-10, rounded once.
float ex2(float x) {
    double v = x;
    v = v < -200 ? -200 : v;
    v = v > 200 ? 200 : v;
    double shifted = v + 0x1.8p52, whole = shifted - 0x1.8p52, f = v - whole;
    double p = 1.3215486790144307e-06;
    p = p * f + 1.525273380405984e-05;
    p = p * f + 0.0001540353039338161;
    p = p * f + 0.0013333558146428443;
    p = p * f + 0.009618129107628477;
    p = p * f + 0.05550410866482158;
    p = p * f + 0.24022650695910072;
    p = p * f + 0.6931471805599453;
    p = p * f + 1.0;
    uint64_t scale = (double_to_bits(shifted) + 1023) << 52;
    return float(p * bits_to_double(scale));
}
float lg2(float x) { return float(std::log2(double(x))); }
float sine(float x) { return float(std::sin(double(x))); }
float cosine(float x) { return float(std::cos(double(x))); }
float tanh_(float x) { return float(std::tanh(double(x))); }

float neg_f(float a) { return bits_to_float(float_to_bits(a) ^ 0x80000000u); }
float abs_f(float a) { return bits_to_float(float_to_bits(a) & 0x7fffffffu); }
double neg_d(double a) { return bits_to_double(double_to_bits(a) ^ 1ull << 63); }
double abs_d(double a) { return bits_to_double(double_to_bits(a) & ~(1ull << 63)); }
float flush(float a) {
    uint32_t b = float_to_bits(a);
    return bits_to_float(b & 0x7f800000u ? b : b & 0x80000000u);
}
float neg_ftz(float a) { return neg_f(flush(a)); }
float abs_ftz(float a) { return abs_f(flush(a)); }
uint32_t copysign_f(uint32_t a, uint32_t b) { return (a & 0x80000000u) | (b & 0x7fffffffu); }
uint64_t copysign_d(uint64_t a, uint64_t b) { return (a & 1ull << 63) | (b & ~(1ull << 63)); }

float nan_of(float) { return bits_to_float(0x7fffffff); }
double nan_of(double) { return bits_to_double(0x7fffffffffffffffull); }
bool sign_bit(float a) { return float_to_bits(a) >> 31; }
bool sign_bit(double a) { return double_to_bits(a) >> 63; }
// -0 is less than +0; a NaN loses unless kNan.
template <class T, bool kMax, bool kNan>
T extreme(T a, T b) {
    bool na = a != a, nb = b != b;
    bool take_b = kMax ? (a < b || (a == b && sign_bit(a))) : (b < a || (a == b && sign_bit(b)));
    T r = take_b ? b : a;
    if (kNan) return na | nb ? nan_of(a) : r;
    return na ? (nb ? nan_of(a) : b) : nb ? a : r;
}
template <bool kMax, bool kNan>
float extreme_ftz(float a, float b) {
    return extreme<float, kMax, kNan>(flush(a), flush(b));
}
template <bool kMax, bool kNan, bool kFtz>
float extreme_xorsign(float a, float b) {
    uint32_t sign = (float_to_bits(a) ^ float_to_bits(b)) & 0x80000000u;
    if (kFtz) a = flush(a), b = flush(b);
    return bits_to_float(float_to_bits(extreme<float, kMax, kNan>(abs_f(a), abs_f(b))) | sign);
}

template <class T>
Next testp(Warp& w, const Op& o, uint32_t mask) {
    const T* a = row<T>(w, o.a);
    uint32_t r = 0;
    for (int i = 0; i < 32; ++i) {
        int c = std::fpclassify(a[i]);
        bool v = o.size == 0   ? c != FP_NAN && c != FP_INFINITE
                 : o.size == 1 ? c == FP_INFINITE
                 : o.size == 2 ? c != FP_NAN
                 : o.size == 3 ? c == FP_NAN
                 : o.size == 4 ? c == FP_NORMAL || c == FP_ZERO  // zeros count as normal
                               : c == FP_SUBNORMAL;
        r |= uint32_t(v) << i;
    }
    write_predicate(w, o.d, mask, r);
    return Next::step;
}

// Rounding and .ftz/.sat modifiers into op.mode; true if the plain handler will do.
bool take_modes(Decoder& d) {
    int r = d.take_one({"rn", "rm", "rp", "rz"});  // in the order of Round
    bool ftz = d.take("ftz"), sat = d.take("sat");
    d.op.mode = uint8_t((r > 0 ? r : 0) | (ftz ? kModeFtz : 0) | (sat ? kModeSat : 0));
    return d.op.mode == 0;
}
void bind(Decoder& d, int sources, Type t, Handler h) {
    int bytes = size_of(t);
    d.expect_operands(sources + 1, sources + 1);
    d.op.a = d.source(1, bytes, t);
    if (sources > 1) d.op.b = d.source(2, bytes, t);
    if (sources > 2) d.op.c = d.source(3, bytes, t);
    d.op.d = d.destination(0, bytes);
    d.set(h);
}
#define PICK(f)                                                                  \
    (t == Type::f64 ? (plain ? lanes<f<double>> : lanes_mode<f<double>, double>) \
                    : (plain ? lanes<f<float>> : lanes_mode<f<float>, float>))

}  // namespace

void decode_float(Decoder& d) {  // add sub mul fma mad div rcp sqrt rsqrt ex2 lg2 sin cos tanh of f32 and f64
    const std::string& n = d.in.parts[0];
    bool full = d.take("full"), approx = d.take("approx");
    Type t = d.take_type();
    bool ftz64 = t == Type::f64 && d.take("ftz"), gross = approx && ftz64;  // rcp.rn.ftz.f64 keeps subnormals
    bool plain = take_modes(d), single = t == Type::f32;
    if (n == "add") return bind(d, 2, t, PICK(add));
    if (n == "sub") return bind(d, 2, t, PICK(sub));
    if (n == "mul") return bind(d, 2, t, PICK(mul));
    if (n == "fma" || n == "mad") return bind(d, 3, t, PICK(fma_));
    if (n == "div") {
        if (approx && single) return bind(d, 2, t, lanes_mode<div_approx, float>);
        if (full && single) return bind(d, 2, t, plain ? lanes<divide<float>> : lanes_mode<divide<float>, float>);
        return bind(d, 2, t, PICK(divide));
    }
    if (n == "rcp") return gross ? bind(d, 1, t, lanes<rcp_gross>) : bind(d, 1, t, PICK(reciprocal));
    if (n == "sqrt") {
        if (single) return bind(d, 1, t, plain ? lanes<square_root_f> : lanes_mode<square_root_f, float>);
        return bind(d, 1, t, plain ? lanes<square_root_d> : lanes_mode<square_root_d, double>);
    }
    if (n == "rsqrt") {
        if (!single) return bind(d, 1, t, gross ? lanes<rsqrt_gross> : lanes<rsqrt_d>);
        return bind(d, 1, t, plain ? lanes<rsqrt_f> : lanes_mode<rsqrt_f, float>);
    }
    if (n == "ex2") return bind(d, 1, t, plain ? lanes<ex2> : lanes_mode<ex2, float>);
    if (n == "lg2") return bind(d, 1, t, plain ? lanes<lg2> : lanes_mode<lg2, float>);
    if (n == "sin") return bind(d, 1, t, plain ? lanes<sine> : lanes_mode<sine, float>);
    if (n == "cos") return bind(d, 1, t, plain ? lanes<cosine> : lanes_mode<cosine, float>);
    bind(d, 1, t, plain ? lanes<tanh_> : lanes_mode<tanh_, float>);
}

void decode_float_sign(Decoder& d) {  // abs neg of f32 f64
    bool neg = d.in.parts[0] == "neg", ftz = d.take("ftz");
    Type t = d.take_type();
    if (t == Type::f64) return bind(d, 1, t, neg ? lanes<neg_d> : lanes<abs_d>);
    bind(d, 1, t, neg ? (ftz ? lanes<neg_ftz> : lanes<neg_f>) : (ftz ? lanes<abs_ftz> : lanes<abs_f>));
}

void decode_float_extreme(Decoder& d) {  // min max of f32 f64
    bool max = d.in.parts[0] == "max", ftz = d.take("ftz"), nan = d.take("NaN"), xorsign = d.take("xorsign");
    d.take("abs");
    Type t = d.take_type();
    if (t == Type::f64)
        return bind(d, 2, t, max ? lanes<extreme<double, true, false>> : lanes<extreme<double, false, false>>);
    if (xorsign && ftz)
        return bind(
            d, 2, t,
            max ? (nan ? lanes<extreme_xorsign<true, true, true>> : lanes<extreme_xorsign<true, false, true>>)
                : (nan ? lanes<extreme_xorsign<false, true, true>> : lanes<extreme_xorsign<false, false, true>>));
    if (xorsign)
        return bind(
            d, 2, t,
            max ? (nan ? lanes<extreme_xorsign<true, true, false>> : lanes<extreme_xorsign<true, false, false>>)
                : (nan ? lanes<extreme_xorsign<false, true, false>> : lanes<extreme_xorsign<false, false, false>>));
    if (ftz)
        return bind(d, 2, t,
                    max ? (nan ? lanes<extreme_ftz<true, true>> : lanes<extreme_ftz<true, false>>)
                        : (nan ? lanes<extreme_ftz<false, true>> : lanes<extreme_ftz<false, false>>));
    bind(d, 2, t,
         max ? (nan ? lanes<extreme<float, true, true>> : lanes<extreme<float, true, false>>)
             : (nan ? lanes<extreme<float, false, true>> : lanes<extreme<float, false, false>>));
}

void decode_copysign(Decoder& d) {
    Type t = d.take_type();
    bind(d, 2, t, t == Type::f64 ? lanes<copysign_d> : lanes<copysign_f>);
}

void decode_testp(Decoder& d) {
    int op = d.take_one({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
    Type t = d.take_type();
    d.expect_operands(2, 2);
    d.op.size = uint8_t(op);
    d.op.a = d.source(1, size_of(t), t);
    d.op.d = d.predicate_destination(0);
    d.set(t == Type::f64 ? testp<double> : testp<float>);
}

}  // namespace vgpu
