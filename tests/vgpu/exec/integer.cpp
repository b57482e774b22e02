// Integer arithmetic, logic, shifts, bit fields and dot products.
#include "exec/classes.h"
#include "exec/lanes.h"

namespace vgpu {
namespace {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;

template <class T>
T add(T a, T b) {
    return T(a + b);
}
template <class T>
T sub(T a, T b) {
    return T(a - b);
}
template <class T>
T mul_lo(T a, T b) {
    return T(u64(a) * u64(b));
}
template <>
u32 mul_lo(u32 a, u32 b) {
    return a * b;
}
template <class T, class W>
T mul_hi(T a, T b) {
    return T((W(a) * W(b)) >> (8 * sizeof(T)));
}
template <class T, class W>
W mul_wide(T a, T b) {
    return W(W(a) * W(b));
}
template <class T>
T mad_lo(T a, T b, T c) {
    return T(mul_lo<T>(a, b) + c);
}
template <class T, class W>
T mad_hi(T a, T b, T c) {
    return T(u64(mul_hi<T, W>(a, b)) + u64(c));
}
template <class T, class W, class U>
U mad_wide(T a, T b, U c) {
    return U(U(W(a) * W(b)) + c);
}
s32 add_sat(s32 a, s32 b) {
    s64 r = s64(a) + b;
    return r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : s32(r);
}
s32 sub_sat(s32 a, s32 b) {
    s64 r = s64(a) - b;
    return r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : s32(r);
}
s32 mad_hi_sat(s32 a, s32 b, s32 c) { return add_sat(s32((s64(a) * b) >> 32), c); }
s32 sign24(s32 a) { return s32(u32(a) << 8) >> 8; }
u32 mul24_lo(u32 a, u32 b) { return u32(u64(a & 0xffffff) * (b & 0xffffff)); }
u32 mul24_hi(u32 a, u32 b) { return u32((u64(a & 0xffffff) * (b & 0xffffff)) >> 16); }
u32 mul24_lo_s(u32 a, u32 b) { return u32(s64(sign24(s32(a))) * sign24(s32(b))); }
u32 mul24_hi_s(u32 a, u32 b) { return u32((s64(sign24(s32(a))) * sign24(s32(b))) >> 16); }
u32 mad24_lo(u32 a, u32 b, u32 c) { return mul24_lo(a, b) + c; }
u32 mad24_hi(u32 a, u32 b, u32 c) { return mul24_hi(a, b) + c; }
u32 mad24_lo_s(u32 a, u32 b, u32 c) { return mul24_lo_s(a, b) + c; }
s32 mad24_hi_sat(s32 a, s32 b, s32 c) { return add_sat(s32(mul24_hi_s(u32(a), u32(b))), c); }
u32 mad24_hi_s(u32 a, u32 b, u32 c) { return mul24_hi_s(a, b) + c; }
// Division by zero is unspecified by the ISA; the quotient is all ones and the remainder the dividend, as devices give.
template <class T>
T divide(T a, T b) {
    if (b == 0) return T(-1);
    if constexpr (std::is_signed_v<T>)
        if (b == T(-1)) return T(0 - std::make_unsigned_t<T>(a));
    return T(a / b);
}
template <class T>
T remainder(T a, T b) {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>)
        if (b == T(-1)) return 0;
    return T(a % b);
}
template <class T>
T absolute(T a) {
    return a < 0 ? T(0 - std::make_unsigned_t<T>(a)) : a;
}
template <class T>
T negate(T a) {
    return T(0 - std::make_unsigned_t<T>(a));
}
template <class T>
T minimum(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T maximum(T a, T b) {
    return a < b ? b : a;
}
s32 min_relu(s32 a, s32 b) {
    s32 m = b < a ? b : a;
    return m < 0 ? 0 : m;
}
s32 max_relu(s32 a, s32 b) {
    s32 m = a < b ? b : a;
    return m < 0 ? 0 : m;
}
template <class H>
u32 min_pair(u32 a, u32 b) {
    return u16(minimum(H(a), H(b))) | u32(u16(minimum(H(a >> 16), H(b >> 16)))) << 16;
}
template <class H>
u32 max_pair(u32 a, u32 b) {
    return u16(maximum(H(a), H(b))) | u32(u16(maximum(H(a >> 16), H(b >> 16)))) << 16;
}
u32 add_pair(u32 a, u32 b) { return u16(a + b) | (((a >> 16) + (b >> 16)) << 16); }
template <class T>
T sad(T a, T b, T c) {
    using U = std::make_unsigned_t<T>;
    return T(U(c) + (a < b ? U(U(b) - U(a)) : U(U(a) - U(b))));
}
template <class T>
T and_(T a, T b) {
    return a & b;
}
template <class T>
T or_(T a, T b) {
    return a | b;
}
template <class T>
T xor_(T a, T b) {
    return a ^ b;
}
template <class T>
T not_(T a) {
    return T(~a);
}
template <class T>
T cnot(T a) {
    return a == 0 ? 1 : 0;
}
template <class T>
T shl(T a, u32 n) {
    return n >= 8 * sizeof(T) ? T(0) : T(u64(a) << n);
}
template <>
u32 shl(u32 a, u32 n) {
    return n >= 32 ? 0 : a << (n & 31);
}
template <class T>
T shr(T a, u32 n) {
    constexpr u32 bits = 8 * sizeof(T);
    if constexpr (std::is_signed_v<T>) return T(a >> (n >= bits ? bits - 1 : n));
    return n >= bits ? T(0) : T(a >> (n & (bits - 1)));
}
u32 shf_l_wrap(u32 a, u32 b, u32 n) { return u32((((u64(b) << 32) | a) << (n & 31)) >> 32); }
u32 shf_r_wrap(u32 a, u32 b, u32 n) { return u32(((u64(b) << 32) | a) >> (n & 31)); }
u32 shf_l_clamp(u32 a, u32 b, u32 n) { return n >= 32 ? a : u32((((u64(b) << 32) | a) << n) >> 32); }
u32 shf_r_clamp(u32 a, u32 b, u32 n) { return n >= 32 ? b : u32(((u64(b) << 32) | a) >> n); }
template <class T>
u32 popc(T a) {
    return u32(__builtin_popcountll(u64(a)));
}
template <class T>
u32 clz(T a) {
    return a == 0 ? 8 * sizeof(T) : u32(sizeof(T) == 8 ? __builtin_clzll(a) : __builtin_clz(u32(a)));
}
template <class T>
T brev(T a) {
    u64 r = 0, v = a;
    for (unsigned i = 0; i < 8 * sizeof(T); ++i, v >>= 1) r = r << 1 | (v & 1);
    return T(r);
}
template <class T, bool kShift>
u32 bfind(T a) {
    using U = std::make_unsigned_t<T>;
    U v = std::is_signed_v<T> && a < 0 ? U(~a) : U(a);
    if (v == 0) return ~0u;
    u32 at = 8 * sizeof(T) - 1 - clz<U>(v);
    return kShift ? 8 * sizeof(T) - 1 - at : at;
}
template <class T>
T bfe(T a, u32 pos, u32 len) {
    constexpr u32 msb = 8 * sizeof(T) - 1;
    pos &= 0xff;
    len &= 0xff;
    using U = std::make_unsigned_t<T>;
    bool sign = false;
    if (std::is_signed_v<T> && len) sign = U(a) >> (pos + len - 1 < msb ? pos + len - 1 : msb) & 1;
    u32 valid = pos > msb ? 0 : len < msb + 1 - pos ? len : msb + 1 - pos;  // bits that exist; the sign fills the rest
    U keep = valid > msb ? U(~U(0)) : U((U(1) << valid) - 1);
    U field = pos > msb ? U(0) : U(U(a) >> pos);
    return T((field & keep) | (sign ? U(~keep) : U(0)));
}
template <class T>
T bfi(T a, T b, u32 pos, u32 len) {
    constexpr u32 bits = 8 * sizeof(T);
    pos &= 0xff;
    len &= 0xff;
    if (pos >= bits || len == 0) return b;
    T keep = len >= bits ? ~T(0) : T((T(1) << len) - 1);
    keep = T(keep << pos);
    return T((T(a << pos) & keep) | (b & ~keep));
}
u32 bmsk_clamp(u32 a, u32 b) { return a >= 32 ? 0 : (b >= 32 ? ~0u : (1u << b) - 1) << a; }
u32 bmsk_wrap(u32 a, u32 b) {
    a &= 31;
    b &= 31;
    return ((1u << b) - 1) << a;
}
template <bool kClamp, class T>
T szext(T a, u32 n) {
    if (kClamp ? n >= 32 : false) return a;
    n &= 31;
    if (n == 0) return 0;
    return T(T(u32(a) << (32 - n)) >> (32 - n));
}
// n-th set bit from `base`, upwards (n > 0), downwards (n < 0), or the bit at base itself (n = 0); all ones if none.
u32 fns(u32 mask, u32 base, s32 n) {
    s32 count = n == 0 ? 1 : n < 0 ? -n : n, step = n < 0 ? -1 : 1;
    if (n == 0) return base < 32 && (mask >> base & 1) ? base : ~0u;
    for (s32 i = s32(base); i >= 0 && i < 32; i += step)
        if ((mask >> i & 1) && --count == 0) return u32(i);
    return ~0u;
}
template <class A, class B, class C>
C dp4a(u32 a, u32 b, C c) {
    u32 sum = u32(c);
    for (int i = 0; i < 4; ++i) sum += u32(s32(A(a >> 8 * i)) * s32(B(b >> 8 * i)));
    return C(sum);
}
template <class A, class B, class C, bool kHigh>
C dp2a(u32 a, u32 b, C c) {
    u32 sum = u32(c);
    for (int i = 0; i < 2; ++i) sum += u32(s32(A(a >> 16 * i)) * s32(B(b >> (8 * i + (kHigh ? 16 : 0)))));
    return C(sum);
}

Next lop3(Warp& w, const Op& o, uint32_t mask) {
    const u32 *a = row<u32>(w, o.a), *b = row<u32>(w, o.b), *c = row<u32>(w, o.c);
    alignas(32) u32 t[32] = {};
    for (int bit = 0; bit < 8; ++bit) {
        if (!(o.imm >> bit & 1)) continue;
        u32 fa = bit & 4 ? 0 : ~0u, fb = bit & 2 ? 0 : ~0u, fc = bit & 1 ? 0 : ~0u;
        for (int i = 0; i < 32; ++i) t[i] |= (a[i] ^ fa) & (b[i] ^ fb) & (c[i] ^ fc);
    }
    store_row(row<u32>(w, o.d), t, mask);
    return Next::step;
}

// Op::mode: bit 0 and instead of or, bit 1 the predicate negated.
Next lop3_predicate(Warp& w, const Op& o, uint32_t mask) {
    const uint32_t with = read_predicate(w, o.x->rows[0]) ^ (o.mode & 2 ? ~0u : 0);
    lop3(w, o, mask);
    uint32_t some = 0;
    for (uint32_t i = 0; i < 32; ++i) some |= uint32_t(row<u32>(w, o.d)[i] != 0) << i;
    write_predicate(w, o.e, mask, o.mode & 1 ? some & with : some | with);
    return Next::step;
}

// add.cc, addc, sub.cc, subc, mad.cc, madc: mode bit 0 reads the carry, bit 1 writes it, bit 2 subtracts.
template <class T>
Next add_carry(Warp& w, const Op& o, uint32_t mask) {
    T* d = row<T>(w, o.d);
    const T *a = row<T>(w, o.a), *b = row<T>(w, o.b);
    VGPU_FOR_LANES(i, mask) {
        T x = a[i], y = b[i];
        T in = o.mode & 1 ? T(w.carry >> i & 1) : 0;
        unsigned __int128 r = o.mode & 4 ? (unsigned __int128)x - y - in : (unsigned __int128)x + y + in;
        if (o.mode & 2) w.carry = (w.carry & ~(1u << i)) | u32((r >> (8 * sizeof(T))) & 1) << i;
        d[i] = T(r);
    }
    return Next::step;
}
template <class T, class W, bool kHigh>
Next mad_carry(Warp& w, const Op& o, uint32_t mask) {
    using U = std::make_unsigned_t<T>;
    U* d = row<U>(w, o.d);
    const U *a = row<U>(w, o.a), *b = row<U>(w, o.b), *c = row<U>(w, o.c);
    VGPU_FOR_LANES(i, mask) {
        W p = W(T(a[i])) * W(T(b[i]));
        U part = kHigh ? U(p >> (8 * sizeof(T))) : U(p);
        unsigned __int128 r = (unsigned __int128)part + c[i] + (o.mode & 1 ? w.carry >> i & 1 : 0);
        if (o.mode & 2) w.carry = (w.carry & ~(1u << i)) | u32((r >> (8 * sizeof(T))) & 1) << i;
        d[i] = U(r);
    }
    return Next::step;
}

// and/or with a defined operand that decides the bit pattern alone.
uint32_t and_rule(Warp& w, const Op& o, uint32_t mask, uint32_t both) {
    if (o.size == 8) return both;
    const u32 *a = row<u32>(w, o.a), *b = row<u32>(w, o.b);
    uint32_t da = w.defined[o.ids[0]], db = w.defined[o.ids[1]];
    VGPU_FOR_LANES(i, mask & ~both)
    if ((da >> i & 1 && a[i] == 0) || (db >> i & 1 && b[i] == 0)) both |= 1u << i;
    return both;
}

bool is(Type t, std::initializer_list<Type> of) {
    for (Type x : of)
        if (x == t) return true;
    return false;
}
int width(Type t) { return size_of(t) == 8 ? 8 : 4; }
bool sign(Type t) { return is(t, {Type::s8, Type::s16, Type::s32, Type::s64}); }

void bind(Decoder& d, int sources, Type t, Handler h) {
    d.expect_operands(sources + 1, sources + 1);
    for (int i = 0; i <= sources; ++i) d.expect_width(i, t);
    d.op.a = d.source(1, width(t), t);
    if (sources > 1) d.op.b = d.source(2, width(t), t);
    if (sources > 2) d.op.c = d.source(3, width(t), t);
    d.op.d = d.destination(0, width(t));
    d.set(h);
}
#define BY_TYPE6(t, f)                  \
    ((t) == Type::u16   ? lanes<f<u16>> \
     : (t) == Type::s16 ? lanes<f<s16>> \
     : (t) == Type::u32 ? lanes<f<u32>> \
     : (t) == Type::s32 ? lanes<f<s32>> \
     : (t) == Type::u64 ? lanes<f<u64>> \
     : (t) == Type::s64 ? lanes<f<s64>> \
                        : nullptr)
#define BY_BITS(t, f) \
    (size_of(t) == 2 ? lanes<f<u16>> : size_of(t) == 4 ? lanes<f<u32>> : size_of(t) == 8 ? lanes<f<u64>> : nullptr)

}  // namespace

bool is_integer_type(Type t) {
    return is(t, {Type::u8, Type::s8, Type::u16, Type::s16, Type::u32, Type::s32, Type::u64, Type::s64});
}

void decode_integer_add(Decoder& d) {  // add, sub, addc, subc
    std::string name = d.in.parts[0];
    bool subtract = name[0] == 's', with = name.back() == 'c', cc = d.take("cc"), sat = d.take("sat");
    if (d.take("u16x2") || d.take("s16x2")) return bind(d, 2, Type::u32, lanes<add_pair>);
    Type t = d.take_type();
    if (cc || with) {
        d.op.mode = uint8_t(with | cc << 1 | subtract << 2);
        return bind(d, 2, t, width(t) == 8 ? add_carry<u64> : add_carry<u32>);
    }
    if (sat) return bind(d, 2, t, subtract ? lanes<sub_sat> : lanes<add_sat>);
    bind(d, 2, t, subtract ? BY_BITS(t, sub) : BY_BITS(t, add));
}

void decode_integer_mul(Decoder& d) {  // mul, mad, madc, mul24, mad24
    std::string name = d.in.parts[0];
    bool mad = name[1] == 'a', with = name == "madc", cc = d.take("cc"), sat = d.take("sat");
    int part = d.take_one({"lo", "hi", "wide"});
    Type t = d.take_type();
    if (name.find("24") != std::string::npos) {
        bool s = sign(t);
        if (sat) return bind(d, 3, t, lanes<mad24_hi_sat>);
        if (!mad)
            return bind(d, 2, t,
                        part ? (s ? lanes<mul24_hi_s> : lanes<mul24_hi>) : (s ? lanes<mul24_lo_s> : lanes<mul24_lo>));
        return bind(d, 3, t,
                    part ? (s ? lanes<mad24_hi_s> : lanes<mad24_hi>) : (s ? lanes<mad24_lo_s> : lanes<mad24_lo>));
    }
    if (cc || with) {
        d.op.mode = uint8_t(with | cc << 1);
        Handler h = nullptr;
        if (part == 0) h = width(t) == 8 ? mad_carry<u64, unsigned __int128, false> : mad_carry<u32, u64, false>;
        if (part == 1 && t == Type::u32) h = mad_carry<u32, u64, true>;
        if (part == 1 && t == Type::s32) h = mad_carry<s32, s64, true>;
        if (part == 1 && t == Type::u64) h = mad_carry<u64, unsigned __int128, true>;
        if (part == 1 && t == Type::s64) h = mad_carry<s64, __int128, true>;
        return bind(d, 3, t, h);
    }
    if (sat) return bind(d, 3, t, lanes<mad_hi_sat>);
    if (part == 0) return mad ? bind(d, 3, t, BY_BITS(t, mad_lo)) : bind(d, 2, t, BY_BITS(t, mul_lo));
    if (part == 1) {
        Handler m = nullptr, h = nullptr;
        switch (t) {
            case Type::u16:
                h = lanes<mul_hi<u16, u32>>, m = lanes<mad_hi<u16, u32>>;
                break;
            case Type::s16:
                h = lanes<mul_hi<s16, s32>>, m = lanes<mad_hi<s16, s32>>;
                break;
            case Type::u32:
                h = lanes<mul_hi<u32, u64>>, m = lanes<mad_hi<u32, u64>>;
                break;
            case Type::s32:
                h = lanes<mul_hi<s32, s64>>, m = lanes<mad_hi<s32, s64>>;
                break;
            case Type::u64:
                h = lanes<mul_hi<u64, unsigned __int128>>, m = lanes<mad_hi<u64, unsigned __int128>>;
                break;
            case Type::s64:
                h = lanes<mul_hi<s64, __int128>>, m = lanes<mad_hi<s64, __int128>>;
                break;
            default:
                d.fail("type");
        }
        return mad ? bind(d, 3, t, m) : bind(d, 2, t, h);
    }
    Handler m = nullptr, h = nullptr;
    switch (t) {
        case Type::u16:
            h = lanes<mul_wide<u16, u32>>, m = lanes<mad_wide<u16, u32, u32>>;
            break;
        case Type::s16:
            h = lanes<mul_wide<s16, s32>>, m = lanes<mad_wide<s16, s32, u32>>;
            break;
        case Type::u32:
            h = lanes<mul_wide<u32, u64>>, m = lanes<mad_wide<u32, u64, u64>>;
            break;
        case Type::s32:
            h = lanes<mul_wide<s32, s64>>, m = lanes<mad_wide<s32, s64, u64>>;
            break;
        default:
            d.fail(".wide type");
    }
    int wide = size_of(t) == 4 ? 8 : 4;
    d.expect_operands(mad ? 4 : 3, mad ? 4 : 3);
    const Type product = wide == 8 ? Type::u64 : Type::u32;
    d.expect_width(0, product), d.expect_width(1, t), d.expect_width(2, t);
    if (mad) d.expect_width(3, product);
    d.op.a = d.source(1, 4, t);
    d.op.b = d.source(2, 4, t);
    if (mad) d.op.c = d.source(3, wide, product);
    d.op.d = d.destination(0, wide);
    d.set(mad ? m : h);
}

void decode_integer_unary(Decoder& d) {  // abs, neg, cnot, popc, clz, brev, bfind, div, rem, min, max, sad
    std::string n = d.in.parts[0];
    bool shiftamt = n == "bfind" && d.take("shiftamt"), relu = (n == "min" || n == "max") && d.take("relu");
    bool lo = n == "min";
    if (n == "min" || n == "max") {
        if (d.take("u16x2")) return bind(d, 2, Type::u32, lo ? lanes<min_pair<u16>> : lanes<max_pair<u16>>);
        if (d.take("s16x2")) {
            if (relu) d.fail("relu of s16x2");  // exists, and is not here
            return bind(d, 2, Type::u32, lo ? lanes<min_pair<s16>> : lanes<max_pair<s16>>);
        }
    }
    Type t = d.take_type();
    if (n == "abs" || n == "neg") {
        bool neg = n == "neg";
        Handler h = t == Type::s16   ? (neg ? lanes<negate<s16>> : lanes<absolute<s16>>)
                    : t == Type::s32 ? (neg ? lanes<negate<s32>> : lanes<absolute<s32>>)
                    : t == Type::s64 ? (neg ? lanes<negate<s64>> : lanes<absolute<s64>>)
                                     : nullptr;
        if (!h) d.fail("type");
        return bind(d, 1, t, h);
    }
    if (n == "cnot") return bind(d, 1, t, BY_BITS(t, cnot));
    if (n == "brev") return bind(d, 1, t, t == Type::b64 ? lanes<brev<u64>> : lanes<brev<u32>>);
    if (n == "popc" || n == "clz" || n == "bfind") {
        d.expect_operands(2, 2);
        d.op.a = d.source(1, width(t), t);
        d.op.d = d.destination(0, 4);
        bool wide = width(t) == 8;
        if (n == "popc") return d.set(wide ? lanes<popc<u64>> : lanes<popc<u32>>);
        if (n == "clz") return d.set(wide ? lanes<clz<u64>> : lanes<clz<u32>>);
        switch (t) {
            case Type::u32:
                return d.set(shiftamt ? lanes<bfind<u32, true>> : lanes<bfind<u32, false>>);
            case Type::s32:
                return d.set(shiftamt ? lanes<bfind<s32, true>> : lanes<bfind<s32, false>>);
            case Type::u64:
                return d.set(shiftamt ? lanes<bfind<u64, true>> : lanes<bfind<u64, false>>);
            case Type::s64:
                return d.set(shiftamt ? lanes<bfind<s64, true>> : lanes<bfind<s64, false>>);
            default:
                d.fail("type");
        }
    }
    Handler h = nullptr;
    if (n == "div") h = BY_TYPE6(t, divide);
    if (n == "rem") h = BY_TYPE6(t, remainder);
    if (n == "min") h = relu ? (t == Type::s32 ? lanes<min_relu> : nullptr) : BY_TYPE6(t, minimum);
    if (n == "max") h = relu ? (t == Type::s32 ? lanes<max_relu> : nullptr) : BY_TYPE6(t, maximum);
    if (h) return bind(d, 2, t, h);
    if (n == "sad") h = BY_TYPE6(t, sad);
    if (!h) d.fail("type");
    bind(d, 3, t, h);
}

void decode_logic(Decoder& d) {  // and, or, xor, not
    std::string n = d.in.parts[0];
    Type t = d.take_type();
    if (t == Type::pred) return decode_predicate_logic(d);
    Handler h = n == "and"   ? BY_BITS(t, and_)
                : n == "or"  ? BY_BITS(t, or_)
                : n == "xor" ? BY_BITS(t, xor_)
                             : BY_BITS(t, not_);
    if (!h) d.fail("type");
    d.op.size = uint8_t(size_of(t));
    d.keep_constants = n == "and";
    bind(d, n == "not" ? 1 : 2, t, h);
    if (n == "and") d.op.defined_rule = and_rule;
}

void decode_shift(Decoder& d) {  // shl, shr, shf
    std::string n = d.in.parts[0];
    if (n == "shf") {
        bool left = d.take_one({"l", "r"}) == 0;
        int clamp = d.take_one({"wrap", "clamp"});
        d.take_type();
        return bind(
            d, 3, Type::b32,
            left ? (clamp ? lanes<shf_l_clamp> : lanes<shf_l_wrap>) : (clamp ? lanes<shf_r_clamp> : lanes<shf_r_wrap>));
    }
    Type t = d.take_type();
    Handler h;
    if (n == "shl" || !sign(t))
        h = n == "shl" ? BY_BITS(t, shl) : BY_BITS(t, shr);
    else
        h = t == Type::s16 ? lanes<shr<s16>> : t == Type::s32 ? lanes<shr<s32>> : lanes<shr<s64>>;
    if (!h) d.fail("type");
    d.expect_operands(3, 3);
    d.op.a = d.source(1, width(t), t);
    d.op.b = d.source(2, 4, Type::u32);
    d.op.d = d.destination(0, width(t));
    d.set(h);
}

void decode_lop3(Decoder& d) {
    const int join = d.take_one({"or", "and"});  // the result is no zero, joined with a predicate: d|p, or p alone
    d.take_type();
    d.expect_operands(join < 0 ? 5 : 6, join < 0 ? 5 : 6);
    d.op.a = d.source(1, 4);
    d.op.b = d.source(2, 4);
    d.op.c = d.source(3, 4);
    d.op.imm = d.immediate(4) & 0xff;
    d.op.d = d.destination(0, 4);
    if (join < 0) return d.set(lop3);
    bool negated;
    const uint32_t with = d.predicate(5, &negated);
    d.op.e = d.predicate_destination_second(0);
    if (d.op.e == kNoRow) d.fail("needs two destinations");
    d.op.mode = uint8_t(join | negated << 1);
    d.extra().rows = {with};
    d.set(lop3_predicate);
}

void decode_bitfield(Decoder& d) {  // bfe, bfi, bmsk, szext, fns
    std::string n = d.in.parts[0];
    int mode = d.take_one({"clamp", "wrap"});
    Type t = d.take_type();
    int wide = width(t);
    if (n == "bfe" || n == "bfi") {
        bool insert = n == "bfi";
        d.expect_operands(insert ? 5 : 4, insert ? 5 : 4);
        d.op.a = d.source(1, wide, t);
        d.op.b = insert ? d.source(2, wide, t) : d.source(2, 4, Type::u32);
        d.op.c = d.source(3, 4, Type::u32);
        if (insert) d.op.e = d.source(4, 4, Type::u32);
        d.op.d = d.destination(0, wide);
        if (insert) return d.set(wide == 8 ? lanes<bfi<u64>> : lanes<bfi<u32>>);
        return d.set(t == Type::u32   ? lanes<bfe<u32>>
                     : t == Type::s32 ? lanes<bfe<s32>>
                     : t == Type::u64 ? lanes<bfe<u64>>
                                      : lanes<bfe<s64>>);
    }
    if (n == "bmsk") return bind(d, 2, Type::b32, mode == 1 ? lanes<bmsk_wrap> : lanes<bmsk_clamp>);
    if (n == "szext") {
        bool s = sign(t);
        return bind(d, 2, t,
                    mode == 1 ? (s ? lanes<szext<false, s32>> : lanes<szext<false, u32>>)
                              : (s ? lanes<szext<true, s32>> : lanes<szext<true, u32>>));
    }
    bind(d, 3, Type::b32, lanes<fns>);
}

void decode_dot(Decoder& d) {  // dp4a, dp2a
    bool four = d.in.parts[0] == "dp4a";
    int high = four ? 0 : d.take_one({"lo", "hi"});
    Type a = d.take_type(), b = d.take_type();
    bool sa = sign(a), sb = sign(b);
    using s8 = int8_t;
    Handler h;
    if (four)
        h = sa ? (sb ? lanes<dp4a<s8, s8, s32>> : lanes<dp4a<s8, u8, s32>>)
               : (sb ? lanes<dp4a<u8, s8, s32>> : lanes<dp4a<u8, u8, u32>>);
    else if (high == 1)
        h = sa ? (sb ? lanes<dp2a<s16, s8, s32, true>> : lanes<dp2a<s16, u8, s32, true>>)
               : (sb ? lanes<dp2a<u16, s8, s32, true>> : lanes<dp2a<u16, u8, u32, true>>);
    else
        h = sa ? (sb ? lanes<dp2a<s16, s8, s32, false>> : lanes<dp2a<s16, u8, s32, false>>)
               : (sb ? lanes<dp2a<u16, s8, s32, false>> : lanes<dp2a<u16, u8, u32, false>>);
    bind(d, 3, Type::b32, h);
}

}  // namespace vgpu
