#include "checks/clock.h"

#include <algorithm>

namespace vgpu {

void join(ClockVector& into, const ClockVector& from) {
    if (into.size() < from.size()) into.resize(from.size());
    for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

void Knowledge::clear() {
    std::fill(own.begin(), own.end(), 0);
    foreign.reset();
}
static std::shared_ptr<const Foreign> joined(const std::shared_ptr<const Foreign>& a, const std::shared_ptr<const Foreign>& b) {
    if (!b || a == b) return a;
    if (!a) return b;
    auto both = std::make_shared<Foreign>(*a);
    for (const auto& [cluster, clocks] : *b) {
        auto& mine = (*both)[cluster];
        if (!mine || mine == clocks) {
            mine = clocks;
        } else {
            auto v = std::make_shared<ClockVector>(*mine);
            join(*v, *clocks);
            mine = v;
        }
    }
    return both;
}
void Knowledge::join(const Knowledge& other) {
    vgpu::join(own, other.own);
    foreign = joined(foreign, other.foreign);
}

void SyncTable::release(uint64_t address, uint32_t cluster, const Knowledge& known) {
    auto mine = std::make_shared<Foreign>();
    (*mine)[cluster] = std::make_shared<ClockVector>(known.own);
    std::lock_guard<std::mutex> lock(mutex_);
    auto& word = words_[address];
    word = joined(joined(word, mine), known.foreign);
}
bool SyncTable::acquire(uint64_t address, uint32_t cluster, Knowledge& known) const {
    std::shared_ptr<const Foreign> word;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        auto it = words_.find(address);
        if (it == words_.end()) return false;
        word = it->second;
    }
    auto own = word->find(cluster);
    if (own != word->end()) join(known.own, *own->second);
    if (word->size() > (own != word->end() ? 1u : 0u)) known.foreign = joined(known.foreign, word);
    return true;
}

void SharedShadow::reset(uint32_t bytes) { words.assign((bytes + 3) / 4, SharedWord{}); }

namespace {
// Bytes of word `w` that [offset, offset + bytes) covers.
uint32_t covered(uint64_t w, uint64_t offset, uint64_t bytes) {
    uint64_t from = std::max(offset, w * 4) - w * 4, to = std::min(offset + bytes, w * 4 + 4) - w * 4;
    return ((1u << to) - 1) & ~((1u << from) - 1);
}
bool happened(uint32_t id, uint32_t time, uint32_t me, const ClockVector& known) {
    if (id == me && !(me & 1)) return true;  // program order; copies of one warp are not ordered among themselves
    return known[id] >= time;
}
}  // namespace

void shared_access(SharedShadow& s, uint32_t offset, uint32_t bytes, uint32_t lane, const AccessKind& k, const ClockVector& known, Racer& racer) {
    constexpr uint32_t kMaxTime = (1u << 21) - 1;
    for (uint32_t at = offset / 4; at <= (offset + bytes - 1) / 4; ++at) {
        SharedWord& w = s.words[at];
        uint32_t mine = bytes >= 4 ? 15 : covered(at, offset, bytes);
        bool both_atomic = k.atomic && w.write_atomic;
        if ((w.write_bytes & mine) && !both_atomic) {
            bool ordered = happened(w.write_id, w.write_time, k.id, known);
            if (ordered && k.strict_warp && w.write_id == k.id && w.write_time == k.time && w.write_lane != lane) {
                racer = {true, true, false, true, 0, uint32_t(w.write_id >> 1)};
                return;
            }
            if (!ordered) {
                racer = {true, true, bool(w.write_id & 1), false, 0, uint32_t(w.write_id >> 1)};
                return;
            }
        }
        uint32_t entry = uint32_t(k.id) << 25 | mine << 21 | std::min(k.time, kMaxTime);
        if (k.write) {
            if (!k.atomic || !w.write_atomic)
                for (uint32_t r : w.reads) {
                    if (!r) break;
                    if (!(r >> 21 & 15 & mine)) continue;
                    if (!happened(r >> 25, r & kMaxTime, k.id, known)) {
                        racer = {true, false, bool(r >> 25 & 1), false, 0, r >> 26};
                        return;
                    }
                }
            w.write_time = k.time;
            w.write_id = k.id;
            w.write_bytes = uint8_t(mine);
            w.write_lane = uint8_t(lane);
            w.write_atomic = k.atomic;
            if (mine == 15) w.reads = {};
        } else if (!k.atomic) {
            // A slot of the same warp, a free one, one that happened before this read, or else the oldest: then a race
            // with that reader can go unseen, never the reverse.
            uint32_t slot = 0, n = uint32_t(w.reads.size());
            for (; slot < n; ++slot) {
                uint32_t r = w.reads[slot];
                if (!r || (r >> 25 == k.id && ((r >> 21 & 15) | mine) == mine)) break;
            }
            if (slot == n)
                for (slot = 0; slot < n; ++slot) {
                    uint32_t r = w.reads[slot];
                    if (((r >> 21 & 15) | mine) == mine && known[r >> 25] >= (r & kMaxTime)) break;
                }
            if (slot == n) slot = (k.id >> 1) % n;
            w.reads[slot] = entry;
        }
    }
}

GlobalShadow::GlobalShadow(uint64_t bytes) : pages((bytes / 4 + kPageWords) / kPageWords + 1) {
    for (auto& p : pages) p.store(nullptr, std::memory_order_relaxed);
}
GlobalShadow::~GlobalShadow() {
    for (auto& p : pages) delete[] p.load();
}
GlobalShadow::Word* GlobalShadow::page(uint64_t index) {
    Word* p = pages[index].load(std::memory_order_acquire);
    if (p) return p;
    Word* fresh = new Word[kPageWords];
    if (pages[index].compare_exchange_strong(p, fresh)) return fresh;
    delete[] fresh;
    return p;
}

namespace {
// launch(12) | cluster(24) | id(7) | atomic(1) | bytes(4) | time(16)
uint64_t epoch(uint32_t launch, uint32_t cluster, uint32_t id, bool atomic, uint32_t bytes, uint32_t time) {
    return uint64_t(launch & 0xfff) << 52 | uint64_t(cluster & 0xffffff) << 28 | uint64_t(id) << 21 | uint64_t(atomic) << 20 | uint64_t(bytes) << 16 | time;
}
bool happened_before(uint64_t e, uint32_t launch, uint32_t cluster, const AccessKind& k, const Knowledge& known) {
    if (e >> 52 != (launch & 0xfff)) return true;
    uint32_t other = e >> 28 & 0xffffff, id = e >> 21 & 0x7f, time = e & 0xffff;
    if (other == (cluster & 0xffffff)) return happened(id, time, k.id, known.own);
    if (!known.foreign) return false;
    auto it = known.foreign->find(other);
    return it != known.foreign->end() && id < it->second->size() && (*it->second)[id] >= time;
}
}  // namespace

void global_access(GlobalShadow& s, uint64_t offset, uint32_t bytes, const AccessKind& k, uint32_t launch, uint32_t cluster, const Knowledge& known, Racer& racer) {
    constexpr auto relaxed = std::memory_order_relaxed;
    uint64_t first = offset / 4, last = (offset + bytes - 1) / 4;
    GlobalShadow::Word* page = s.page(first / GlobalShadow::kPageWords);
    for (uint64_t at = first; at <= last; ++at) {
        if (at != first && at % GlobalShadow::kPageWords == 0) page = s.page(at / GlobalShadow::kPageWords);
        GlobalShadow::Word& w = page[at % GlobalShadow::kPageWords];
        uint32_t mine = bytes >= 4 && offset % 4 == 0 ? 15 : covered(at, offset, bytes);
        uint64_t entry = epoch(launch, cluster, k.id, k.atomic, mine, k.time);
        uint64_t write = w.write.load(relaxed);
        auto conflicts = [&](uint64_t e) {
            return e && (e >> 16 & 15 & mine) && !(k.atomic && (e >> 20 & 1)) && !happened_before(e, launch, cluster, k, known);
        };
        auto found = [&](uint64_t e, bool was_write) {
            racer = {true, was_write, bool(e >> 21 & 1), false, uint32_t(e >> 28 & 0xffffff), uint32_t(e >> 22 & 0x3f)};
        };
        if (write != entry && conflicts(write)) return found(write, true);
        if (k.write) {
            for (auto& r : w.read) {
                uint64_t e = r.load(relaxed);
                if (conflicts(e)) return found(e, false);
            }
            if (write != entry) w.write.store(entry, relaxed);
        } else {
            uint64_t e0 = w.read[0].load(relaxed);
            if (e0 == entry) continue;
            uint64_t e1 = w.read[1].load(relaxed);
            if (e1 == entry) continue;
            if (!e0 || happened_before(e0, launch, cluster, k, known))
                w.read[0].store(entry, relaxed);
            else
                w.read[1].store(entry, relaxed);
        }
    }
}

}  // namespace vgpu
