// Block barriers: bar and barrier (sync, arrive, red), bar.warp.sync.
#include <algorithm>
#include <iterator>

#include "exec/classes.h"
#include "exec/worker.h"

namespace vgpu {

void advance_clock(Warp& w) { w.clock.own[2 * w.slot] = ++w.time; }

namespace {

enum Form : uint8_t { form_sync, form_arrive, form_popc, form_and, form_or };

uint32_t live_threads(const Block& b) {  // whole warps, as arrivals count
    uint32_t n = 0;
    for (const Warp& w : b.warps) n += w.live ? 32 : 0;
    return n;
}
bool complete(const Block& b, const Barrier& r) {
    if (!r.live || r.expected) return r.live && r.arrived >= r.expected;
    for (const Warp& w : b.warps)
        if (w.live & ~r.lanes[w.index]) return false;
    return true;
}

void finish(Block& b, uint32_t number) {
    Barrier& r = b.barriers[number];
    r.published = r.clock;
    r.result_popc = r.popc;
    r.result_all = r.all;
    r.result_any = r.any;
    r.result_defined = r.defined;
    for (Warp& w : b.warps)
        if (r.waiting >> w.index & 1)
            for (Group& g : w.groups)
                if (g.state == State::barrier && g.need == number) g.state = State::run, g.released = true;
    r.live = false;
    r.arrived = r.waiting = r.seen = r.popc = 0;
    r.all = r.defined = true;
    r.any = false;
    std::fill(std::begin(r.lanes), std::end(r.lanes), 0u);
    r.clock.clear();
}

Next bar(Warp& w, const Op& o, uint32_t mask) {
    Group& g = w.groups[w.current];
    Block& b = *w.block;
    Form form = Form(o.mode);
    uint32_t number = row<uint32_t>(w, o.a)[first_lane(mask)];
    VGPU_FOR_LANES(i, mask)
    if (row<uint32_t>(w, o.a)[i] != number) {
        report(w, o, int(i), "barrier", "lanes of one warp name different barriers", true);
        return Next::failed;
    }
    if (number >= 16) {
        report(w, o, first_lane(mask), "barrier", "barrier " + std::to_string(number) + " does not exist (0 to 15)",
               true);
        return Next::failed;
    }
    Barrier& r = b.barriers[number];
    if (g.released) {  // the phase is complete
        g.released = false;
        g.need = 0;
        w.clock.join(r.published);
        w.clock.own[2 * w.slot] = w.time;
        if (form == form_popc) VGPU_FOR_LANES(i, mask) row<uint32_t>(w, o.d)[i] = r.result_popc;
        if (form == form_and) write_predicate(w, o.d, mask, r.result_all ? ~0u : 0);
        if (form == form_or) write_predicate(w, o.d, mask, r.result_any ? ~0u : 0);
        if (form >= form_popc) write_defined(w, o.x->ids[0], mask, r.result_defined ? ~0u : 0);
        return Next::step;
    }
    uint32_t whole = o.flags & kAligned ? w.live : mask;
    if (whole & ~g.mask) {  // .aligned: the lanes of the warp arrive together
        g.state = State::collect;
        g.need = w.live;
        return Next::blocked;
    }
    if (o.flags & kAligned && (w.live & ~mask)) {
        report(w, o, first_lane(mask), "barrier", "some lanes of the warp skip an aligned barrier by their guard",
               true);
        return Next::failed;
    }
    uint32_t expected = 0;
    if (o.b != kNoRow) {
        expected = row<uint32_t>(w, o.b)[first_lane(mask)];
        if (expected == 0 || expected % 32 || expected > 32 * b.warps.size()) {
            report(w, o, first_lane(mask), "barrier",
                   "thread count " + std::to_string(expected) + " of barrier " + std::to_string(number) +
                       " is no multiple of 32 up to the block's " + std::to_string(32 * b.warps.size()),
                   true);
            return Next::failed;
        }
    }
    if (r.live && r.expected != expected) {
        report(w, o, first_lane(mask), "barrier",
               "barrier " + std::to_string(number) + " is in use with " +
                   (r.expected ? std::to_string(r.expected) : "all") + " threads, and this arrival expects " +
                   (expected ? std::to_string(expected) : "all"),
               true);
        return Next::failed;
    }
    if (!r.live) r.live = true, r.expected = expected, r.first_pc = o.pc;
    if (r.seen >> w.index & 1 && o.flags & kAligned) {
        report(w, o, first_lane(mask), "barrier",
               "warp arrives twice in one phase of barrier " + std::to_string(number), true);
        return Next::failed;
    }
    r.seen |= 1u << w.index;
    ++w.worker->barriers;
    // A warp that is there with all the lanes it has counts as a whole one.
    uint32_t before = r.lanes[w.index], now = before | (o.flags & kAligned ? ~0u : mask);
    if ((now & w.live) == w.live) now = ~0u;
    r.arrived += uint32_t(__builtin_popcount(now & ~before));
    r.lanes[w.index] = now;
    if (r.clock.own.empty()) r.clock.own.resize(w.clock.own.size());
    r.clock.join(w.clock);
    advance_clock(w);
    if (form >= form_popc) {
        uint32_t p = read_predicate(w, o.c) ^ uint32_t(o.imm);
        r.popc += uint32_t(__builtin_popcount(p & mask));
        r.all &= (p & mask) == mask;
        r.any |= (p & mask) != 0;
        r.defined &= (mask & ~read_defined(w, o.x->ids[1])) == 0;
    }
    uint32_t limit = expected ? expected : live_threads(b);
    if (r.arrived > limit) {
        report(w, o, first_lane(mask), "barrier",
               "more threads arrive at barrier " + std::to_string(number) + " than the " + std::to_string(limit) +
                   " it expects",
               true);
        return Next::failed;
    }
    if (form != form_arrive) {
        r.waiting |= 1u << w.index;
        g.state = State::barrier;
        g.need = number;
    }
    if (complete(b, r)) finish(b, number);
    return form == form_arrive ? Next::step : Next::blocked;
}

// Lanes of the mask meet, wherever in the code they stand; pick_group() lets them go.
Next bar_warp(Warp& w, const Op& o, uint32_t mask) {
    Group& g = w.groups[w.current];
    if (g.released) {  // pick_group() has advanced the clock, once for all groups that met
        g.released = false;
        return Next::step;
    }
    uint32_t need = 0, lanes = mask;
    VGPU_FOR_LANES(i, mask) {
        uint32_t m = row<uint32_t>(w, o.a)[i];
        need |= m;
        if (!(m >> i & 1)) {
            report(w, o, int(i), "collective", "lane is not in its own member mask " + hex(m), true);
            return Next::failed;
        }
    }
    if ((need & w.live & ~lanes) == 0) {
        advance_clock(w);
        return Next::step;
    }
    g.state = State::warp_barrier;
    g.need = need;
    return Next::blocked;
}

}  // namespace

void warp_finished(Warp& w) {
    Block& b = *w.block;
    --b.live_warps;
    --b.cluster->live_warps;
    for (uint32_t i = 0; i < 16; ++i)
        if (b.live_warps && complete(b, b.barriers[i])) finish(b, i);
}

void decode_barrier(Decoder& d) {
    if (d.take("warp")) {
        d.take("sync");
        d.expect_operands(1, 1);
        d.op.a = d.must(d.operand(0), 4, Type::b32);
        return d.set(bar_warp);
    }
    bool bar_name = d.in.parts[0] == "bar";
    d.take("cta");
    int form = d.take_one({"sync", "arrive", "red"});
    if (d.take("aligned") || bar_name) d.op.flags |= kAligned;
    size_t at = 0;
    d.op.mode = uint8_t(form);
    if (form == 2) {
        int op = d.take_one({"popc", "and", "or"});
        d.take_type();
        d.op.mode = uint8_t(form_popc + op);
        d.own_destinations = true;  // undefined for all if the predicate of one is
        d.op.d = op == 0 ? d.destination(0, 4) : d.predicate_destination(0);
        at = 1;
    }
    d.expect_operands(at + 1 + (form == 2), at + 2 + (form == 2));
    size_t last = d.operands() - (form == 2);
    d.op.a = d.must(d.operand(at), 4, Type::u32);
    if (last > at + 1) d.op.b = d.must(d.operand(at + 1), 4, Type::u32);
    if (form == 2) {
        bool negated;
        d.op.c = d.predicate(last, &negated);
        d.op.imm = negated ? ~0u : 0;
        d.extra().ids = {d.id(d.operand(0)), d.id(d.operand(last))};
    }
    if (form == 1 && d.op.b == kNoRow) d.fail("arrive needs a thread count");
    d.set(bar);
}

}  // namespace vgpu
