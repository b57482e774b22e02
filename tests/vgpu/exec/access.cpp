// Every request to memory passes here: where its lanes point, whether they may, what it costs, and what it races with.
#include <algorithm>

#include "exec/worker.h"

namespace vgpu {

void request_addresses(Warp& w, const Op& o, uint64_t* address) {
    if (o.flags & kAddress32) {
        const uint32_t* a = row<uint32_t>(w, o.a);
        for (int i = 0; i < 32; ++i) address[i] = uint32_t(a[i] + uint32_t(o.imm));
    } else {
        const uint64_t* a = row<uint64_t>(w, o.a);
        for (int i = 0; i < 32; ++i) address[i] = a[i] + o.imm;
    }
}

uint32_t next_window(uint32_t mask, const uint64_t* generic, uint64_t* address, Space* space) {
    uint64_t tag = generic[first_lane(mask)] & kTagMask;
    *space = tag == kSharedTag  ? Space::shared
             : tag == kLocalTag ? Space::local
             : tag == kParamTag ? Space::param
                                : Space::global;
    uint64_t strip = *space == Space::global ? 0 : kTagMask;
    uint32_t same = 0;
    VGPU_FOR_LANES(i, mask) {
        uint64_t t = generic[i] & kTagMask;
        bool tagged = t == kSharedTag || t == kLocalTag || t == kParamTag;
        if (*space == Space::global ? tagged : t != tag) continue;
        same |= 1u << i;
        address[i] = generic[i] & ~strip;
    }
    return same;
}

const Allocation* find_allocation(Worker& worker, uint64_t address) {
    for (int k = 0; k < 4; ++k) {
        const Allocation* a = worker.recent[k];
        if (a && address - a->base < a->size) {
            if (k) std::swap(worker.recent[k], worker.recent[k - 1]);
            return a;
        }
    }
    const auto& all = worker.launch.allocations;
    auto it =
        std::upper_bound(all.begin(), all.end(), address, [](uint64_t v, const Allocation* a) { return v < a->base; });
    if (it == all.begin()) return nullptr;
    const Allocation* a = *--it;
    if (address - a->base >= a->size) return nullptr;
    worker.recent[3] = a;
    return a;
}

AccessKind access_kind(const Warp& w, const Access& a) {
    AccessKind k;
    k.write = a.write;
    k.atomic = a.atomic;
    k.id = uint8_t(2 * w.slot + a.async);
    k.time = a.async ? w.ticket : w.time;
    k.strict_warp = w.worker->launch.options.strict_warp;
    k.request = uint16_t(++w.worker->requests);
    k.waited = w.waited;
    return k;
}

void report_race(Warp& w, const Op& o, int lane, const char* space, uint64_t address, bool write, const Racer& r) {
    std::string who = r.async ? "an asynchronous copy of " : "";
    if (r.same_warp)
        who += "another lane of this warp";
    else {
        uint32_t x = r.cluster % w.worker->launch.config.grid.x, rest = r.cluster / w.worker->launch.config.grid.x;
        who += "warp " + std::to_string(r.slot) + " of block (" + std::to_string(x) + "," +
               std::to_string(rest % w.worker->launch.config.grid.y) + "," +
               std::to_string(rest / w.worker->launch.config.grid.y) + ")";
    }
    report(w, o, lane, r.same_warp && !r.async ? "warp-race" : "race",
           std::string(write ? "write to " : "read of ") + space + " memory at " + hex(address) +
               " is not ordered after the " + (r.write ? "write" : "read") + " by " + who);
}

namespace {

bool misaligned(Warp& w, const Op& o, uint32_t mask, const uint64_t* address, uint32_t align) {
    uint64_t any = 0;
    for (int i = 0; i < 32; ++i) any |= mask >> i & 1 ? address[i] : 0;
    if ((any & (align - 1)) == 0) return false;
    VGPU_FOR_LANES(i, mask) {
        if ((address[i] & (align - 1)) == 0) continue;
        report(w, o, int(i), "misaligned",
               "address " + hex(address[i]) + " is not a multiple of " + std::to_string(align), true);
        break;
    }
    return true;
}

void bad_global(Warp& w, const Op& o, int lane, uint64_t address, const Access& a) {
    Memory& m = w.worker->launch.memory;
    const Allocation* near = m.find_any(reinterpret_cast<void*>(address));
    const char* code = near && near->freed && near->contains(address, 1) ? "use-after-free" : "oob";
    std::string where = m.describe(address);
    if (!near && where.find("ordinary host memory") != std::string::npos) code = "host-pointer";
    report(w, o, lane, code,
           std::string(a.write ? "write" : "read") + " of " + std::to_string(a.bytes) + " bytes at " + hex(address) +
               ": " + where,
           true);
}

// The pattern of a request relative to its first lane; true if it equals the instruction's last one.
bool same_pattern(Profile& p, uint32_t mask, const uint64_t* address, uint32_t phase, uint32_t* delta) {
    uint64_t first = address[first_lane(mask)];
    for (int i = 0; i < 32; ++i) delta[i] = mask >> i & 1 ? uint32_t(address[i] - first) : 0;
    return p.pattern_mask == mask && p.pattern_phase == phase && std::memcmp(delta, p.pattern, sizeof p.pattern) == 0;
}

void count_sectors(Profile& p, uint32_t mask, const uint64_t* address, uint32_t bytes) {
    uint32_t delta[32], phase = uint32_t(address[first_lane(mask)] & 31);
    if (!same_pattern(p, mask, address, phase, delta)) {
        uint64_t sector[64], unique[32];
        int n = 0, m = 0;
        VGPU_FOR_LANES(i, mask) {
            for (uint64_t s = address[i] >> 5; s <= (address[i] + bytes - 1) >> 5; ++s)
                if (n < 64) sector[n++] = s;
            unique[m++] = address[i];
        }
        std::sort(sector, sector + n);
        std::sort(unique, unique + m);
        p.pattern_cost = uint32_t(std::unique(sector, sector + n) - sector);
        uint64_t covered = 0, end = 0;  // distinct bytes
        for (int i = 0; i < m; ++i) {
            uint64_t from = std::max(unique[i], end), to = unique[i] + bytes;
            if (to > from) covered += to - from, end = to;
        }
        p.pattern_min = uint32_t((covered + 31) / 32);
        p.pattern_mask = mask;
        p.pattern_phase = phase;
        std::memcpy(p.pattern, delta, sizeof delta);
    }
    p.sectors += p.pattern_cost;
    p.sectors_min += p.pattern_min;
    p.global_bytes += uint64_t(bytes) * uint32_t(__builtin_popcount(mask));
}

// Wavefronts of some lanes of a request, and the fewest that so many distinct words can take: the most distinct units
// (what one lane asks for, a word at least) that fall into the same banks. Lanes are aligned, so units do not straddle.
void count_phase(uint32_t mask, const uint64_t* address, uint32_t unit, uint32_t* cost, uint32_t* least) {
    const uint32_t places = 128 / unit;
    uint32_t held[32][32], count[32] = {}, distinct = 0, most = 0;
    VGPU_FOR_LANES(i, mask) {
        const uint32_t mine = uint32_t(address[i] / unit), place = mine % places;
        uint32_t k = 0;
        while (k < count[place] && held[place][k] != mine) ++k;
        if (k < count[place]) continue;
        held[place][k] = mine;
        most = std::max(most, ++count[place]);
        ++distinct;
    }
    *cost += most;
    *least += (distinct * unit + 127) / 128;
}

// Phases of 32, 16 or 8 lanes for accesses of up to 4, 8 or 16 bytes; wider ones take several requests' worth.
void count_wavefronts(Profile& p, uint32_t mask, const uint64_t* address, uint32_t bytes) {
    uint32_t delta[32], phase = uint32_t(address[first_lane(mask)] & 127) | 0x1000;
    if (!same_pattern(p, mask, address, phase, delta)) {
        const uint32_t unit = bytes <= 4 ? 4 : std::min(bytes, 16u), step = 128 / unit;
        uint32_t cost = 0, least = 0;
        for (uint32_t part = 0; part < bytes; part += unit) {
            uint64_t at[32];
            VGPU_FOR_LANES(i, mask) at[i] = address[i] + part;
            for (uint32_t from = 0; from < 32; from += step) {
                const uint32_t lanes = mask & (step == 32 ? ~0u : ((1u << step) - 1) << from);
                if (lanes) count_phase(lanes, at, unit, &cost, &least);
            }
        }
        p.pattern_cost = cost;
        p.pattern_min = least;
        p.pattern_mask = mask;
        p.pattern_phase = phase;
        std::memcpy(p.pattern, delta, sizeof delta);
    }
    p.wavefronts += p.pattern_cost;
    p.wavefronts_min += p.pattern_min;
    p.shared_bytes += uint64_t(bytes) * uint32_t(__builtin_popcount(mask));
}

}  // namespace

bool access_global(Warp& w, const Op& o, uint32_t mask, const uint64_t* address, const Access& a, Target& t) {
    Worker& worker = *w.worker;
    if (misaligned(w, o, mask, address, a.align)) return false;
    t.mask = mask;
    t.counted = worker.counters && !a.constant;
    uint64_t low = ~0ull, high = 0;
    for (int i = 0; i < 32; ++i) {
        uint64_t v = address[i];
        low = mask >> i & 1 && v < low ? v : low;
        high = mask >> i & 1 && v > high ? v : high;
        t.data[i] = reinterpret_cast<uint8_t*>(v);
    }
    const Allocation* owner = find_allocation(worker, low);
    if (a.write && owner && owner->kind == MemKind::module_constant) {
        report(w, o, first_lane(mask), "oob", "write to constant memory", true);
        return false;
    }
    AccessKind kind = access_kind(w, a);
    uint32_t cluster = w.block->cluster->linear;
    auto check = [&](const Allocation* owner, uint32_t lanes) {
        if (!owner->touched.load(std::memory_order_relaxed)) owner->touched.store(true, std::memory_order_relaxed);
        if (!worker.races || !owner->shadow || a.constant || kind.time >= 0xffff) return;
        Racer racer;
        const int lane = global_request(*owner->shadow, lanes, address, owner->base, a.bytes, kind, worker.launch.id,
                                        cluster, w.clock, racer);
        if (lane < 0) return;
        racer.same_warp = racer.cluster == cluster && racer.slot == w.slot;
        report_race(w, o, lane, "global", address[lane], a.write, racer);
    };
    if (owner && owner->contains(high, a.bytes)) {
        uint64_t shift = reinterpret_cast<uint64_t>(owner->state) - owner->base;
        for (int i = 0; i < 32; ++i) t.state[i] = reinterpret_cast<uint8_t*>(address[i] + shift);
        check(owner, mask);
    } else {
        if (!worker.launch.options.bounds) t.counted = false;  // some lanes may have no place to be counted in
        VGPU_FOR_LANES(i, mask) {
            const Allocation* own = find_allocation(worker, address[i]);
            if (!own || !own->contains(address[i], a.bytes)) {
                if (!worker.launch.options.bounds) {
                    t.state[i] = nullptr;
                    continue;
                }
                bad_global(w, o, int(i), address[i], a);
                return false;
            }
            t.state[i] = own->state + (address[i] - own->base);
            check(own, 1u << i);
        }
    }
    if (worker.counters && !a.constant) count_sectors(worker.profile[o.pc], mask, address, a.bytes);
    return true;
}

bool access_shared(Warp& w, const Op& o, uint32_t mask, const uint64_t* address, const Access& a, Target& t) {
    Worker& worker = *w.worker;
    if (misaligned(w, o, mask, address, a.align)) return false;
    Block& b = *w.block;
    const uint32_t base = shared_base(b.rank), size = worker.launch.shared_bytes;
    t.mask = mask;
    t.counted = false;
    const uint64_t data = reinterpret_cast<uint64_t>(b.shared.data()),
                   state = reinterpret_cast<uint64_t>(b.shared_state.data());
    uint32_t bad = 0;
    uint32_t offset[32];
    for (int i = 0; i < 32; ++i) {
        uint64_t at = address[i] - base;
        offset[i] = uint32_t(at);
        bool ok = address[i] >= base && at < size && size - at >= a.bytes;
        bad |= uint32_t(!ok) << i;
        t.data[i] = reinterpret_cast<uint8_t*>(data + at);
        t.state[i] = reinterpret_cast<uint8_t*>(state + at);
    }
    if (bad & mask) {
        int i = first_lane(bad & mask);
        std::string text = std::string(a.write ? "write" : "read") + " of " + std::to_string(a.bytes) +
                           " bytes at shared offset " + std::to_string(int32_t(offset[i])) + "; this launch has " +
                           std::to_string(size) + " bytes of shared memory (" +
                           std::to_string(size - std::min(size, worker.launch.config.dynamic_smem)) + " static + " +
                           std::to_string(worker.launch.config.dynamic_smem) + " dynamic)";
        report(w, o, i, "oob", text, true);
        return false;
    }
    if (worker.races) {
        AccessKind kind = access_kind(w, a);
        Racer racer;
        const int lane = shared_request(b.shadow, mask, offset, a.bytes, kind, w.clock.own, racer);
        if (lane >= 0) {
            racer.cluster = b.cluster->linear;
            racer.same_warp = racer.slot == w.slot;
            report_race(w, o, lane, "shared", offset[lane], a.write, racer);
        }
    }
    if (worker.counters) count_wavefronts(worker.profile[o.pc], mask, address, a.bytes);
    return true;
}

bool access_local(Warp& w, const Op& o, uint32_t mask, const uint64_t* address, const Access& a, Target& t) {
    if (misaligned(w, o, mask, address, a.align)) return false;
    t.mask = mask;
    t.counted = false;
    VGPU_FOR_LANES(i, mask) {
        uint64_t at = address[i] - kLocalSkip;
        if (at >= w.local_bytes || w.local_bytes - at < a.bytes) {
            report(w, o, int(i), "oob",
                   std::string(a.write ? "write" : "read") + " of " + std::to_string(a.bytes) +
                       " bytes at local offset " + std::to_string(int64_t(at)) + "; this thread has " +
                       std::to_string(w.local_bytes) + " bytes of local memory",
                   true);
            return false;
        }
        t.data[i] = w.local + size_t(i) * w.local_stride + at;
        t.state[i] = w.local_state + size_t(i) * w.local_stride + at;
    }
    w.worker->profile[o.pc].local_bytes += uint64_t(a.bytes) * uint32_t(__builtin_popcount(mask));
    return true;
}

bool access_param(Warp& w, const Op& o, uint32_t mask, const uint64_t* address, const Access& a, Target& t) {
    if (misaligned(w, o, mask, address, a.align)) return false;
    std::vector<uint8_t>& params = w.worker->launch.params;
    t.mask = mask;
    t.counted = false;
    VGPU_FOR_LANES(i, mask) {
        if (address[i] >= params.size() || params.size() - address[i] < a.bytes || a.write) {
            report(w, o, int(i), "oob",
                   a.write ? "write to parameter memory"
                           : "read of " + std::to_string(a.bytes) + " bytes at parameter offset " +
                                 std::to_string(address[i]) + " of " + std::to_string(params.size()),
                   true);
            return false;
        }
        t.data[i] = params.data() + address[i];
        t.state[i] = nullptr;
    }
    return true;
}

bool access_space(Warp& w, const Op& o, Space space, uint32_t mask, const uint64_t* address, const Access& a,
                  Target& t) {
    switch (space) {
        case Space::shared:
            return access_shared(w, o, mask, address, a, t);
        case Space::local:
            return access_local(w, o, mask, address, a, t);
        case Space::param:
            return access_param(w, o, mask, address, a, t);
        case Space::constant: {
            Access c = a;
            c.constant = true;
            return access_global(w, o, mask, address, c, t);
        }
        default:
            return access_global(w, o, mask, address, a, t);
    }
}

namespace {
template <class T>
bool all_defined(const uint8_t* s) {
    T v;
    std::memcpy(&v, s, sizeof v);
    constexpr T want = T(~T(0)) / 0xff;
    return (v & want) == want;
}
template <class T>
void mark(uint8_t* s, uint8_t set, uint8_t clear) {
    T v;
    std::memcpy(&v, s, sizeof v);
    constexpr T one = T(~T(0)) / 0xff;
    T n = T((v | T(one * set)) & T(~T(one * clear)));
    if (n != v) std::memcpy(s, &n, sizeof v);
}
template <class T>
uint32_t defined_typed(const Target& t, uint32_t offset, uint32_t bytes, bool mark_read) {
    uint32_t r = 0;
    VGPU_FOR_LANES(i, t.mask) {
        if (!t.state[i]) {
            r |= 1u << i;
            continue;
        }
        uint8_t* s = t.state[i] + offset;
        bool ok = true;
        for (uint32_t b = 0; b < bytes; b += sizeof(T)) {
            ok &= all_defined<T>(s + b);
            if (mark_read) mark<T>(s + b, kRead, 0);
        }
        r |= uint32_t(ok) << i;
    }
    return r;
}
template <class T>
void set_typed(const Target& t, uint32_t offset, uint32_t bytes, uint32_t defined) {
    uint8_t also = t.counted ? kWritten : 0;
    VGPU_FOR_LANES(i, t.mask) {
        if (!t.state[i]) continue;
        uint8_t* s = t.state[i] + offset;
        for (uint32_t b = 0; b < bytes; b += sizeof(T))
            if (defined >> i & 1)
                mark<T>(s + b, kDefined | also, 0);
            else
                mark<T>(s + b, also, kDefined);
    }
}
}  // namespace

uint32_t defined_lanes(const Target& t, uint32_t offset, uint32_t bytes) {
    const bool read = t.counted;
    switch (bytes) {
        case 1:
            return defined_typed<uint8_t>(t, offset, bytes, read);
        case 2:
            return defined_typed<uint16_t>(t, offset, bytes, read);
        case 4:
            return defined_typed<uint32_t>(t, offset, bytes, read);
        default:
            return bytes % 8 == 0 ? defined_typed<uint64_t>(t, offset, bytes, read)
                                  : defined_typed<uint8_t>(t, offset, bytes, read);
    }
}
void set_defined(const Target& t, uint32_t offset, uint32_t bytes, uint32_t defined) {
    switch (bytes) {
        case 1:
            return set_typed<uint8_t>(t, offset, bytes, defined);
        case 2:
            return set_typed<uint16_t>(t, offset, bytes, defined);
        case 4:
            return set_typed<uint32_t>(t, offset, bytes, defined);
        default:
            return bytes % 8 == 0 ? set_typed<uint64_t>(t, offset, bytes, defined)
                                  : set_typed<uint8_t>(t, offset, bytes, defined);
    }
}

}  // namespace vgpu
