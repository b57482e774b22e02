// cp.async: copies queue per warp and land by the launch's mode: at issue (eager), at the wait that demands them
// (lazy), or at any moment between (random).
#include <algorithm>

#include "exec/classes.h"
#include "exec/worker.h"

namespace vgpu {
namespace {

void land(Warp& w, CopyItem& item, uint32_t lanes) {
    Block& b = *w.block;
    Target t;
    t.mask = lanes;
    VGPU_FOR_LANES(i, lanes) {
        uint8_t* to = b.shared.data() + item.to[i];
        uint8_t* state = b.shared_state.data() + item.to[i];
        // Whole copies of 16 bytes are all but a few: no call for them.
        if (item.take[i] == 16) {
            std::memcpy(to, reinterpret_cast<const void*>(item.from[i]), 16);
            std::memset(state, kDefined, 16);
        } else {
            if (item.take[i]) std::memcpy(to, reinterpret_cast<const void*>(item.from[i]), item.take[i]);
            std::memset(to + item.take[i], 0, item.bytes - item.take[i]);
            std::memset(state, kDefined, item.bytes);
        }
        const bool track = item.take[i] && w.worker->definedness;
        const Allocation* a = track ? find_allocation(*w.worker, item.from[i]) : nullptr;
        if (!a) continue;
        const uint8_t* from = a->state + (item.from[i] - a->base);
        constexpr uint64_t kOnes = 0x0101010101010101ull;
        uint64_t low = 0, high = 0;
        if (item.take[i] == 16) std::memcpy(&low, from, 8), std::memcpy(&high, from + 8, 8);
        if ((low & high & kOnes) == kOnes) continue;
        for (uint32_t k = 0; k < item.take[i]; ++k)
            if (!(from[k] & kDefined)) state[k] = 0;
    }
    item.flying &= ~lanes;
}

// rows[0]: source size (or kNoRow); imm: source offset; numbers: destination offset, ignore-src
Next copy(Warp& w, const Op& o, uint32_t mask) {
    Worker& worker = *w.worker;
    alignas(32) uint64_t to[32], from[32];
    if (o.flags & kAddress32) {
        for (int i = 0; i < 32; ++i) to[i] = row<uint32_t>(w, o.a)[i] + uint32_t(o.x->numbers[0]);
    } else {
        for (int i = 0; i < 32; ++i) to[i] = row<uint64_t>(w, o.a)[i] + o.x->numbers[0];
    }
    for (int i = 0; i < 32; ++i) from[i] = row<uint64_t>(w, o.b)[i] + o.imm;
    CopyItem item;
    item.mask = item.flying = mask;
    item.pc = o.pc;
    item.bytes = o.size;
    item.ticket = w.ticket;
    uint32_t ignore = o.c == kNoRow ? 0 : read_predicate(w, o.c);
    uint32_t reads = 0;
    VGPU_FOR_LANES(i, mask) {
        uint32_t n = o.e == kNoRow ? o.size : row<uint32_t>(w, o.e)[i];
        if (ignore >> i & 1) n = 0;
        if (n > o.size) {
            report(w, o, int(i), "async",
                   "cp.async source size " + std::to_string(n) + " is larger than the copy of " +
                       std::to_string(o.size) + " bytes",
                   true);
            return Next::failed;
        }
        item.take[i] = uint8_t(n);
        item.group[i] = w.committed[i];
        item.to[i] = uint32_t(to[i] - shared_base(w.block->rank));
        item.from[i] = from[i];
        reads |= uint32_t(n > 0) << i;
    }
    // Checked, counted and ordered at issue: the copy acts with what the issuer knows now.
    Access write;
    write.bytes = write.align = o.size;
    write.write = write.async = true;
    Target target, source;
    if (!access_shared(w, o, mask, to, write, target)) return Next::failed;
    for (uint32_t rest = reads; rest;) {  // lanes with the same source size
        uint32_t n = item.take[first_lane(rest)], same = 0;
        VGPU_FOR_LANES(i, rest) same |= uint32_t(item.take[i] == n) << i;
        Access read;
        read.bytes = n;
        read.align = o.size;
        read.async = true;
        if (!access_global(w, o, same, from, read, source)) return Next::failed;
        if (worker.counters) defined_lanes(source, 0, n);
        rest &= ~same;
    }
    ++worker.async_copies;
    // Until it lands, the destination holds no defined value.
    if (worker.launch.options.async == Options::eager)
        land(w, item, mask);
    else
        set_defined(target, 0, o.size, 0);
    w.copies.push_back(item);  // whether landed or not: what counts is who has waited
    return Next::step;
}

Next commit(Warp& w, const Op&, uint32_t mask) {
    VGPU_FOR_LANES(i, mask)++ w.committed[i];
    ++w.ticket;
    return Next::step;
}
// imm: groups that may stay in flight; mode 1: everything, committed or not.
Next wait(Warp& w, const Op& o, uint32_t mask) {
    if (o.mode) ++w.ticket;  // later copies of other lanes are told apart from those waited for
    uint32_t oldest = w.ticket, of_lane[32];
    std::fill(of_lane, of_lane + 32, w.ticket);
    for (CopyItem& item : w.copies) {
        uint32_t due = 0;
        VGPU_FOR_LANES(i, item.mask & mask) due |= uint32_t(o.mode || item.group[i] + o.imm < w.committed[i]) << i;
        if (due & item.flying) land(w, item, due & item.flying);
        item.mask &= ~due;
        if (item.mask) oldest = std::min(oldest, item.ticket);
        VGPU_FOR_LANES(i, item.mask & mask) of_lane[i] = std::min(of_lane[i], item.ticket);
    }
    while (!w.copies.empty() && !w.copies.front().mask) w.copies.pop_front();
    // The lanes now know of their copies. Other warps learn at a barrier of what every lane has waited for.
    VGPU_FOR_LANES(i, mask) w.waited[i] = std::max(w.waited[i], of_lane[i] - 1);
    uint32_t& known = w.clock.own[2 * w.slot + 1];
    known = std::max(known, oldest - 1);
    return Next::step;
}

}  // namespace

void land_some_copies(Warp& w) {
    for (CopyItem& item : w.copies)
        if (item.flying && w.worker->random.below(3) == 0) {
            uint32_t some = item.flying & uint32_t(w.worker->random.next());
            if (some) land(w, item, some);
        }
}

void check_copies_at_exit(Warp& w, const Op& o, uint32_t lanes) {
    for (CopyItem& item : w.copies)
        if (item.mask & lanes) {
            report(w, o, first_lane(item.mask & lanes), "async",
                   "the thread leaves with cp.async copies in flight (issued at PTX line " +
                       std::to_string(w.worker->launch.image.where[item.pc].line) + ")");
            item.mask &= ~lanes;
        }
}

void decode_cp(Decoder& d) {
    d.take("async");
    if (d.take("commit_group")) {
        d.expect_operands(0, 0);
        return d.set(commit);
    }
    if (d.take("wait_all")) {
        d.expect_operands(0, 0);
        d.op.mode = 1;
        return d.set(wait);
    }
    if (d.take("wait_group")) {
        d.expect_operands(1, 1);
        d.op.imm = d.immediate(0);
        return d.set(wait);
    }
    bool cg = d.take_one({"ca", "cg"}) == 1;
    if (d.take_one({"global", "shared", "shared::cta"}) == 0) d.fail("the destination's space comes first");
    d.take_one({"global"});
    bool hint = d.take("L2::cache_hint");
    d.take_one({"L2::64B", "L2::128B", "L2::256B"});
    d.expect_operands(3, 5);
    uint64_t size = d.immediate(2);
    if ((size != 4 && size != 8 && size != 16) || (cg && size != 16))
        d.fail("copy of " + std::to_string(size) + " bytes");
    // Source first: address() leaves its row in a.
    d.address(1, Space::global);
    d.op.b = d.op.a;
    uint64_t from = d.op.imm;
    if (d.op.flags & kAddress32) d.fail("32-bit global address");
    d.address(0, Space::shared);
    OpExtra& x = d.extra();
    x.numbers = {d.op.imm};
    d.op.imm = from;
    d.op.size = uint8_t(size);
    size_t extra = d.operands() - 3 - (hint ? 1 : 0);
    if (extra > 1) d.fail("operands");
    if (hint && d.register_bytes(d.operand(d.operands() - 1)) != 8) d.fail("the cache policy is of 64 bits");
    if (extra == 1) {
        const Operand& o = d.operand(3);
        bool predicate = o.kind == OperandKind::reg && d.function.registers[o.reg].type == Type::pred;
        if (predicate)
            d.op.c = d.must(o, 0);
        else
            d.op.e = d.must(o, 4, Type::u32);
    }
    d.set(copy);
}

}  // namespace vgpu
