// ld and st of every space, width and vector length.
#include "exec/classes.h"
#include "exec/worker.h"

namespace vgpu {
namespace {

template <class T, class Row>
void gather(Warp& w, uint32_t r, const Target& t, uint32_t offset) {
    Row* d = row<Row>(w, r);
    VGPU_FOR_LANES(i, t.mask) {
        T v;
        std::memcpy(&v, t.data[i] + offset, sizeof v);
        d[i] = Row(std::make_unsigned_t<Row>(v));
        if constexpr (std::is_signed_v<T>) d[i] = Row(v);
    }
}
template <class T, class Row>
void scatter(Warp& w, uint32_t r, const Target& t, uint32_t offset) {
    const Row* s = row<Row>(w, r);
    VGPU_FOR_LANES(i, t.mask) {
        T v = T(s[i]);
        std::memcpy(t.data[i] + offset, &v, sizeof v);
    }
}
using Mover = void (*)(Warp&, uint32_t, const Target&, uint32_t);
Mover loader(uint32_t size, bool sign, bool wide, uint32_t narrow) {
    (void)narrow;
    switch (size) {
        case 1:
            return sign ? (wide ? gather<int8_t, uint64_t> : gather<int8_t, uint32_t>)
                        : (wide ? gather<uint8_t, uint64_t> : gather<uint8_t, uint32_t>);
        case 2:
            return sign ? (wide ? gather<int16_t, uint64_t> : gather<int16_t, uint32_t>)
                        : (wide ? gather<uint16_t, uint64_t> : gather<uint16_t, uint32_t>);
        case 4:
            return sign ? (wide ? gather<int32_t, uint64_t> : gather<int32_t, uint32_t>)
                        : (wide ? gather<uint32_t, uint64_t> : gather<uint32_t, uint32_t>);
        default:
            return gather<uint64_t, uint64_t>;
    }
}
Mover storer(uint32_t size, bool wide) {
    switch (size) {
        case 1:
            return wide ? scatter<uint8_t, uint64_t> : scatter<uint8_t, uint32_t>;
        case 2:
            return wide ? scatter<uint16_t, uint64_t> : scatter<uint16_t, uint32_t>;
        case 4:
            return wide ? scatter<uint32_t, uint64_t> : scatter<uint32_t, uint32_t>;
        default:
            return scatter<uint64_t, uint64_t>;
    }
}

// Volatile and stronger loads in a loop are polling: let the others run.
Next polled(Warp& w, const Op& o) {
    if (w.poll_pc != o.pc) w.poll_pc = o.pc, w.polls = 0;
    if (++w.polls > 8) ++w.block->cluster->polls;
    return w.polls % 16 == 0 ? Next::yield : Next::step;
}

bool load_part(Warp& w, const Op& o, Space space, uint32_t mask, const uint64_t* address) {
    Access a;
    a.bytes = a.align = uint32_t(o.size) * o.count;
    a.atomic = o.flags & kStrong;
    Target t;
    if (!access_space(w, o, space, mask, address, a, t)) return false;
    Mover move = reinterpret_cast<Mover>(o.x->numbers[0]);
    for (uint32_t e = 0; e < o.count; ++e) {
        uint32_t defined = ~0u;
        if (w.worker->definedness || w.worker->counters) defined = defined_lanes(t, e * o.size, o.size);
        if (o.x->rows[e] == kNoRow) continue;
        move(w, o.x->rows[e], t, e * o.size);
        write_defined(w, o.x->ids[e], mask, defined);
    }
    if (o.flags & kStrong) VGPU_FOR_LANES(i, mask) acquire_word(w, sync_key(w, space, address[i]), o.flags & kAcquire);
    return true;
}
// A narrow signed value in a register of 16 bits: upper half of the row is zero.
void trim(Warp& w, const Op& o, uint32_t mask) {
    for (uint32_t r : o.x->rows) {
        if (r == kNoRow) continue;
        uint32_t* d = row<uint32_t>(w, r);
        VGPU_FOR_LANES(i, mask) d[i] &= 0xffff;
    }
}

// `part` for the lanes of each window that a request falls into: space, lanes, addresses within the space.
template <bool kGeneric, class Part>
bool each_window(Warp& w, const Op& o, uint32_t mask, Part part) {
    alignas(32) uint64_t address[32], plain[32];
    request_addresses(w, o, address);
    if (!kGeneric) return part(w, o, Space(o.space), mask, address);
    for (uint32_t rest = mask; rest;) {
        Space space;
        uint32_t lanes = next_window(rest, address, plain, &space);
        if (!part(w, o, space, lanes, plain)) return false;
        rest &= ~lanes;
    }
    return true;
}

template <bool kGeneric>
Next load(Warp& w, const Op& o, uint32_t mask) {
    if (!each_window<kGeneric>(w, o, mask, load_part)) return Next::failed;
    if (o.mode & 1) trim(w, o, mask);
    return o.flags & kStrong ? polled(w, o) : Next::step;
}

// Kernel parameters at a fixed offset are the same in every lane.
Next load_parameter(Warp& w, const Op& o, uint32_t mask) {
    const uint8_t* p = w.worker->launch.params.data() + o.imm;
    for (uint32_t e = 0; e < o.count; ++e, p += o.size) {
        if (o.x->rows[e] == kNoRow) continue;
        uint64_t v = 0;
        std::memcpy(&v, p, o.size);
        if (o.flags & kSigned && o.size < 8 && v >> (8 * o.size - 1)) v |= ~((uint64_t(1) << 8 * o.size) - 1);
        if (o.mode & 1) v &= 0xffff;
        if (o.flags & kWide) {
            uint64_t* d = row<uint64_t>(w, o.x->rows[e]);
            for (int i = 0; i < 32; ++i) d[i] = mask >> i & 1 ? v : d[i];
        } else {
            uint32_t* d = row<uint32_t>(w, o.x->rows[e]);
            for (int i = 0; i < 32; ++i) d[i] = mask >> i & 1 ? uint32_t(v) : d[i];
        }
        write_defined(w, o.x->ids[e], mask, ~0u);
    }
    return Next::step;
}

bool store_part(Warp& w, const Op& o, Space space, uint32_t mask, const uint64_t* address) {
    Access a;
    a.bytes = a.align = uint32_t(o.size) * o.count;
    a.write = true;
    a.atomic = o.flags & kStrong;
    Target t;
    if (!access_space(w, o, space, mask, address, a, t)) return false;
    bool global = space == Space::global || space == Space::generic;
    // Published before another worker can see the value.
    if (o.flags & kStrong) VGPU_FOR_LANES(i, mask) release_word(w, sync_key(w, space, address[i]), o.flags & kRelease);
    Mover move = reinterpret_cast<Mover>(o.x->numbers[0]);
    for (uint32_t e = 0; e < o.count; ++e) {
        move(w, o.x->rows[e], t, e * o.size);
        uint32_t defined = w.worker->definedness ? read_defined(w, o.x->ids[e]) : ~0u;
        if (global && (mask & ~defined))
            report(w, o, first_lane(mask & ~defined), "undefined",
                   "a value that was never written is stored to global memory at " +
                       hex(address[first_lane(mask & ~defined)] + e * o.size));
        set_defined(t, e * o.size, o.size, defined);
    }
    return true;
}
template <bool kGeneric>
Next store(Warp& w, const Op& o, uint32_t mask) {
    return each_window<kGeneric>(w, o, mask, store_part) ? Next::step : Next::failed;
}

Space take_space(Decoder& d) {
    switch (d.take_one({"global", "shared", "shared::cta", "local", "param", "param::entry", "param::func", "const"})) {
        case 0:
            return Space::global;
        case 1:
        case 2:
            return Space::shared;
        case 3:
            return Space::local;
        case 4:
        case 5:
        case 6:
            return Space::param;
        case 7:
            return Space::constant;
        default:
            return Space::generic;
    }
}
// .weak or nothing, .volatile, or an order with its scope.
uint16_t take_strength(Decoder& d, bool load) {
    d.take("mmio");
    const int order = d.take_one({"weak", "volatile", "relaxed", load ? "acquire" : "release"});
    d.take_one({"cta", "cluster", "gpu", "sys"});
    return (order >= 1 ? kStrong : 0) | (order == 3 ? load ? kAcquire : kRelease : 0);
}
void take_hints(Decoder& d) {
    const size_t count = d.take("L2::cache_hint") ? 3 : 2;  // the policy is an operand
    d.expect_operands(count, count);
    while (d.take_one({"ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "L1::evict_normal", "L1::evict_unchanged",
                       "L1::evict_first", "L1::evict_last", "L1::no_allocate", "L2::64B", "L2::128B", "L2::256B"}) >=
           0) {
    }
}
int take_vector(Decoder& d) {
    int v = d.take_one({"v2", "v4"});
    return v < 0 ? 1 : 2 << v;
}

void bind_value(Decoder& d, const Operand& value, int count, Type t, bool load) {
    OpExtra& x = d.extra();
    std::vector<Operand> elements = value.kind == OperandKind::vector ? value.elements : std::vector<Operand>{value};
    if (int(elements.size()) != count) d.fail("vector of another length");
    int width = 0;
    for (const Operand& e : elements) {
        if (load && (e.kind == OperandKind::sink || (e.kind == OperandKind::reg && e.reg < 0))) {
            x.rows.push_back(kNoRow);
            x.ids.push_back(kNoId);
            continue;
        }
        int bytes = e.kind == OperandKind::reg ? d.register_bytes(e) : size_of(t) == 8 ? 8 : 4;
        if (bytes == 16) d.fail("128-bit register");
        if (width && bytes != width) d.fail("registers of several widths");
        width = bytes;
        x.rows.push_back(d.raw(e, bytes, t));
        x.ids.push_back(d.id(e));
        if (load && e.kind == OperandKind::reg && size_of(d.function.registers[e.reg].type) == 2) d.op.mode |= 1;
    }
    if (width == 8) d.op.flags |= kWide;
    if (size_of(t) > (width ? width : 8)) d.fail("register narrower than the type");
}

}  // namespace

void decode_ld(Decoder& d) {
    d.op.flags |= take_strength(d, true);
    Space space = take_space(d);
    take_hints(d);
    int count = take_vector(d);
    Type t = d.take_type();
    d.op.size = uint8_t(size_of(t));
    d.op.count = uint8_t(count);
    bind_value(d, d.operand(0), count, t, true);
    d.address(1, space);
    bool sign = t == Type::s8 || t == Type::s16 || t == Type::s32;
    if (sign) d.op.flags |= kSigned;
    d.extra().numbers = {reinterpret_cast<uint64_t>(loader(d.op.size, sign, d.op.flags & kWide, 0))};
    if (Space(d.op.space) == Space::param && d.operand(1).reg < 0) {
        // Reads that are outside or misaligned take the general way, which reports them.
        uint64_t at = d.symbol_value(d.operand(1)), bytes = uint64_t(d.op.size) * d.op.count;
        if (at + bytes <= d.builder.image.param_bytes && at + bytes >= bytes && at % bytes == 0) {
            d.op.imm = at;
            return d.set(load_parameter);
        }
    }
    d.set(Space(d.op.space) == Space::generic ? load<true> : load<false>);
}

void decode_st(Decoder& d) {
    d.op.flags |= take_strength(d, false);
    Space space = take_space(d);
    take_hints(d);
    int count = take_vector(d);
    Type t = d.take_type();
    d.op.size = uint8_t(size_of(t));
    d.op.count = uint8_t(count);
    d.address(0, space);
    bind_value(d, d.operand(1), count, t, false);
    d.extra().numbers = {reinterpret_cast<uint64_t>(storer(d.op.size, d.op.flags & kWide))};
    d.set(Space(d.op.space) == Space::generic ? store<true> : store<false>);
}

}  // namespace vgpu
