// mov (with packing, unpacking and special registers), prmt, cvta, isspacep.
#include "exec/classes.h"
#include "exec/lanes.h"
#include "exec/worker.h"

namespace vgpu {
namespace {

uint32_t same32(uint32_t a) { return a; }
uint64_t same64(uint64_t a) { return a; }

Next mov_pred(Warp& w, const Op& o, uint32_t mask) {
    write_predicate(w, o.d, mask, read_predicate(w, o.a) ^ uint32_t(o.imm));
    return Next::step;
}
// Rows in x: the elements, lowest first. Op::size: bytes of an element, Op::count: elements.
Next mov_pack(Warp& w, const Op& o, uint32_t mask) {
    VGPU_FOR_LANES(i, mask) {
        uint64_t v = 0;
        for (int e = 0; e < o.count; ++e) {
            uint64_t part = row<uint32_t>(w, o.x->rows[e])[i];
            if (o.size < 4) part &= (1u << 8 * o.size) - 1;
            v |= part << (8 * o.size * e);
        }
        if (o.flags & kWide)
            row<uint64_t>(w, o.d)[i] = v;
        else
            row<uint32_t>(w, o.d)[i] = uint32_t(v);
    }
    return Next::step;
}
Next mov_unpack(Warp& w, const Op& o, uint32_t mask) {
    alignas(32) uint64_t v[32];
    for (int i = 0; i < 32; ++i) v[i] = o.flags & kWide ? row<uint64_t>(w, o.a)[i] : row<uint32_t>(w, o.a)[i];
    for (int e = 0; e < o.count; ++e) {
        uint32_t r = o.x->rows[e];
        if (r == kNoRow) continue;
        uint32_t* d = row<uint32_t>(w, r);
        uint32_t keep = o.size < 4 ? (1u << 8 * o.size) - 1 : ~0u;
        for (int i = 0; i < 32; ++i) d[i] = mask >> i & 1 ? uint32_t(v[i] >> (8 * o.size * e)) & keep : d[i];
    }
    return Next::step;
}
uint32_t pack2_16(uint32_t a, uint32_t b) { return (a & 0xffff) | b << 16; }
uint64_t pack2_32(uint32_t a, uint32_t b) { return uint64_t(b) << 32 | a; }

// %clock and its kin: warp instructions executed so far, which moves on and is the same in every run.
Next mov_clock(Warp& w, const Op& o, uint32_t mask) {
    uint64_t t = w.executed * 4;
    if (o.mode == 1) t >>= 32;
    VGPU_FOR_LANES(i, mask) {
        if (o.flags & kWide)
            row<uint64_t>(w, o.d)[i] = t;
        else
            row<uint32_t>(w, o.d)[i] = uint32_t(t);
    }
    return Next::step;
}

uint32_t prmt_bytes(uint32_t a, uint32_t b, uint32_t selector) {
    uint64_t both = uint64_t(b) << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; ++i) {
        uint32_t s = selector >> 4 * i;
        uint32_t byte = uint32_t(both >> (8 * (s & 7))) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;
        r |= byte << 8 * i;
    }
    return r;
}
template <int kMode>
uint32_t prmt_mode(uint32_t a, uint32_t b, uint32_t c) {
    constexpr uint32_t table[6][4] = {{0x3210, 0x4321, 0x5432, 0x6543},   // f4e
                                      {0x5670, 0x6701, 0x7012, 0x0123},   // b4e
                                      {0x0000, 0x1111, 0x2222, 0x3333},   // rc8
                                      {0x3210, 0x3211, 0x3222, 0x3333},   // ecl
                                      {0x0000, 0x1110, 0x2210, 0x3210},   // ecr
                                      {0x1010, 0x3232, 0x1010, 0x3232}};  // rc16
    return prmt_bytes(a, b, table[kMode][c & 3]);
}

template <class T>
Next cvta_tag(Warp& w, const Op& o, uint32_t mask) {
    const T* a = row<T>(w, o.a);
    VGPU_FOR_LANES(i, mask) row<uint64_t>(w, o.d)[i] = uint64_t(a[i]) | o.imm;
    return Next::step;
}
template <class T>
Next cvta_to(Warp& w, const Op& o, uint32_t mask) {
    const uint64_t* a = row<uint64_t>(w, o.a);
    T* d = row<T>(w, o.d);
    VGPU_FOR_LANES(i, mask) d[i] = T(a[i] & ~kTagMask);
    return Next::step;
}
Next isspacep(Warp& w, const Op& o, uint32_t mask) {
    const uint64_t* a = row<uint64_t>(w, o.a);
    uint32_t r = 0;
    VGPU_FOR_LANES(i, mask) {
        const uint64_t tag = a[i] & kTagMask;
        if (o.imm == kSharedTag || o.imm == kLocalTag || o.imm == kParamTag) {
            r |= uint32_t(tag == o.imm) << i;
            continue;
        }
        // Global is what lies in no other window; the window of parameters is a part of it, that of constants is not.
        const bool elsewhere = tag == kSharedTag || tag == kLocalTag, param = tag == kParamTag;
        const Allocation* found =
            elsewhere || param ? nullptr : w.worker->launch.memory.find(reinterpret_cast<const void*>(a[i]));
        const bool constant = found && found->kind == MemKind::module_constant;
        r |= uint32_t(o.mode ? constant : !elsewhere && !constant) << i;
    }
    write_predicate(w, o.d, mask, r);
    return Next::step;
}
// A vector in mov: 2 or 4 elements of the same size that fill a value of bits.
void check_pack(Decoder& d, Type t, const std::vector<Operand>& elements) {
    if (t != Type::b32 && t != Type::b64 && t != Type::b16) d.fail("a vector goes with bits");
    if (elements.size() != 2 && elements.size() != 4) d.fail("vector of another length");
    for (const Operand& e : elements)
        if (e.kind == OperandKind::reg && e.reg >= 0 &&
            size_of(d.function.registers[e.reg].type) * elements.size() != size_t(size_of(t)))
            d.fail("elements that do not fill the type");
}
uint64_t tag_of(Decoder& d) {
    int s =
        d.take_one({"shared", "shared::cta", "shared::cluster", "local", "global", "const", "param", "param::entry"});
    return s <= 2 ? kSharedTag : s == 3 ? kLocalTag : s >= 6 ? kParamTag : 0;
}

}  // namespace

