// The instruction loop of a warp: groups of lanes, lowest pc first, merged where they meet.
#include "exec/worker.h"

namespace vgpu {
namespace {

constexpr uint32_t kPatience = 256;  // backward branches of a group before others of its warp get a turn

// Index of the group to run, or -1. Groups whose wait is over become runnable here.
int pick_group(Warp& w) {
    if (w.groups.size() == 1 && w.groups[0].state == State::run) return 0;
    // bar.warp.sync: lanes may stand at different ones.
    uint32_t at_warp_barrier = 0;
    for (const Group& g : w.groups)
        if (g.state == State::warp_barrier) at_warp_barrier |= g.mask;
    bool met = false;
    if (at_warp_barrier)
        for (Group& g : w.groups)
            if (g.state == State::warp_barrier && (g.need & w.live & ~at_warp_barrier) == 0) {
                g.state = State::run;
                g.need = 0;
                g.released = met = true;
            }
    if (met) advance_clock(w);
    // Split: lanes that have parted run in any order, as independent threads may.
    const bool split = w.worker->launch.options.split;
    uint32_t runnable = 0;
    int best = -1;
    for (size_t i = 0; i < w.groups.size(); ++i) {
        Group& g = w.groups[i];
        if (g.state == State::collect && (g.need & w.live & ~g.mask) == 0) g.state = State::run;
        if (g.state != State::run) continue;
        if (split) {
            if (w.worker->random.below(++runnable) == 0) best = int(i);
            continue;
        }
        if (best < 0) {
            best = int(i);
            continue;
        }
        Group& b = w.groups[best];
        uint32_t turn = g.backward / kPatience, best_turn = b.backward / kPatience;
        if (turn < best_turn || (turn == best_turn && g.pc < b.pc)) best = int(i);
    }
    return best;
}
// Nearest pc ahead at which another group stands.
uint32_t merge_limit(const Warp& w, int current) {
    uint32_t limit = ~0u, pc = w.groups[current].pc;
    for (size_t i = 0; i < w.groups.size(); ++i) {
        const Group& g = w.groups[i];
        if (int(i) == current || (g.state != State::run && g.state != State::collect)) continue;
        if (g.pc >= pc && g.pc < limit) limit = g.pc;
    }
    return limit;
}
bool merge(Warp& w, int current) {
    bool merged = false;
    for (size_t i = 0; i < w.groups.size();) {
        Group &a = w.groups[current], &g = w.groups[i];
        if (int(i) == current || g.pc != a.pc || (g.state != State::run && g.state != State::collect) || g.released ||
            a.released) {
            ++i;
            continue;
        }
        a.mask |= g.mask;
        a.backward = std::min(a.backward, g.backward);
        w.groups.erase(w.groups.begin() + i);
        if (int(i) < current) --current;
        w.current = uint32_t(current);
        merged = true;
    }
    if (w.groups.size() == 1) w.groups[0].backward = 0;
    return merged;
}
void drop_empty(Warp& w) {
    for (size_t i = 0; i < w.groups.size();)
        if (w.groups[i].mask == 0)
            w.groups.erase(w.groups.begin() + i);
        else
            ++i;
}

void undefined_value(Warp& w, const Op& o, uint32_t lanes, const char* what) {
    report(w, o, first_lane(lanes), "undefined", std::string("a value that was never written is used as ") + what);
}

template <bool kDefined>
bool run(Warp& w, uint32_t quantum) {
    Worker& worker = *w.worker;
    const Op* code = worker.launch.image.code.data();
    Profile* profile = worker.profile.data();
    const uint32_t full = quantum;
    uint32_t* defined = w.defined;
    bool executed = false;
    auto done = [&] {
        worker.executed += full - quantum;
        w.executed += full - quantum;
        return executed;
    };
    while (quantum) {
        int index = pick_group(w);
        if (index < 0) return done();
        w.current = uint32_t(index);
        uint32_t limit = w.groups.size() > 1 ? merge_limit(w, index) : ~0u;
        Group* g = &w.groups[index];
        uint32_t patience = w.groups.size() > 1 ? g->backward / kPatience : 0;
        if (g->pc == limit) {
            if (merge(w, index)) continue;
            limit = ~0u;
        }
        for (;;) {
            const uint32_t pc = g->pc;
            if (pc >= limit) {
                if (pc == limit) merge(w, int(w.current));
                break;
            }
            const Op& op = code[pc];
            uint32_t mask = g->mask;
            if (op.guard != kNoRow) {
                if (kDefined && (mask & ~defined[op.guard_id]))
                    undefined_value(w, op, mask & ~defined[op.guard_id], "the guard of an instruction");
                mask &= *row<uint32_t>(w, op.guard) ^ op.guard_flip;
                if (!mask) {
                    ++g->pc;
                    executed = true;
                    if (!--quantum) return done();
                    continue;
                }
            }
            if (kDefined) {
                const uint16_t* id = op.ids;
                uint32_t both = mask;
                for (const uint16_t* end = id + op.sources; id != end; ++id) both &= defined[*id];
                if (op.musts) {
                    uint32_t must = mask;
                    for (const uint16_t* end = id + op.musts; id != end; ++id) must &= defined[*id];
                    if (must != mask)
                        undefined_value(w, op, mask & ~must,
                                        op.cls == Class::control ? "a branch target" : "an address or operand");
                }
                if (op.destinations) {
                    if (both != mask && op.defined_rule) both = op.defined_rule(w, op, mask, both);
                    for (const uint16_t* end = id + op.destinations; id != end; ++id)
                        defined[*id] = (defined[*id] & ~mask) | (both & mask);
                }
            }
            Profile& p = profile[pc];
            Next next = op.fn(w, op, mask);
            if (next == Next::step) {
                ++p.executed;
                p.lanes += uint32_t(__builtin_popcount(mask));
                executed = true;
                ++g->pc;
                if (!--quantum) return done();
                continue;
            }
            if (next == Next::blocked) break;
            if (next == Next::failed) return done();
            ++p.executed;
            p.lanes += uint32_t(__builtin_popcount(mask));
            executed = true;
            --quantum;
            if (next == Next::yield) {
                ++g->pc;
                g->backward += kPatience;
                return done();
            }
            if (next == Next::exited) {
                if (w.groups[w.current].mask) ++w.groups[w.current].pc;
                drop_empty(w);
                if (w.live == 0) {
                    w.groups.clear();
                    warp_finished(w);
                    return done();
                }
                break;
            }
            // jumped
            if (!quantum) return done();
            if (w.groups.size() > 1) {
                if (w.groups[w.current].backward / kPatience != patience) break;
                break;
            }
            g = &w.groups[0];
            limit = ~0u;
        }
        if (worker.launch.stop.load(std::memory_order_relaxed)) return done();
    }
    return done();
}

}  // namespace

bool run_warp(Warp& w, uint32_t quantum) {
    return w.worker->definedness ? run<true>(w, quantum) : run<false>(w, quantum);
}

std::string describe(const Warp& w) {
    std::string s = "warp " + std::to_string(w.index);
    for (const Group& g : w.groups) {
        const OpInfo& at = w.worker->launch.image.where[g.pc];
        s += "; lanes " + hex(g.mask) + " at PTX line " + std::to_string(at.line) + " `" + *at.opcode + "`";
        if (g.state == State::collect || g.state == State::warp_barrier)
            s += " waiting for lanes " + hex(g.need & w.live & ~g.mask);
        if (g.state == State::barrier) s += " waiting at a block barrier";
        if (g.state == State::run) s += " running";
    }
    return s;
}

}  // namespace vgpu
