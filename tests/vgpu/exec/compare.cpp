// setp, set, selp, slct and logic of predicates.
#include <cmath>

#include "exec/classes.h"
#include "exec/half_rows.h"
#include "exec/lanes.h"

namespace vgpu {
namespace {

enum Cmp : int { eq, ne, lt, le, gt, ge, lo, ls, hi, hs, equ, neu, ltu, leu, gtu, geu, num, nan_ };
const std::initializer_list<std::string_view> kCompareNames = {
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};

template <int C, class T>
bool compare(T a, T b) {
    switch (C) {
        case eq:
            return a == b;
        case ne:
            return std::is_floating_point_v<T> ? a < b || a > b : a != b;
        case lt:
        case lo:
            return a < b;
        case le:
        case ls:
            return a <= b;
        case gt:
        case hi:
            return a > b;
        case ge:
        case hs:
            return a >= b;
        case equ:
            return !(a < b || a > b);
        case neu:
            return !(a == b);
        case ltu:
            return !(a >= b);
        case leu:
            return !(a > b);
        case gtu:
            return !(a <= b);
        case geu:
            return !(a < b);
        case num:
            return a == a && b == b;
        default:
            return a != a || b != b;
    }
}
// Op::mode: bits 0-1 combine (0 none, 1 and, 2 or, 3 xor), bit 2 negated c, bit 3 ftz.
void finish_setp(Warp& w, const Op& o, uint32_t mask, uint32_t r) {
    uint32_t p = r, q = ~r;
    if (o.mode & 3) {
        uint32_t c = read_predicate(w, o.c) ^ (o.mode & 4 ? ~0u : 0);
        p = (o.mode & 3) == 1 ? p & c : (o.mode & 3) == 2 ? p | c : p ^ c;
        q = (o.mode & 3) == 1 ? q & c : (o.mode & 3) == 2 ? q | c : q ^ c;
    }
    if (o.d != kNoRow) write_predicate(w, o.d, mask, p);
    if (o.e != kNoRow) write_predicate(w, o.e, mask, q);
}
template <int C, class T>
uint32_t compare_lanes(Warp& w, const Op& o) {
    const Cell<T>*a = row<Cell<T>>(w, o.a), *b = row<Cell<T>>(w, o.b);
    uint32_t r = 0;
    for (uint32_t i = 0; i < 32; ++i) r |= uint32_t(compare<C, T>(unpack<T>(a[i]), unpack<T>(b[i]))) << i;
    return r;
}
template <int C, class T>
Next setp(Warp& w, const Op& o, uint32_t mask) {
    uint32_t r;
    if (std::is_floating_point_v<T> && o.mode & 8) {
        FloatMode m(round_nearest, true);
        r = compare_lanes<C, T>(w, o);
    } else {
        r = compare_lanes<C, T>(w, o);
    }
    finish_setp(w, o, mask, r);
    return Next::step;
}
// .ftz of widened 16-bit floats: what was subnormal there becomes zero.
void flush_subnormals(float* row, bool bf16) {
    const float normal = bf16 ? 0x1p-126f : 0x1p-14f;
    for (int i = 0; i < 32; ++i) row[i] = std::fabs(row[i]) < normal ? std::copysign(0.0f, row[i]) : row[i];
}
template <int C, bool kBf16, bool kPair>
Next setp_half(Warp& w, const Op& o, uint32_t mask) {
    alignas(32) float a[2][32], b[2][32];
    auto widen = kBf16 ? widen_bf16 : widen_half;
    widen(row<uint32_t>(w, o.a), a[0], a[1]);
    widen(row<uint32_t>(w, o.b), b[0], b[1]);
    if (o.mode & 8)
        for (int h = 0; h < 2; ++h) flush_subnormals(a[h], kBf16), flush_subnormals(b[h], kBf16);
    uint32_t r[2] = {0, 0};
    for (int h = 0; h < 2; ++h)
        for (uint32_t i = 0; i < 32; ++i) r[h] |= uint32_t(compare<C, float>(a[h][i], b[h][i])) << i;
    if (!kPair) {
        finish_setp(w, o, mask, r[0]);
    } else {
        uint32_t c = o.mode & 3 ? read_predicate(w, o.c) ^ (o.mode & 4 ? ~0u : 0) : 0;
        for (uint32_t& v : r) v = (o.mode & 3) == 1 ? v & c : (o.mode & 3) == 2 ? v | c : (o.mode & 3) == 3 ? v ^ c : v;
        if (o.d != kNoRow) write_predicate(w, o.d, mask, r[0]);
        if (o.e != kNoRow) write_predicate(w, o.e, mask, r[1]);
    }
    return Next::step;
}

template <int C>
Handler by_type(Type t) {
    switch (t) {
        case Type::b16:
        case Type::u16:
            return setp<C, uint16_t>;
        case Type::s16:
            return setp<C, int16_t>;
        case Type::b32:
        case Type::u32:
            return setp<C, uint32_t>;
        case Type::s32:
            return setp<C, int32_t>;
        case Type::b64:
        case Type::u64:
            return setp<C, uint64_t>;
        case Type::s64:
            return setp<C, int64_t>;
        case Type::f32:
            return setp<C, float>;
        case Type::f64:
            return setp<C, double>;
        case Type::f16:
            return setp_half<C, false, false>;
        case Type::f16x2:
            return setp_half<C, false, true>;
        case Type::bf16:
            return setp_half<C, true, false>;
        case Type::bf16x2:
            return setp_half<C, true, true>;
        default:
            return nullptr;
    }
}
Handler find_compare(int c, Type t) {
    switch (c) {
#define ROW(x) \
    case x:    \
        return by_type<x>(t);
        ROW(eq)
        ROW(ne)
        ROW(lt)
        ROW(le)
        ROW(gt)
        ROW(ge)
        ROW(lo)
        ROW(ls)
        ROW(hi)
        ROW(hs)
        ROW(equ)
        ROW(neu)
        ROW(ltu)
        ROW(leu)
        ROW(gtu)
        ROW(geu)
        ROW(num)
        ROW(nan_)
#undef ROW
        default:
            return nullptr;
    }
}
// set: the comparison goes to a scratch predicate, then all ones or 1.0 per lane.
Next set_expand(Warp& w, const Op& o, uint32_t mask) {
    Op inner = o;
    inner.d = o.x->rows[0];
    inner.e = o.x->rows[1];
    Next n = reinterpret_cast<Handler>(o.imm)(w, inner, mask);
    uint32_t p = read_predicate(w, inner.d), q = inner.e != kNoRow ? read_predicate(w, inner.e) : 0;
    uint32_t* d = row<uint32_t>(w, o.d);
    uint32_t low = uint32_t(o.x->numbers[0]), high = uint32_t(o.x->numbers[1]);
    VGPU_FOR_LANES(i, mask) d[i] = (p >> i & 1 ? low : 0) | (q >> i & 1 ? high : 0);
    return n;
}

template <class T>
Next selp(Warp& w, const Op& o, uint32_t mask) {
    T* d = row<T>(w, o.d);
    const T *a = row<T>(w, o.a), *b = row<T>(w, o.b);
    uint32_t p = read_predicate(w, o.c) ^ uint32_t(o.imm);
    if (mask == ~0u) {
#pragma GCC ivdep
        for (int i = 0; i < 32; ++i) d[i] = p >> i & 1 ? a[i] : b[i];
    } else {
        VGPU_FOR_LANES(i, mask) d[i] = p >> i & 1 ? a[i] : b[i];
    }
    return Next::step;
}
uint32_t selp_rule(Warp& w, const Op& o, uint32_t mask, uint32_t) {
    uint32_t p = read_predicate(w, o.c) ^ uint32_t(o.imm);
    uint32_t a = w.defined[o.ids[0]], b = w.defined[o.ids[1]], c = w.defined[o.ids[2]];
    return mask & c & ((p & a) | (~p & b));
}
template <class T, class S>
Next slct(Warp& w, const Op& o, uint32_t mask) {
    T* d = row<T>(w, o.d);
    const T *a = row<T>(w, o.a), *b = row<T>(w, o.b);
    const S* c = row<S>(w, o.c);
    if (std::is_floating_point_v<S> && o.mode & 8) {  // .ftz: a subnormal c is a zero, of either sign
        VGPU_FOR_LANES(i, mask) d[i] = c[i] > S(-0x1p-126) ? a[i] : b[i];
        return Next::step;
    }
    VGPU_FOR_LANES(i, mask) d[i] = c[i] >= 0 ? a[i] : b[i];  // NaN selects b, -0 selects a
    return Next::step;
}

enum Logic : uint8_t { logic_and, logic_or, logic_xor, logic_not };
// Op::imm: negations of a (bit 0) and b (bit 1).
template <Logic L>
Next predicate_logic(Warp& w, const Op& o, uint32_t mask) {
    uint32_t a = read_predicate(w, o.a) ^ (o.imm & 1 ? ~0u : 0);
    uint32_t b = L == logic_not ? 0 : read_predicate(w, o.b) ^ (o.imm & 2 ? ~0u : 0);
    write_predicate(w, o.d, mask, L == logic_and ? a & b : L == logic_or ? a | b : L == logic_xor ? a ^ b : ~a);
    return Next::step;
}
// false and x, true or x are defined.
template <Logic L>
uint32_t predicate_rule(Warp& w, const Op& o, uint32_t mask, uint32_t both) {
    uint32_t a = read_predicate(w, o.a) ^ (o.imm & 1 ? ~0u : 0), b = read_predicate(w, o.b) ^ (o.imm & 2 ? ~0u : 0);
    uint32_t da = w.defined[o.ids[0]], db = w.defined[o.ids[1]];
    if (L == logic_and) return mask & (both | (da & ~a) | (db & ~b));
    return mask & (both | (da & a) | (db & b));
}
int width(Type t) { return size_of(t) == 8 ? 8 : 4; }

int take_compare(Decoder& d, Type* t) {
    int c = d.take_one(kCompareNames), combine = d.take_one({"and", "or", "xor"});
    bool ftz = d.take("ftz");
    d.op.mode = uint8_t((combine + 1) | (ftz ? 8 : 0));
    *t = d.take_type();
    return c;
}
void compare_sources(Decoder& d, Type t) {
    bool combined = d.op.mode & 3;
    d.expect_operands(combined ? 4 : 3, combined ? 4 : 3);
    d.op.a = d.source(1, width(t), t);
    d.op.b = d.source(2, width(t), t);
    if (combined) {
        bool negated;
        d.op.c = d.predicate(3, &negated);
        if (negated) d.op.mode |= 4;
    }
}

}  // namespace

void decode_setp(Decoder& d) {
    Type t;
    int c = take_compare(d, &t);
    Handler h = find_compare(c, t);
    if (!h) d.fail("type");
    compare_sources(d, t);
    d.op.d = d.predicate_destination(0);
    if (t != Type::f16 && t != Type::bf16) d.op.e = d.predicate_destination_second(0);
    d.set(h);
}

void decode_set(Decoder& d) {
    Type result, t;
    int c = d.take_one(kCompareNames), combine = d.take_one({"and", "or", "xor"});
    bool ftz = d.take("ftz");
    result = d.take_type();
    t = d.take_type();
    d.op.mode = uint8_t((combine + 1) | (ftz ? 8 : 0));
    Handler h = find_compare(c, t);
    if (!h) d.fail("type");
    bool pair = t == Type::f16x2 || t == Type::bf16x2;
    uint64_t one = 0;
    switch (result) {
        case Type::u32:
        case Type::s32:
        case Type::b32:
            one = 0xffffffff;
            break;
        case Type::u16:
        case Type::s16:
        case Type::b16:
            one = 0xffff;
            break;
        case Type::f32:
            one = 0x3f800000;
            break;
        case Type::f16:
        case Type::f16x2:
            one = 0x3c00;
            break;
        case Type::bf16:
        case Type::bf16x2:
            one = 0x3f80;
            break;
        default:
            d.fail("type");
    }
    if (pair && one == 0xffffffff) one = 0xffff;
    compare_sources(d, t);
    d.op.d = d.destination(0, 4);
    OpExtra& x = d.extra();
    x.rows = {d.builder.scratch_pred, pair ? d.builder.scratch_pred + 4 : kNoRow};
    x.numbers = {one, one << 16};
    d.op.imm = reinterpret_cast<uint64_t>(h);
    d.set(set_expand);
}

void decode_selp(Decoder& d) {
    Type t = d.take_type();
    d.expect_operands(4, 4);
    d.keep_constants = true;
    bool negated;
    d.op.a = d.source(1, width(t), t);
    d.op.b = d.source(2, width(t), t);
    d.op.c = d.predicate(3, &negated);
    d.op.imm = negated ? ~0u : 0;
    d.op.d = d.destination(0, width(t));
    d.op.defined_rule = selp_rule;
    d.set(width(t) == 8 ? selp<uint64_t> : selp<uint32_t>);
}

void decode_slct(Decoder& d) {
    if (d.take("ftz")) d.op.mode = 8;
    Type t = d.take_type(), s = d.take_type();
    d.expect_operands(4, 4);
    d.op.a = d.source(1, width(t), t);
    d.op.b = d.source(2, width(t), t);
    d.op.c = d.source(3, 4, s);
    d.op.d = d.destination(0, width(t));
    bool f = s == Type::f32, wide = width(t) == 8;
    d.set(f ? (wide ? slct<uint64_t, float> : slct<uint32_t, float>)
            : (wide ? slct<uint64_t, int32_t> : slct<uint32_t, int32_t>));
}

void decode_predicate_logic(Decoder& d) {  // and.pred or.pred xor.pred not.pred; .pred is taken already
    const std::string& n = d.in.parts[0];
    bool na = false, nb = false;
    d.keep_constants = true;
    d.expect_operands(n == "not" ? 2 : 3, n == "not" ? 2 : 3);
    d.op.a = d.predicate(1, &na);
    if (n != "not") d.op.b = d.predicate(2, &nb);
    d.op.imm = na | nb << 1;
    d.op.d = d.predicate_destination(0);
    if (n == "and") d.set(predicate_logic<logic_and>), d.op.defined_rule = predicate_rule<logic_and>;
    if (n == "or") d.set(predicate_logic<logic_or>), d.op.defined_rule = predicate_rule<logic_or>;
    if (n == "xor") d.set(predicate_logic<logic_xor>);
    if (n == "not") d.set(predicate_logic<logic_not>);
}

}  // namespace vgpu
