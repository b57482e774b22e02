// cvt in all its forms. Frequent pairs have vector loops; every other pair goes through one exact path: the source as
// an integer or a double (no source format is wider), rounded once to the destination by numerics.h.
#include <cmath>

#include "exec/classes.h"
#include "exec/half_rows.h"
#include "exec/lanes.h"

namespace vgpu {
namespace {

struct Plan {  // in Op::imm
    Type to, from;
    uint8_t rounding;                    // Rounding
    uint8_t integral;                    // rni rzi rmi rpi given: 1
    uint8_t flags;                       // 1 ftz, 2 sat, 4 relu, 8 satfinite
    uint8_t to_register, from_register;  // bytes of the registers
    uint8_t pad;
};
static_assert(sizeof(Plan) == 8);
constexpr uint8_t kFtz = 1, kSat = 2, kRelu = 4, kSatfinite = 8;

bool is_signed(Type t) { return t == Type::s8 || t == Type::s16 || t == Type::s32 || t == Type::s64; }
bool is_float(Type t) {
    return t == Type::f16 || t == Type::bf16 || t == Type::f32 || t == Type::f64 || t == Type::tf32;
}
const Format& format(Type t) {
    switch (t) {
        case Type::f16:
        case Type::f16x2:
            return kF16;
        case Type::bf16:
        case Type::bf16x2:
            return kBf16;
        case Type::tf32:
            return kTf32;
        case Type::f64:
            return kF64;
        case Type::e4m3:
        case Type::e4m3x2:
            return kE4m3;
        case Type::e5m2:
        case Type::e5m2x2:
            return kE5m2;
        default:
            return kF32;
    }
}
double integral(double v, Rounding r) {
    switch (r) {
        case Rounding::zero:
            return std::trunc(v);
        case Rounding::down:
            return std::floor(v);
        case Rounding::up:
            return std::ceil(v);
        default:
            return std::nearbyint(v);
    }
}
double flush_f32(double v) { return std::fabs(v) < 0x1p-126 ? std::copysign(0.0, v) : v; }

double float_source(Type t, uint64_t bits, uint8_t flags) {
    double v = t == Type::f64                      ? bits_to_double(bits)
               : t == Type::f32 || t == Type::tf32 ? double(bits_to_float(uint32_t(bits)))
               : t == Type::f16                    ? double(half_to_float(uint16_t(bits)))
                                                   : double(bf16_to_float(uint16_t(bits)));
    return flags & kFtz && t == Type::f32 ? flush_f32(v) : v;
}
uint64_t float_result(Type t, double v, Rounding r, uint8_t flags) {
    if (flags & kRelu) v = v != v ? v : v > 0 ? v : 0.0;
    if (flags & kSat) v = v > 0 ? (v < 1 ? v : 1.0) : 0.0;
    uint64_t b = round_double(format(t), v, r, flags & kSatfinite);
    if (t == Type::tf32) b <<= 13;
    if (flags & kFtz && t == Type::f32 && !(b & 0x7f800000)) b &= 0x80000000u;
    return b;
}
// Value of an integer register as sign and magnitude.
uint64_t integer_source(Type t, uint64_t bits, bool* negative) {
    int n = 8 * size_of(t);
    if (n < 64) bits &= (uint64_t(1) << n) - 1;
    *negative = is_signed(t) && bits >> (n - 1) & 1;
    if (!*negative) return bits;
    return (n < 64 ? (uint64_t(1) << n) : 0) - bits;
}
uint64_t to_integer(Type t, bool negative, uint64_t magnitude, bool clamp) {
    int n = 8 * size_of(t);
    if (clamp) {
        uint64_t top = is_signed(t) ? (uint64_t(1) << (n - 1)) - !negative
                       : n == 64    ? ~uint64_t(0)
                                    : (uint64_t(1) << n) - 1;
        if (negative && !is_signed(t)) return 0;
        if (magnitude > top) magnitude = top;
    }
    return negative ? 0 - magnitude : magnitude;
}
uint64_t convert_one(const Plan& p, uint64_t bits) {
    Rounding r = Rounding(p.rounding);
    if (!is_float(p.from)) {
        bool negative;
        uint64_t m = integer_source(p.from, bits, &negative);
        if (!is_float(p.to)) return to_integer(p.to, negative, m, p.flags & kSat);
        if (p.flags & kSat) return m == 0 || negative ? 0 : round_exact(format(p.to), false, 1, 0, false, r);
        return round_exact(format(p.to), negative, m, 0, false, r);
    }
    double v = float_source(p.from, bits, p.flags);
    if (!is_float(p.to)) {
        if (v != v) {  // zero, or the sign bit alone where source or destination has 64 bits
            const int n = 8 * size_of(p.to);
            return p.from == Type::f64 || n == 64 ? uint64_t(1) << (n - 1) : 0;
        }
        v = integral(v, r);
        double m = std::fabs(v);
        return to_integer(p.to, v < 0, m >= 0x1p64 ? ~uint64_t(0) : uint64_t(m), true);
    }
    if (p.integral) v = integral(v, r);
    return float_result(p.to, v, r, p.flags);
}

// The bits of a result in its register: narrow integers are extended to the register's width.
uint64_t extend(const Plan& p, uint64_t bits) {
    int n = 8 * size_of(p.to), reg = 8 * p.to_register;
    if (n < 64) {
        bits &= (uint64_t(1) << n) - 1;
        if (is_signed(p.to) && bits >> (n - 1) & 1) bits |= ~((uint64_t(1) << n) - 1);
    }
    return reg < 64 ? bits & ((uint64_t(1) << reg) - 1) : bits;
}

Next cvt_any(Warp& w, const Op& o, uint32_t mask) {
    Plan p;
    std::memcpy(&p, &o.imm, 8);
    VGPU_FOR_LANES(i, mask) {
        uint64_t in = p.from_register == 8 ? row<uint64_t>(w, o.a)[i] : row<uint32_t>(w, o.a)[i];
        uint64_t out = extend(p, convert_one(p, in));
        if (p.to_register == 8)
            row<uint64_t>(w, o.d)[i] = out;
        else
            row<uint32_t>(w, o.d)[i] = uint32_t(out);
    }
    return Next::step;
}

// Two f32 to a packed pair; a is the upper half.
Next cvt_pack(Warp& w, const Op& o, uint32_t mask) {
    Plan p;
    std::memcpy(&p, &o.imm, 8);
    const uint32_t *a = row<uint32_t>(w, o.a), *b = row<uint32_t>(w, o.b);
    uint32_t* d = row<uint32_t>(w, o.d);
    bool pair8 = p.to == Type::e4m3x2 || p.to == Type::e5m2x2;
    if (!pair8 && !p.flags && Rounding(p.rounding) == Rounding::nearest) {
        alignas(32) uint32_t t[32];
        auto narrow = p.to == Type::bf16x2 ? narrow_bf16 : narrow_half;
        narrow(reinterpret_cast<const float*>(b), reinterpret_cast<const float*>(a), t);
        blend(d, t, mask);
        return Next::step;
    }
    int shift = pair8 ? 8 : 16;
    VGPU_FOR_LANES(i, mask) {
        uint64_t hi = float_result(p.to, bits_to_float(a[i]), Rounding(p.rounding), p.flags);
        uint64_t lo = float_result(p.to, bits_to_float(b[i]), Rounding(p.rounding), p.flags);
        d[i] = uint32_t(hi << shift | lo);
    }
    return Next::step;
}
// Packed pair to packed pair: f16x2 <-> e4m3x2, e5m2x2.
Next cvt_pairs(Warp& w, const Op& o, uint32_t mask) {
    Plan p;
    std::memcpy(&p, &o.imm, 8);
    const uint32_t* a = row<uint32_t>(w, o.a);
    uint32_t* d = row<uint32_t>(w, o.d);
    int in = 4 * size_of(p.from), out = 4 * size_of(p.to);
    VGPU_FOR_LANES(i, mask) {
        uint64_t r = 0;
        for (int h = 0; h < 2; ++h) {
            double v = to_double(format(p.from), a[i] >> (in * h) & ((1u << in) - 1));
            r |= float_result(p.to, v, Rounding(p.rounding), p.flags) << (out * h);
        }
        d[i] = uint32_t(r);
    }
    return Next::step;
}

float s32_f32(int32_t a) { return float(a); }
float u32_f32(uint32_t a) { return float(a); }
double s32_f64(int32_t a) { return a; }
double u32_f64(uint32_t a) { return a; }
double f32_f64(float a) { return a; }
float f64_f32(double a) { return float(a); }
template <class T>
int32_t to_s32(T v, T i) {
    return v != v ? 0 : i >= T(2147483648.0) ? INT32_MAX : i < T(-2147483648.0) ? INT32_MIN : int32_t(i);
}
int32_t f32_s32_rz(float a) { return to_s32(a, a); }
int32_t f32_s32_rn(float a) { return to_s32(a, __builtin_nearbyintf(a)); }
uint32_t f32_u32_rz(float a) { return a > 0 ? (a >= 4294967296.0f ? ~0u : uint32_t(int64_t(a))) : 0; }
float f32_rni(float a) { return __builtin_nearbyintf(a); }
float f32_rmi(float a) { return __builtin_floorf(a); }
float f32_rpi(float a) { return __builtin_ceilf(a); }
float f32_rzi(float a) { return __builtin_truncf(a); }
uint64_t u32_u64(uint32_t a) { return a; }
int64_t s32_s64(int32_t a) { return a; }
uint32_t u64_u32(uint64_t a) { return uint32_t(a); }
uint32_t u32_u16(uint32_t a) { return a & 0xffff; }
int32_t s16_s32(int16_t a) { return a; }
uint32_t u32_u8(uint32_t a) { return a & 0xff; }
uint64_t u16_u64(uint16_t a) { return a; }
uint16_t u64_u16(uint64_t a) { return uint16_t(a); }
float u16_f32(uint16_t a) { return float(a); }
float s16_f32(int16_t a) { return float(a); }
float u8_f32(uint8_t a) { return float(a); }
float sat_f32(float a) { return a > 0 ? (a < 1 ? a : 1.0f) : 0.0f; }
Next f16_f32(Warp& w, const Op& o, uint32_t mask) {
    alignas(32) float t[32];
    widen_half(row<uint32_t>(w, o.a), t, nullptr);
    blend(row<float>(w, o.d), t, mask);
    return Next::step;
}
Next bf16_f32(Warp& w, const Op& o, uint32_t mask) {
    alignas(32) float t[32];
    widen_bf16(row<uint32_t>(w, o.a), t, nullptr);
    blend(row<uint32_t>(w, o.d), reinterpret_cast<uint32_t*>(t), mask);
    return Next::step;
}
template <bool kBf16>
Next f32_half(Warp& w, const Op& o, uint32_t mask) {
    alignas(32) uint32_t t[32];
    (kBf16 ? narrow_bf16 : narrow_half)(row<float>(w, o.a), nullptr, t);
    blend(row<uint32_t>(w, o.d), t, mask);
    return Next::step;
}

Handler fast(const Plan& p, bool explicit_rounding) {
    using T = Type;
    if (p.flags == kSat && p.to == T::f32 && p.from == T::f32 && !p.integral) return lanes<sat_f32>;
    if (p.flags) return nullptr;
    bool rn = Rounding(p.rounding) == Rounding::nearest, rz = Rounding(p.rounding) == Rounding::zero;
    auto pair = [&](T to, T from) { return p.to == to && p.from == from; };
    bool to4 = p.to_register == 4, from4 = p.from_register == 4;
    if (rn) {
        if (pair(T::f32, T::s32) && from4) return lanes<s32_f32>;
        if (pair(T::f32, T::u32) && from4) return lanes<u32_f32>;
        if (pair(T::f64, T::s32) && from4) return lanes<s32_f64>;
        if (pair(T::f64, T::u32) && from4) return lanes<u32_f64>;
        if (pair(T::f32, T::u16) && p.from_register <= 4) return lanes<u16_f32>;
        if (pair(T::f32, T::s16) && p.from_register <= 4) return lanes<s16_f32>;
        if (pair(T::f32, T::u8) && p.from_register <= 4) return lanes<u8_f32>;
        if (pair(T::f32, T::f64)) return lanes<f64_f32>;
        if (pair(T::f16, T::f32)) return f32_half<false>;
        if (pair(T::bf16, T::f32)) return f32_half<true>;
        if (pair(T::s32, T::f32) && to4) return lanes<f32_s32_rn>;
    }
    if (pair(T::f64, T::f32)) return lanes<f32_f64>;
    if (pair(T::f32, T::f16)) return f16_f32;
    if (pair(T::f32, T::bf16)) return bf16_f32;
    if (rz && pair(T::s32, T::f32) && to4) return lanes<f32_s32_rz>;
    if (rz && pair(T::u32, T::f32) && to4) return lanes<f32_u32_rz>;
    if (pair(T::f32, T::f32) && p.integral) {
        switch (Rounding(p.rounding)) {
            case Rounding::zero:
                return lanes<f32_rzi>;
            case Rounding::down:
                return lanes<f32_rmi>;
            case Rounding::up:
                return lanes<f32_rpi>;
            default:
                return lanes<f32_rni>;
        }
    }
    if (is_float(p.to) || is_float(p.from)) return nullptr;
    (void)explicit_rounding;
    if ((pair(T::u64, T::u32) || pair(T::s64, T::u32)) && p.to_register == 8 && from4) return lanes<u32_u64>;
    if ((pair(T::s64, T::s32) || pair(T::u64, T::s32)) && p.to_register == 8 && from4) return lanes<s32_s64>;
    bool to32 = p.to == T::u32 || p.to == T::s32;
    if (to32 && to4 && (p.from == T::u64 || p.from == T::s64)) return lanes<u64_u32>;
    if (to32 && to4 && p.from == T::u16 && p.from_register <= 4) return lanes<u32_u16>;
    if (to32 && to4 && p.from == T::s16 && p.from_register <= 4) return lanes<s16_s32>;
    if (to32 && to4 && p.from == T::u8 && p.from_register <= 4) return lanes<u32_u8>;
    if ((p.to == T::u16 || p.to == T::s16) && p.to_register == 2 && from4) return lanes<u32_u16>;
    if (p.to == T::u64 && p.from == T::u16 && p.to_register == 8 && p.from_register <= 4) return lanes<u16_u64>;
    if ((p.to == T::u16 || p.to == T::s16) && p.to_register == 2 && p.from_register == 8) return lanes<u64_u16>;
    return nullptr;
}

int register_size(Decoder& d, const Operand& o, Type t) {
    return o.kind == OperandKind::reg && o.reg >= 0 ? size_of(d.function.registers[o.reg].type)
           : size_of(t) < 4                         ? 4
                                                    : size_of(t);
}

}  // namespace

void decode_cvt(Decoder& d) {
    int r = d.take_one({"rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi"});
    Plan p{};
    constexpr Rounding kOf[] = {Rounding::nearest, Rounding::zero, Rounding::down, Rounding::up, Rounding::away,
                                Rounding::nearest, Rounding::zero, Rounding::down, Rounding::up};
    p.rounding = uint8_t(r < 0 ? Rounding::nearest : kOf[r]);
    p.integral = r >= 5;
    if (d.take("ftz")) p.flags |= kFtz;
    if (d.take("relu")) p.flags |= kRelu;
    if (d.take("satfinite")) p.flags |= kSatfinite;
    if (d.take("relu")) p.flags |= kRelu;
    if (d.take("sat")) p.flags |= kSat;
    p.to = d.take_type();
    p.from = d.take_type();
    auto store = [&] { std::memcpy(&d.op.imm, &p, 8); };
    bool to_pair = p.to == Type::f16x2 || p.to == Type::bf16x2 || p.to == Type::e4m3x2 || p.to == Type::e5m2x2;
    if (to_pair && p.from == Type::f32) {
        d.expect_operands(3, 3);
        d.op.a = d.source(1, 4, Type::f32);
        d.op.b = d.source(2, 4, Type::f32);
        d.op.d = d.destination(0, 4);
        store();
        return d.set(cvt_pack);
    }
    d.expect_operands(2, 2);
    if (to_pair) {
        d.op.a = d.source(1, 4, p.from);
        d.op.d = d.destination(0, 4);
        store();
        return d.set(cvt_pairs);
    }
    p.from_register = uint8_t(register_size(d, d.operand(1), p.from));
    p.to_register = uint8_t(register_size(d, d.operand(0), p.to));
    d.op.a = d.source(1, p.from_register == 8 ? 8 : 4, p.from);
    d.op.d = d.destination(0, p.to_register == 8 ? 8 : 4);
    store();
    Handler h = fast(p, r >= 0);
    d.set(h ? h : cvt_any);
}

}  // namespace vgpu
