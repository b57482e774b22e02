// Exchanges between the lanes of a warp. The lanes named by a member mask must stand at the instruction together.
#include "exec/classes.h"
#include "exec/worker.h"

namespace vgpu {
namespace {

// A result that every lane's source goes into.
uint32_t all_or_none(Warp&, const Op&, uint32_t, uint32_t) { return 0; }

enum class Ready : uint8_t { yes, wait, fail };

// Waits for every live lane of the masks; reports a lane that is not in its own mask.
Ready gather_lanes(Warp& w, const Op& o, uint32_t mask, uint32_t member_row) {
    const uint32_t* member = row<uint32_t>(w, member_row);
    uint32_t need = 0;
    VGPU_FOR_LANES(i, mask) {
        need |= member[i];
        if (member[i] >> i & 1) continue;
        report(w, o, int(i), "collective", "lane is not in its own member mask " + hex(member[i]), true);
        return Ready::fail;
    }
    Group& g = w.groups[w.current];
    if ((need & w.live & ~mask) == 0) return Ready::yes;
    if ((need & w.live & ~g.mask) == 0) {
        report(w, o, first_lane(mask), "collective",
               "lanes " + hex(need & w.live & ~mask) + " of the member mask skip the instruction by its guard", true);
        return Ready::fail;
    }
    g.state = State::collect;
    g.need = need;
    return Ready::wait;
}
#define GATHER(member)                          \
    switch (gather_lanes(w, o, mask, member)) { \
        case Ready::wait:                       \
            return Next::blocked;               \
        case Ready::fail:                       \
            return Next::failed;                \
        default:                                \
            break;                              \
    }

// mode: 0 up, 1 down, 2 bfly, 3 idx
Next shfl(Warp& w, const Op& o, uint32_t mask) {
    GATHER(o.e);
    alignas(32) uint32_t value[32];
    std::memcpy(value, row<uint32_t>(w, o.a), sizeof value);
    const uint32_t *b = row<uint32_t>(w, o.b), *c = row<uint32_t>(w, o.c);
    uint32_t* d = row<uint32_t>(w, o.d);
    uint32_t in_range = 0, source_defined = read_defined(w, o.x->ids[0]), defined = 0;
    uint32_t others = read_defined(w, o.x->ids[1]) & read_defined(w, o.x->ids[2]);
    VGPU_FOR_LANES(i, mask) {
        uint32_t clamp = c[i] & 31, segment = c[i] >> 8 & 31, step = b[i] & 31;
        int max_lane = int((i & segment) | (clamp & ~segment)), min_lane = int(i & segment), j = 0;
        bool p = false;
        switch (o.mode) {
            case 0:
                j = int(i) - int(step), p = j >= max_lane;
                break;
            case 1:
                j = int(i) + int(step), p = j <= max_lane;
                break;
            case 2:
                j = int(i ^ step), p = j <= max_lane;
                break;
            default:
                j = min_lane | int(step & ~segment), p = j <= max_lane;
                break;
        }
        if (!p) j = int(i);
        in_range |= uint32_t(p) << i;
        d[i] = value[j];
        // A lane that does not take part has no value to give.
        bool there = mask >> j & 1;
        defined |= uint32_t(there && source_defined >> j & 1) << i;
    }
    write_defined(w, o.x->ids[3], mask, defined & others);
    if (o.x->rows[0] != kNoRow) {
        write_predicate(w, o.x->rows[0], mask, in_range);
        write_defined(w, o.x->ids[4], mask, others);
    }
    return Next::step;
}

// Distinct member masks inside one request are separate votes.
template <class F>
void each_mask(Warp& w, uint32_t member_row, uint32_t mask, F f) {
    const uint32_t* member = row<uint32_t>(w, member_row);
    while (mask) {
        uint32_t m = member[first_lane(mask)], same = 0;
        VGPU_FOR_LANES(i, mask) same |= uint32_t(member[i] == m) << i;
        f(same);
        mask &= ~same;
    }
}
// mode: 0 all, 1 any, 2 uni, 3 ballot
Next vote(Warp& w, const Op& o, uint32_t mask) {
    GATHER(o.b);
    uint32_t p = read_predicate(w, o.a) ^ uint32_t(o.imm);
    auto one = [&](uint32_t lanes) {
        uint32_t v = p & lanes;
        if (o.mode == 3) {
            VGPU_FOR_LANES(i, lanes) row<uint32_t>(w, o.d)[i] = v;
            return;
        }
        bool r = o.mode == 0 ? v == lanes : o.mode == 1 ? v != 0 : v == 0 || v == lanes;
        write_predicate(w, o.d, lanes, r ? ~0u : 0);
    };
    each_mask(w, o.b, mask, one);
    return Next::step;
}
// mode: 0 any, 1 all
template <class T>
Next match(Warp& w, const Op& o, uint32_t mask) {
    GATHER(o.b);
    alignas(32) T a[32];
    std::memcpy(a, row<T>(w, o.a), sizeof a);
    each_mask(w, o.b, mask, [&](uint32_t lanes) {
        uint32_t all = 0;
        VGPU_FOR_LANES(i, lanes) {
            uint32_t same = 0;
            VGPU_FOR_LANES(j, lanes) same |= uint32_t(a[j] == a[i]) << j;
            if (o.mode == 0) row<uint32_t>(w, o.d)[i] = same;
            all = same;
        }
        if (o.mode == 1) {
            VGPU_FOR_LANES(i, lanes) row<uint32_t>(w, o.d)[i] = all == lanes ? lanes : 0;
            if (o.e != kNoRow) write_predicate(w, o.e, lanes, all == lanes ? ~0u : 0);
        }
    });
    return Next::step;
}
// mode: add min max and or xor; imm: signed
Next redux(Warp& w, const Op& o, uint32_t mask) {
    GATHER(o.b);
    alignas(32) uint32_t a[32];
    std::memcpy(a, row<uint32_t>(w, o.a), sizeof a);
    each_mask(w, o.b, mask, [&](uint32_t lanes) {
        uint32_t r = a[first_lane(lanes)];
        VGPU_FOR_LANES(i, lanes & (lanes - 1)) {
            uint32_t v = a[i];
            bool less = o.imm ? int32_t(v) < int32_t(r) : v < r;
            switch (o.mode) {
                case 0:
                    r += v;
                    break;
                case 1:
                    r = less ? v : r;
                    break;
                case 2:
                    r = less ? r : v;
                    break;
                case 3:
                    r &= v;
                    break;
                case 4:
                    r |= v;
                    break;
                default:
                    r ^= v;
                    break;
            }
        }
        VGPU_FOR_LANES(i, lanes) row<uint32_t>(w, o.d)[i] = r;
    });
    return Next::step;
}
Next activemask(Warp& w, const Op& o, uint32_t mask) {
    VGPU_FOR_LANES(i, mask) row<uint32_t>(w, o.d)[i] = mask;
    return Next::step;
}
// The ISA leaves the choice open: the lowest lane, or one drawn by the seed.
Next elect(Warp& w, const Op& o, uint32_t mask) {
    GATHER(o.a);
    each_mask(w, o.a, mask, [&](uint32_t lanes) {
        uint32_t leader = uint32_t(first_lane(lanes));
        if (w.worker->launch.options.seed) {
            uint32_t skip =
                uint32_t((w.worker->launch.options.seed * 2654435761u + o.pc) % uint32_t(__builtin_popcount(lanes)));
            uint32_t rest = lanes;
            while (skip--) rest &= rest - 1;
            leader = uint32_t(first_lane(rest));
        }
        if (o.d != kNoRow) VGPU_FOR_LANES(i, lanes) row<uint32_t>(w, o.d)[i] = leader;
        if (o.e != kNoRow) write_predicate(w, o.e, lanes, 1u << leader);
    });
    return Next::step;
}
// movmatrix.trans: element (r, c) of the 8x8 matrix goes to (c, r).
Next movmatrix(Warp& w, const Op& o, uint32_t mask) {
    Group& g = w.groups[w.current];
    if (mask != w.live || w.live != ~0u) {
        if (g.mask != w.live && w.live == ~0u) {
            g.state = State::collect;
            g.need = w.live;
            return Next::blocked;
        }
        report(w, o, first_lane(mask), "collective", "movmatrix needs all 32 lanes", true);
        return Next::failed;
    }
    alignas(32) uint32_t a[32];
    std::memcpy(a, row<uint32_t>(w, o.a), sizeof a);
    uint32_t* d = row<uint32_t>(w, o.d);
    auto element = [&](int r, int c) { return a[4 * r + c / 2] >> (16 * (c & 1)) & 0xffff; };
    for (int i = 0; i < 32; ++i) {
        int r = i / 4, c = 2 * (i % 4);
        d[i] = element(c, r) | element(c + 1, r) << 16;
    }
    return Next::step;
}

}  // namespace

void decode_shfl(Decoder& d) {
    d.take("sync");  // without it: gone from sm_70 on
    int mode = d.take_one({"up", "down", "bfly", "idx"});
    d.take_type();
    d.expect_operands(5, 5);
    d.own_destinations = true;
    d.op.mode = uint8_t(mode);
    d.op.a = d.raw(d.operand(1), 4);
    d.op.b = d.raw(d.operand(2), 4);
    d.op.c = d.raw(d.operand(3), 4);
    d.op.e = d.must(d.operand(4), 4);
    d.op.d = d.destination(0, 4);
    OpExtra& x = d.extra();
    uint32_t p = d.predicate_destination_second(0);
    x.rows = {p};
    uint16_t pid = d.operand(0).reg2 >= 0 ? d.id_of(d.operand(0).reg2) : kNoId;
    x.ids = {d.id(d.operand(1)), d.id(d.operand(2)), d.id(d.operand(3)), d.id(d.operand(0)), pid};
    d.set(shfl);
}
void decode_vote(Decoder& d) {
    d.take("sync");
    int mode = d.take_one({"all", "any", "uni", "ballot"});
    d.take_type();
    d.expect_operands(3, 3);
    bool negated;
    d.op.mode = uint8_t(mode);
    d.op.a = d.predicate(1, &negated);
    d.op.imm = negated ? ~0u : 0;
    d.op.b = d.must(d.operand(2), 4);
    d.op.d = mode == 3 ? d.destination(0, 4) : d.predicate_destination(0);
    d.op.defined_rule = all_or_none;
    d.set(vote);
}
void decode_match(Decoder& d) {
    int mode = d.take_one({"any", "all"});
    d.take("sync");
    Type t = d.take_type();
    int bytes = size_of(t);
    d.expect_operands(3, 3);
    d.op.mode = uint8_t(mode);
    d.op.a = d.source(1, bytes, t);
    d.op.b = d.must(d.operand(2), 4);
    d.op.d = d.destination(0, 4);
    if (mode == 1) d.op.e = d.predicate_destination_second(0);
    d.set(bytes == 8 ? match<uint64_t> : match<uint32_t>);
}
void decode_redux(Decoder& d) {
    d.take("sync");
    int mode = d.take_one({"add", "min", "max", "and", "or", "xor"});
    Type t = d.take_type();
    d.expect_operands(3, 3);
    d.op.mode = uint8_t(mode);
    d.op.imm = t == Type::s32;
    d.op.a = d.source(1, 4, t);
    d.op.b = d.must(d.operand(2), 4);
    d.op.d = d.destination(0, 4);
    d.op.defined_rule = all_or_none;
    d.set(redux);
}
void decode_activemask(Decoder& d) {
    d.take_type();
    d.expect_operands(1, 1);
    d.op.d = d.destination(0, 4);
    d.set(activemask);
}
void decode_elect(Decoder& d) {
    d.take("sync");
    d.expect_operands(2, 2);
    d.op.a = d.must(d.operand(1), 4);
    d.op.d = d.destination(0, 4);
    d.op.e = d.predicate_destination_second(0);
    d.set(elect);
}
void decode_movmatrix(Decoder& d) {
    for (std::string_view part : {"sync", "aligned", "m8n8", "trans"}) d.take(part);
    d.take_type();
    d.expect_operands(2, 2);
    d.op.a = d.source(1, 4);
    d.op.d = d.destination(0, 4);
    d.op.defined_rule = all_or_none;
    d.set(movmatrix);
}

}  // namespace vgpu