void decode_mov(Decoder& d) {
    Type t = d.take_type();
    d.expect_operands(2, 2);
    const Operand &to = d.operand(0), &from = d.operand(1);
    if (t == Type::pred) {
        bool negated;
        d.op.a = d.predicate(1, &negated);
        d.op.imm = negated ? ~0u : 0;
        d.op.d = d.predicate_destination(0);
        return d.set(mov_pred);
    }
    int bytes = size_of(t), wide = bytes == 8 ? 8 : 4;
    for (const Operand* o : {&to, &from})
        if (o->kind == OperandKind::vector) check_pack(d, t, o->elements);
    if (from.kind == OperandKind::vector) {
        OpExtra& x = d.extra();
        d.op.count = uint8_t(from.elements.size());
        d.op.size = uint8_t(bytes / d.op.count);
        for (const Operand& e : from.elements) x.rows.push_back(d.source(e, 4, Type::b32));
        d.op.d = d.destination(0, wide);
        if (wide == 8) d.op.flags |= kWide;
        d.op.a = x.rows[0];
        d.op.b = x.rows.size() > 1 ? x.rows[1] : kNoRow;
        if (d.op.count == 2 && d.op.size >= 2) return d.set(wide == 8 ? lanes<pack2_32> : lanes<pack2_16>);
        return d.set(mov_pack);
    }
    if (to.kind == OperandKind::vector) {
        OpExtra& x = d.extra();
        d.op.count = uint8_t(to.elements.size());
        d.op.size = uint8_t(bytes / d.op.count);
        d.op.a = d.source(1, wide, t);
        if (wide == 8) d.op.flags |= kWide;
        for (const Operand& e : to.elements)
            x.rows.push_back(e.kind == OperandKind::sink ? kNoRow : d.destination(e, 4));
        return d.set(mov_unpack);
    }
    if (from.kind == OperandKind::special) {
        static const std::initializer_list<const char*> clocks = {"%clock",       "%clock64",        "%clock_hi",
                                                                  "%globaltimer", "%globaltimer_lo", "%globaltimer_hi"};
        for (const char* c : clocks)
            if (from.special == c) {
                d.op.mode = from.special.find("_hi") != std::string::npos;
                if (d.register_bytes(to) == 8) d.op.flags |= kWide;
                d.op.d = d.destination(0, d.register_bytes(to));
                return d.set(mov_clock);
            }
    }
    int reg = d.register_bytes(to);
    if (to.kind == OperandKind::sink) reg = wide;
    d.op.a = d.source(1, reg == 8 ? 8 : 4, t);
    d.op.d = d.destination(0, reg == 8 ? 8 : 4);
    d.set(reg == 8 ? lanes<same64> : lanes<same32>);
}

void decode_prmt(Decoder& d) {
    d.take_type();
    int m = d.take_one({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
    d.expect_operands(4, 4);
    d.op.a = d.source(1, 4);
    d.op.b = d.source(2, 4);
    d.op.c = d.source(3, 4);
    d.op.d = d.destination(0, 4);
    switch (m) {
        case 0:
            return d.set(lanes<prmt_mode<0>>);
        case 1:
            return d.set(lanes<prmt_mode<1>>);
        case 2:
            return d.set(lanes<prmt_mode<2>>);
        case 3:
            return d.set(lanes<prmt_mode<3>>);
        case 4:
            return d.set(lanes<prmt_mode<4>>);
        case 5:
            return d.set(lanes<prmt_mode<5>>);
        default:
            return d.set(lanes<prmt_bytes>);
    }
}

void decode_cvta(Decoder& d) {
    bool to = d.take("to");
    uint64_t tag = tag_of(d);
    Type t = d.take_type();
    d.expect_operands(2, 2);
    d.op.a = d.source(1, 8, t);
    d.op.d = d.destination(0, 8);
    d.op.imm = tag;
    if (tag == 0) return d.set(lanes<same64>);
    d.set(to ? cvta_to<uint64_t> : cvta_tag<uint64_t>);
}

void decode_isspacep(Decoder& d) {
    d.op.mode = d.peek() == "const";
    d.op.imm = tag_of(d);
    d.expect_operands(2, 2);
    d.op.a = d.source(1, 8, Type::u64);
    d.op.d = d.predicate_destination(0);
    d.set(isspacep);
}

}  // namespace vgpu
