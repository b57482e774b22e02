// atom and red of every operation and type, fences, and what atomics tell other warps (release and acquire).
#include "exec/classes.h"
#include "exec/half_rows.h"
#include "exec/worker.h"

namespace vgpu {

// Words of shared memory are told apart by their block.
uint64_t sync_key(Warp& w, Space space, uint64_t address) {
    if (space == Space::shared) return 1ull << 63 | w.block->linear << 32 | address >> 2;
    if (space == Space::local || space == Space::param) return 0;
    return address & ~3ull;
}
void release_word(Warp& w, uint64_t key, bool release) {
    if (!w.worker->races || !key) return;
    if (release) {
        w.worker->launch.sync.release(key, w.block->cluster->linear, w.clock);
        advance_clock(w);
    } else if (w.has_fence) {
        w.worker->launch.sync.release(key, w.block->cluster->linear, w.fenced);
    }
}
void acquire_word(Warp& w, uint64_t key, bool acquire) {
    if (!w.worker->races || !key) return;
    if (acquire)
        w.worker->launch.sync.acquire(key, w.block->cluster->linear, w.clock), w.clock.own[2 * w.slot] = w.time;
    else
        w.worker->launch.sync.acquire(key, w.block->cluster->linear, w.pending);
}
// A fence: later strong writes publish what happened before it, earlier strong reads are acquired.
void fence(Warp& w) {
    if (!w.worker->races) return;
    w.clock.join(w.pending);
    w.clock.own[2 * w.slot] = w.time;
    w.pending.clear();
    w.fenced = w.clock;
    w.has_fence = true;
    advance_clock(w);
}

namespace {

enum Kind : uint8_t { k_and, k_or, k_xor, k_cas, k_exch, k_add, k_inc, k_dec, k_min, k_max };

uint32_t flushed(uint32_t bits) { return bits & 0x7f800000 ? bits : bits & 0x80000000; }

// Sums of f32 in global memory flush subnormal operands and results; all others keep them (PTX ISA, atom).
uint64_t global_sum_f32(uint32_t old, uint32_t b) {
    return flushed(float_to_bits(bits_to_float(flushed(old)) + bits_to_float(flushed(b))));
}
uint64_t combine(Type t, Kind k, uint64_t old, uint64_t b, uint64_t c) {
    auto pick = [&](bool less) { return (k == k_min) == less ? b : old; };  // less: b < old
    switch (k) {
        case k_and:
            return old & b;
        case k_or:
            return old | b;
        case k_xor:
            return old ^ b;
        case k_cas:
            return old == b ? c : old;
        case k_exch:
            return b;
        case k_inc:
            return uint32_t(old) >= uint32_t(b) ? 0 : old + 1;
        case k_dec:
            return uint32_t(old) == 0 || uint32_t(old) > uint32_t(b) ? b : old - 1;
        default:
            break;
    }
    auto extreme = [&](double x, double y) { return x != x ? b : y != y ? old : pick(y < x); };
    switch (t) {
        case Type::f32:
            if (k == k_add) return float_to_bits(bits_to_float(uint32_t(old)) + bits_to_float(uint32_t(b)));
            return extreme(bits_to_float(uint32_t(old)), bits_to_float(uint32_t(b)));
        case Type::f64:
            if (k == k_add) return double_to_bits(bits_to_double(old) + bits_to_double(b));
            return extreme(bits_to_double(old), bits_to_double(b));
        case Type::f16:
        case Type::bf16: {
            const Format& f = t == Type::f16 ? kF16 : kBf16;
            double x = to_double(f, old & 0xffff), y = to_double(f, b & 0xffff);
            if (k == k_add) return round_double(f, x + y, Rounding::nearest);
            return extreme(x, y) & 0xffff;
        }
        case Type::f16x2:
        case Type::bf16x2: {
            Type half = t == Type::f16x2 ? Type::f16 : Type::bf16;
            return combine(half, k, old & 0xffff, b & 0xffff, 0) |
                   combine(half, k, old >> 16 & 0xffff, b >> 16 & 0xffff, 0) << 16;
        }
        case Type::s32:
            return k == k_add ? uint32_t(old + b) : pick(int32_t(b) < int32_t(old));
        case Type::s64:
            return k == k_add ? old + b : pick(int64_t(b) < int64_t(old));
        default:
            return k == k_add ? (size_of(t) == 8 ? old + b : uint32_t(old + b)) : pick(b < old);
    }
}

// rows: destinations (or none), b elements, c elements; ids alike.
bool atomic_part(Warp& w, const Op& o, Space space, uint32_t mask, const uint64_t* address) {
    Access a;
    a.bytes = a.align = uint32_t(o.size) * o.count;
    a.write = a.atomic = true;
    Target t;
    if (!access_space(w, o, space, mask, address, a, t)) return false;
    bool global = space == Space::global;
    Type type = Type(o.x->numbers[0]);
    Kind kind = Kind(o.mode);
    const bool wide = o.size == 8, red = o.flags & kNoReturn, cas = kind == k_cas;
    const uint32_t n = o.count, *rows = o.x->rows.data();
    const uint16_t* ids = o.x->ids.data();
    uint32_t memory = defined_lanes(t, 0, a.bytes), values = mask;
    for (uint32_t e = 0; e < n; ++e) {
        values &= read_defined(w, ids[n + e]);
        if (cas) values &= read_defined(w, ids[2 * n + e]);
    }
    if (w.worker->definedness) {
        if (global && (mask & ~values))
            report(w, o, first_lane(mask & ~values), "undefined",
                   "a value that was never written goes into an atomic operation on global memory at " +
                       hex(address[first_lane(mask & ~values)]));
        uint32_t bad = kind == k_exch ? 0 : mask & ~memory;
        if (bad)
            report(w, o, first_lane(bad), "undefined",
                   std::string("an atomic operation combines with ") + (global ? "global" : "shared") +
                       " memory that was never written, at " + hex(address[first_lane(bad)]));
    }
    VGPU_FOR_LANES(i, mask) {
        // One host lock per 64-byte line; a vector stays within one by its alignment.
        std::mutex* mutex = global ? &w.worker->launch.atomics[(address[i] >> 6) & 63] : nullptr;
        if (mutex) mutex->lock();
        acquire_word(w, sync_key(w, space, address[i]), o.flags & kAcquire);
        for (uint32_t e = 0; e < n; ++e) {
            uint64_t old = 0;
            std::memcpy(&old, t.data[i] + e * o.size, o.size);
            uint64_t b = wide ? row<uint64_t>(w, rows[n + e])[i] : row<uint32_t>(w, rows[n + e])[i];
            uint64_t c = !cas ? 0 : wide ? row<uint64_t>(w, rows[2 * n + e])[i] : row<uint32_t>(w, rows[2 * n + e])[i];
            if (o.size < 4) b &= 0xffff;
            uint64_t now = global && type == Type::f32 && kind == k_add ? global_sum_f32(uint32_t(old), uint32_t(b))
                                                                        : combine(type, kind, old, b, c);
            std::memcpy(t.data[i] + e * o.size, &now, o.size);
            if (red || rows[e] == kNoRow) continue;
            if (wide)
                row<uint64_t>(w, rows[e])[i] = old;
            else
                row<uint32_t>(w, rows[e])[i] = uint32_t(old);
        }
        release_word(w, sync_key(w, space, address[i]), o.flags & kRelease);
        if (mutex) mutex->unlock();
    }
    for (uint32_t e = 0; e < n && !red; ++e) write_defined(w, ids[e], mask, memory);
    set_defined(t, 0, a.bytes, values & (kind == k_exch ? ~0u : memory));
    return true;
}

template <bool kGeneric>
Next atomic(Warp& w, const Op& o, uint32_t mask) {
    alignas(32) uint64_t address[32], plain[32];
    request_addresses(w, o, address);
    for (uint32_t rest = mask; rest;) {
        Space space = Space(o.space);
        uint32_t part = rest;
        const uint64_t* at = address;
        if (kGeneric) part = next_window(rest, address, plain, &space), at = plain;
        if (!atomic_part(w, o, space, part, at)) return Next::failed;
        rest &= ~part;
    }
    if (o.flags & kNoReturn) return Next::step;
    if (w.poll_pc != o.pc) w.poll_pc = o.pc, w.polls = 0;
    if (++w.polls > 8) ++w.block->cluster->polls;
    return w.polls % 16 == 0 ? Next::yield : Next::step;
}

Next fence_(Warp& w, const Op&, uint32_t) {
    fence(w);
    return Next::step;
}

}  // namespace

void decode_atom(Decoder& d) {
    bool red = d.in.parts[0] == "red";
    int order = d.take_one({"relaxed", "acquire", "release", "acq_rel", "seq_cst"});
    d.take_one({"cta", "cluster", "gpu", "sys"});
    int space = d.take_one({"global", "shared", "shared::cta"});
    Space s = space == 0 ? Space::global : space > 0 ? Space::shared : Space::generic;
    int op = d.take_one({"and", "or", "xor", "cas", "exch", "add", "inc", "dec", "min", "max"});
    d.take("noftz");
    const bool hint = d.take("L2::cache_hint");  // the policy is an operand
    int v = d.take_one({"v2", "v4", "v8"});
    int count = v < 0 ? 1 : 2 << v;
    Type t = d.take_type();
    d.op.flags |=
        kStrong | (order == 1 || order >= 3 ? kAcquire : 0) | (order >= 2 ? kRelease : 0) | (red ? kNoReturn : 0);
    d.op.mode = uint8_t(op);
    d.op.size = uint8_t(size_of(t));
    d.op.count = uint8_t(count);
    size_t first = red ? 0 : 1, sources = op == k_cas ? 2 : 1;
    d.expect_operands(first + 1 + sources + hint, first + 1 + sources + hint);
    d.address(first, s);
    OpExtra& x = d.extra();
    x.numbers = {uint64_t(t)};
    int bytes = size_of(t) == 8 ? 8 : 4;
    auto add = [&](const Operand* o) {
        std::vector<Operand> list = !o                               ? std::vector<Operand>(count)
                                    : o->kind == OperandKind::vector ? o->elements
                                                                     : std::vector<Operand>{*o};
        if (int(list.size()) != count) d.fail("vector of another length");
        for (const Operand& e : list) {
            bool none =
                e.kind == OperandKind::none || e.kind == OperandKind::sink || (e.kind == OperandKind::reg && e.reg < 0);
            x.rows.push_back(none ? kNoRow : d.raw(e, bytes, t));
            x.ids.push_back(none ? kNoId : d.id(e));
        }
    };
    add(red ? nullptr : &d.operand(0));
    for (size_t k = 0; k < sources; ++k) add(&d.operand(first + 1 + k));
    d.set(Space(d.op.space) == Space::generic ? atomic<true> : atomic<false>);
}

void decode_fence(Decoder& d) {
    d.expect_operands(0, 0);
    d.take_one({"sc", "acq_rel", "acquire", "release"});
    d.take_one({"cta", "cluster", "gpu", "gl", "sys"});
    d.set(fence_);
}

}  // namespace vgpu
