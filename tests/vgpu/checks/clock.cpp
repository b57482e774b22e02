#include "checks/clock.h"

#include <algorithm>
#include <thread>

namespace vgpu {

void join(ClockVector& into, const ClockVector& from) {
    if (into.size() < from.size()) into.resize(from.size());
    for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

void Knowledge::clear() {
    std::fill(own.begin(), own.end(), 0);
    foreign.reset();
}
static std::shared_ptr<const Foreign> joined(const std::shared_ptr<const Foreign>& a,
                                             const std::shared_ptr<const Foreign>& b) {
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

void SharedShadow::reset(uint32_t bytes) {
    granules.assign((bytes + 15) / 16, SharedWord{});
    parted.assign(granules.size(), 0);
    words.clear();
    more.clear();
    more_of_granules.clear();
}
void SharedShadow::part(uint32_t granule) {
    if (words.empty()) words.resize(4 * granules.size());
    parted[granule] = 1;
    for (uint32_t at = 4 * granule; at < 4 * granule + 4; ++at) {
        words[at] = granules[granule];
        if (words[at].more) more[at] = more_of_granules[granule];
    }
    more_of_granules.erase(granule);
}

namespace {
// Bytes of word `w` that [offset, offset + bytes) covers.
uint32_t covered(uint64_t w, uint64_t offset, uint64_t bytes) {
    uint64_t from = std::max(offset, w * 4) - w * 4, to = std::min(offset + bytes, w * 4 + 4) - w * 4;
    return ((1u << to) - 1) & ~((1u << from) - 1);
}
bool happened(uint32_t id, uint32_t time, uint32_t me, const uint32_t* known) {
    if (id == me && !(me & 1)) return true;  // program order; copies of one warp are not ordered among themselves
    return known[id] >= time;
}

constexpr uint32_t kMaxTime = (1u << 19) - 1;
uint32_t id_of(uint32_t tag) { return tag >> 25; }
uint32_t bytes_of(uint32_t tag) { return tag >> 21 & 15; }
Touch touch_of(uint32_t tag) { return Touch(tag >> 19 & 3); }
uint32_t time_of(uint32_t tag) { return tag & kMaxTime; }

// One lane's access to (a part of) one word, against what is known of the word. Nearly all are plain.
template <bool kAtomic, bool kWrite>
struct WordAccess {
    SharedWord& w;
    std::unordered_map<uint32_t, MoreAccesses>& beyond;
    uint32_t at, mine, lane;
    const AccessKind& k;
    const uint32_t* known;
    static constexpr Touch touch() {
        return !kAtomic ? Touch::read : kWrite ? Touch::atomic_write : Touch::atomic_read;
    }
    static constexpr bool plain_write() { return kWrite && !kAtomic; }

    bool after(const PlainWrite& e, Racer& racer) const {  // false: a race
        if (!(e.bytes & mine)) return true;
        bool same_warp = e.id == k.id && !(k.id & 1);
        if (same_warp && k.strict_warp && e.time == k.time && e.lane != lane && e.request != k.request) {
            racer = {true, true, false, true, 0, uint32_t(e.id >> 1)};
            return false;
        }
        bool ordered = e.id == k.id + 1 && !(k.id & 1) && k.waited ? k.waited[e.lane] >= e.time
                                                                   : happened(e.id, e.time, k.id, known);
        if (!ordered) racer = {true, true, bool(e.id & 1), false, 0, uint32_t(e.id >> 1)};
        return ordered;
    }
    bool after(const OtherAccess& e, Racer& racer) const {
        if (!e.tag || !(bytes_of(e.tag) & mine)) return true;
        // Reads conflict with writes, plain accesses with atomic ones.
        Touch other = touch_of(e.tag);
        bool conflict = plain_write() || (touch() == Touch::read && other == Touch::atomic_write) ||
                        (touch() == Touch::atomic_write && other == Touch::read);
        if (!conflict) return true;
        uint32_t id = id_of(e.tag);
        bool write = other == Touch::atomic_write;
        if (id == k.id && !(k.id & 1)) {
            if (!k.strict_warp || time_of(e.tag) != std::min(k.time, kMaxTime) || !(e.lanes & ~(1u << lane)))
                return true;
            racer = {true, write, false, true, 0, id >> 1};
            return false;
        }
        if (known[id] >= time_of(e.tag)) return true;
        racer = {true, write, bool(id & 1), false, 0, id >> 1};
        return false;
    }

    void note_write() {
        const PlainWrite fresh{k.time, k.request, k.id, uint8_t(lane), uint8_t(mine)};
        MoreAccesses* more = w.more ? &beyond[at] : nullptr;
        // Nothing later can race with what this write covers without racing with this write.
        for (OtherAccess& e : w.others)
            if (e.tag && !(bytes_of(e.tag &= ~(mine << 21)))) e = {};
        if (more) {
            for (OtherAccess& e : more->others) e.tag &= ~(mine << 21);
            auto& list = more->others;
            list.erase(std::remove_if(list.begin(), list.end(), [](auto& e) { return !bytes_of(e.tag); }), list.end());
            for (PlainWrite& e : more->writes) e.bytes &= uint8_t(~mine);
            auto& writes = more->writes;
            writes.erase(std::remove_if(writes.begin(), writes.end(), [](auto& e) { return !e.bytes; }), writes.end());
            if (list.empty() && writes.empty()) beyond.erase(at), w.more = false;
        }
        PlainWrite* free = nullptr;
        for (PlainWrite& e : w.writes) {
            e.bytes &= uint8_t(~mine);
            if (e.bytes && e.id == k.id && e.time == k.time && (e.lane == lane || !(k.strict_warp || k.id & 1))) {
                e.bytes |= uint8_t(mine);
                return;
            }
            if (!e.bytes) free = &e;
        }
        if (free) {
            *free = fresh;
            return;
        }
        beyond[at].writes.push_back(w.writes[1]);
        w.more = true;
        w.writes[1] = fresh;
    }
    // Takes the place of an access that nothing can race with unless it races with this one too.
    bool replaces(const OtherAccess& e) const {
        if (!e.tag) return true;
        if ((bytes_of(e.tag) | mine) != mine) return false;
        if (touch_of(e.tag) != touch() && touch_of(e.tag) != Touch::atomic_read) return false;
        uint32_t id = id_of(e.tag);
        return id == k.id || known[id] >= time_of(e.tag);
    }
    void note_other() {
        uint32_t time = std::min(k.time, kMaxTime);
        const uint32_t tag = uint32_t(k.id) << 25 | mine << 21 | uint32_t(touch()) << 19 | time;
        for (OtherAccess& e : w.others)
            if (e.tag == tag) {
                e.lanes |= 1u << lane;
                return;
            }
        // Lanes of one warp at one time add up; so only an access of another time or kind is replaced.
        auto keeps_lanes = [&](const OtherAccess& e) { return id_of(e.tag) == k.id && time_of(e.tag) == time; };
        for (OtherAccess& e : w.others)
            if (replaces(e) && !(k.strict_warp && e.tag && keeps_lanes(e))) {
                e = {tag, 1u << lane};
                return;
            }
        auto& list = beyond[at].others;
        w.more = true;
        for (OtherAccess& e : list)
            if (e.tag == tag) {
                e.lanes |= 1u << lane;
                return;
            }
        for (OtherAccess& e : list)
            if (replaces(e) && !(k.strict_warp && keeps_lanes(e))) {
                e = {tag, 1u << lane};
                return;
            }
        list.push_back({tag, 1u << lane});
    }

    void run(Racer& racer) {
        for (const PlainWrite& e : w.writes)
            if (!after(e, racer)) return;
        for (const OtherAccess& e : w.others)
            if (!after(e, racer)) return;
        if (w.more) {
            const MoreAccesses& more = beyond[at];
            for (const PlainWrite& e : more.writes)
                if (!after(e, racer)) return;
            for (const OtherAccess& e : more.others)
                if (!after(e, racer)) return;
        }
        if constexpr (plain_write())
            note_write();
        else
            note_other();
    }
};

template <bool kAtomic, bool kWrite>
int run_request(SharedShadow& s, uint32_t lanes, const uint32_t* offset, uint32_t bytes, const AccessKind& k,
                const uint32_t* known, Racer& racer) {
    using One = WordAccess<kAtomic, kWrite>;
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const uint32_t lane = uint32_t(__builtin_ctz(rest)), from = offset[lane], last = (from + bytes - 1) / 4;
        const bool whole = ((from | bytes) & 15) == 0;
        for (uint32_t at = from / 4; at <= last;) {
            const uint32_t granule = at / 4;
            if (whole && !s.parted[granule]) {
                One{s.granules[granule], s.more_of_granules, granule, 15, lane, k, known}.run(racer);
                if (racer.found) return int(lane);
                at += 4;
                continue;
            }
            if (!s.parted[granule]) s.part(granule);
            const uint32_t mine = bytes >= 4 ? 15 : covered(at, from, bytes);
            One{s.words[at], s.more, at, mine, lane, k, known}.run(racer);
            if (racer.found) return int(lane);
            ++at;
            // A plain write of them all leaves nothing else behind: the words are alike again.
            if (kWrite && !kAtomic && whole && at % 4 == 0) {
                s.granules[granule] = s.words[at - 1];
                s.parted[granule] = 0;
            }
        }
    }
    return -1;
}
}  // namespace

int shared_request(SharedShadow& s, uint32_t lanes, const uint32_t* offset, uint32_t bytes, const AccessKind& k,
                   const ClockVector& known, Racer& racer) {
    auto run = k.atomic  ? k.write ? run_request<true, true> : run_request<true, false>
               : k.write ? run_request<false, true>
                         : run_request<false, false>;
    return run(s, lanes, offset, bytes, k, known.data(), racer);
}

GlobalShadow::GlobalShadow(uint64_t bytes) : pages((bytes / 4 + kPageWords) / kPageWords + 1) {
    for (auto& p : pages) p.store(nullptr, std::memory_order_relaxed);
}
GlobalShadow::~GlobalShadow() {
    for (auto& p : pages) delete p.load();
}
void GlobalShadow::forget() {
    for (auto& p : pages) delete p.exchange(nullptr);
}
GlobalShadow::Page* GlobalShadow::page(uint64_t index) {
    Page* p = pages[index].load(std::memory_order_acquire);
    if (p) return p;
    Page* fresh = new Page;
    if (pages[index].compare_exchange_strong(p, fresh)) return fresh;
    delete fresh;
    return p;
}
GlobalShadow::Word* GlobalShadow::Page::part(uint32_t granule) {
    constexpr auto relaxed = std::memory_order_relaxed;
    Word* all = words.load(std::memory_order_acquire);
    if (!all) {
        Word* fresh = new Word[kPageWords];
        if (words.compare_exchange_strong(all, fresh))
            all = fresh;
        else
            delete[] fresh;
    }
    uint8_t state = 0;
    if (parted[granule].compare_exchange_strong(state, 1)) {
        const Word& whole = granules[granule];
        for (uint32_t at = 4 * granule; at < 4 * granule + 4; ++at)
            for (int i = 0; i < 2; ++i) {
                all[at].write[i].store(whole.write[i].load(relaxed), relaxed);
                all[at].read[i].store(whole.read[i].load(relaxed), relaxed);
            }
        parted[granule].store(2, std::memory_order_release);
    }
    while (parted[granule].load(std::memory_order_acquire) != 2) std::this_thread::yield();
    return all + 4 * granule;
}

namespace {
// launch(12) | cluster(24) | id(7) | atomic(1) | bytes(4) | time(16)
uint64_t epoch(uint32_t launch, uint32_t cluster, uint32_t id, bool atomic, uint32_t bytes, uint32_t time) {
    return uint64_t(launch & 0xfff) << 52 | uint64_t(cluster & 0xffffff) << 28 | uint64_t(id) << 21 |
           uint64_t(atomic) << 20 | uint64_t(bytes) << 16 | time;
}
bool happened_before(uint64_t e, uint32_t launch, uint32_t cluster, const AccessKind& k, const Knowledge& known) {
    if (e >> 52 != (launch & 0xfff)) return true;
    uint32_t other = e >> 28 & 0xffffff, id = e >> 21 & 0x7f, time = e & 0xffff;
    if (other == (cluster & 0xffffff)) return happened(id, time, k.id, known.own.data());
    if (!known.foreign) return false;
    auto it = known.foreign->find(other);
    return it != known.foreign->end() && id < it->second->size() && (*it->second)[id] >= time;
}
// Keeps a write beside the other one of its word where both still matter: other bytes, or one of them atomic.
template <class Happened>
void note_write(GlobalShadow::Word& w, const uint64_t* writes, uint64_t entry, Happened happened) {
    constexpr auto relaxed = std::memory_order_relaxed;
    constexpr uint64_t kBytes = uint64_t(15) << 16, kAtomic = uint64_t(1) << 20;
    for (int i = 0; i < 2; ++i)
        if (((writes[i] ^ entry) & ~kBytes) == 0) {  // the same warp at the same time
            if ((writes[i] | entry) != writes[i]) w.write[i].store(writes[i] | entry, relaxed);
            return;
        }
    // Whoever races with a covered write races with this one.
    auto covered = [&](uint64_t e) {
        return !e || e >> 52 != entry >> 52 ||
               (((e | entry) & kBytes) == (entry & kBytes) && (e & kAtomic) >= (entry & kAtomic));
    };
    for (int i = 0; i < 2; ++i)
        if (covered(writes[i])) return w.write[i].store(entry, relaxed);
    w.write[happened(writes[0]) ? 0 : 1].store(entry, relaxed);
}
}  // namespace

namespace {
// One access to a word, or to a granule that stands for four.
struct GlobalAccess {
    const AccessKind& k;
    uint32_t launch, cluster;
    const Knowledge& known;
    Racer& racer;

    bool before(uint64_t e) const { return happened_before(e, launch, cluster, k, known); }
    bool conflicts(uint64_t e, uint32_t mine) const {
        return e && (e >> 16 & 15 & mine) && !(k.atomic && (e >> 20 & 1)) && !before(e);
    }
    void found(uint64_t e, bool write) {
        racer = {true, write, bool(e >> 21 & 1), false, uint32_t(e >> 28 & 0xffffff), uint32_t(e >> 22 & 0x3f)};
    }
    void run(GlobalShadow::Word& w, uint32_t mine) {
        constexpr auto relaxed = std::memory_order_relaxed;
        const uint64_t entry = epoch(launch, cluster, k.id, k.atomic, mine, k.time);
        const uint64_t writes[2] = {w.write[0].load(relaxed), w.write[1].load(relaxed)};
        for (uint64_t e : writes)
            if (e != entry && conflicts(e, mine)) return found(e, true);
        if (k.write) {
            for (auto& r : w.read) {
                uint64_t e = r.load(relaxed);
                if (conflicts(e, mine)) return found(e, false);
            }
            return note_write(w, writes, entry, [&](uint64_t e) { return before(e); });
        }
        uint64_t e0 = w.read[0].load(relaxed);
        if (e0 == entry || w.read[1].load(relaxed) == entry) return;
        w.read[!e0 || before(e0) ? 0 : 1].store(entry, relaxed);
    }
};
}  // namespace

int global_request(GlobalShadow& s, uint32_t lanes, const uint64_t* address, uint64_t base, uint32_t bytes,
                   const AccessKind& k, uint32_t launch, uint32_t cluster, const Knowledge& known, Racer& racer) {
    constexpr uint64_t kPageBytes = 4 * GlobalShadow::kPageWords;
    GlobalShadow::Page* pages[32];
    // The entries of all lanes are on their way before the first is looked at.
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        const uint64_t offset = address[lane] - base;
        pages[lane] = s.page(offset / kPageBytes);
        __builtin_prefetch(&pages[lane]->granules[offset % kPageBytes / 16], 1);
    }
    GlobalAccess access{k, launch, cluster, known, racer};
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        const uint64_t offset = address[lane] - base, last = (offset + bytes - 1) / 4;
        const bool whole = ((offset | bytes) & 15) == 0, aligned = bytes >= 4 && offset % 4 == 0;
        for (uint64_t at = offset / 4; at <= last;) {
            GlobalShadow::Page& page = at == offset / 4 ? *pages[lane] : *s.page(at / GlobalShadow::kPageWords);
            const uint32_t granule = uint32_t(at % GlobalShadow::kPageWords / 4);
            if (whole && page.parted[granule].load(std::memory_order_acquire) == 0) {
                access.run(page.granules[granule], 15);
                at += 4;
            } else {
                access.run(page.part(granule)[at % 4], aligned ? 15 : covered(at, offset, bytes));
                ++at;
            }
            if (racer.found) return lane;
        }
    }
    return -1;
}

}  // namespace vgpu
