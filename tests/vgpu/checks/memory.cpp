#include "checks/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "checks/clock.h"

namespace vgpu {
namespace {
constexpr uint64_t kZone = 256;                        // red zone on either side
constexpr uint64_t kGuard = uint64_t(8) << 20;         // addresses on either side that nothing else gets
constexpr uint64_t kQuarantine = uint64_t(256) << 20;  // freed bytes kept for reports
constexpr size_t kKept = 1024;                         // freed allocations kept for reports
constexpr uint64_t kShadowed = uint64_t(1) << 30;      // allocations up to this size have race shadows

std::string number(uint64_t v) {
    char s[32];
    snprintf(s, sizeof s, "0x%llx", (unsigned long long)v);
    return s;
}
bool mapped_by_host(uint64_t address) {
    long page = sysconf(_SC_PAGESIZE);
    unsigned char v;
    return address >> 47 == 0 && address != 0 && mincore(reinterpret_cast<void*>(address / page * page), 1, &v) == 0;
}
}  // namespace

struct Memory::Impl {
    mutable std::mutex mutex;
    std::map<uint64_t, std::unique_ptr<Allocation>> by_base;  // live and quarantined
    std::vector<uint64_t> quarantine;
    uint64_t quarantined = 0, next_id = 1;
    Allocation* find(uint64_t address, uint64_t margin) const {
        auto it = by_base.upper_bound(address + margin);
        if (it == by_base.begin()) return nullptr;
        Allocation* a = std::prev(it)->second.get();
        return address + margin >= a->base && address < a->base + a->size + margin ? a : nullptr;
    }
    // The one whose guard addresses reach over `address`.
    Allocation* nearest(uint64_t address) const {
        std::lock_guard<std::mutex> lock(mutex);
        auto it = by_base.upper_bound(address);
        if (it != by_base.begin()) {
            Allocation* a = std::prev(it)->second.get();
            if (address < a->base + a->size + kGuard) return a;
        }
        return it != by_base.end() && it->first - address <= kGuard ? it->second.get() : nullptr;
    }
};

Allocation::~Allocation() {
    // The addresses stay taken, as one mapping with the guards on both sides: the system has room for some 65000.
    if (base && !adopted)
        mmap(reinterpret_cast<void*>(base - kZone), size + 2 * kZone, PROT_NONE,
             MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (state) munmap(state, size);
}

Memory::Memory() : impl_(new Impl) {}
Memory::~Memory() = default;

void* Memory::allocate(size_t bytes, MemKind kind, const char* what) {
    if (bytes == 0) return nullptr;
    bool counted = kind == MemKind::device || kind == MemKind::managed;
    if (counted && used_ + bytes > limit_) return nullptr;
    // Pages from the system: the base is 256 past a page, so aligned to 256 bytes and no more.
    const uint64_t extent = bytes + 2 * kZone + 2 * kGuard;
    void* p = mmap(nullptr, extent, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED && mprotect(static_cast<uint8_t*>(p) + kGuard, bytes + 2 * kZone, PROT_READ | PROT_WRITE)) {
        munmap(p, extent);
        p = MAP_FAILED;
    }
    void* s = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || s == MAP_FAILED) {
        if (p != MAP_FAILED) munmap(p, extent);
        if (s != MAP_FAILED) munmap(s, bytes);
        return nullptr;
    }
    auto a = std::make_unique<Allocation>();
    a->base = reinterpret_cast<uint64_t>(p) + kGuard + kZone;
    a->extent = extent;
    a->size = bytes;
    a->kind = kind;
    a->what = what;
    a->state = static_cast<uint8_t*>(s);
    if (kind == MemKind::device)
        std::memset(reinterpret_cast<void*>(a->base), 0xFF, bytes);
    else
        std::memset(a->state, kDefined, bytes);
    if (bytes <= kShadowed) a->shadow = std::make_shared<GlobalShadow>(bytes);
    std::lock_guard<std::mutex> lock(impl_->mutex);
    a->id = impl_->next_id++;
    void* base = reinterpret_cast<void*>(a->base);
    if (counted) {
        used_ += bytes;
        if (used_ > peak_) peak_ = used_.load();
    }
    impl_->by_base[a->base] = std::move(a);
    ++generation_;
    return base;
}

bool Memory::release(void* p) {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    auto it = impl_->by_base.find(reinterpret_cast<uint64_t>(p));
    if (it == impl_->by_base.end() || it->second->freed || it->second->adopted) return false;
    Allocation& a = *it->second;
    a.freed = true;
    a.shadow.reset();
    if (a.kind == MemKind::device || a.kind == MemKind::managed) used_ -= a.size;
    // The pages go back to the system at once; only the addresses stay taken.
    madvise(reinterpret_cast<void*>(a.base - kZone), a.size + 2 * kZone, MADV_DONTNEED);
    munmap(a.state, a.size);
    a.state = nullptr;
    impl_->quarantine.push_back(a.base);
    impl_->quarantined += a.size;
    while ((impl_->quarantined > kQuarantine && impl_->quarantine.size() > 1) || impl_->quarantine.size() > kKept) {
        auto old = impl_->by_base.find(impl_->quarantine.front());
        impl_->quarantined -= old->second->size;
        impl_->by_base.erase(old);
        impl_->quarantine.erase(impl_->quarantine.begin());
    }
    ++generation_;
    return true;
}

bool Memory::adopt(void* p, size_t bytes, const char* what) {
    void* state = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (state == MAP_FAILED) return false;
    auto a = std::make_unique<Allocation>();
    a->base = reinterpret_cast<uint64_t>(p);
    a->size = bytes;
    a->kind = MemKind::pinned_host;
    a->what = what;
    a->adopted = true;
    a->state = static_cast<uint8_t*>(state);
    std::memset(a->state, kDefined, bytes);
    if (bytes <= kShadowed) a->shadow = std::make_shared<GlobalShadow>(bytes);
    std::lock_guard<std::mutex> lock(impl_->mutex);
    a->id = impl_->next_id++;
    impl_->by_base[a->base] = std::move(a);
    ++generation_;
    return true;
}

bool Memory::disown(void* p) {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    auto it = impl_->by_base.find(reinterpret_cast<uint64_t>(p));
    if (it == impl_->by_base.end() || !it->second->adopted) return false;
    impl_->by_base.erase(it);
    ++generation_;
    return true;
}

const Allocation* Memory::find(const void* p) const {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    Allocation* a = impl_->find(reinterpret_cast<uint64_t>(p), 0);
    return a && !a->freed ? a : nullptr;
}
const Allocation* Memory::find_any(const void* p) const {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    uint64_t address = reinterpret_cast<uint64_t>(p);
    Allocation* a = impl_->find(address, 0);
    return a ? a : impl_->find(address, kZone);
}

static void set_state(const Allocation* a, const void* p, size_t bytes, uint8_t value) {
    if (!a || !a->state) return;
    uint64_t at = reinterpret_cast<uint64_t>(p) - a->base;
    std::memset(a->state + at, value, std::min<uint64_t>(bytes, a->size - at));
}
void Memory::mark_defined(void* p, size_t bytes) { set_state(find(p), p, bytes, kDefined); }
void Memory::mark_undefined(void* p, size_t bytes) {
    const Allocation* a = find(p);
    if (a && a->kind == MemKind::device) set_state(a, p, bytes, 0);
}
void Memory::copy_definedness(void* to, const void* from, size_t bytes) {
    const Allocation *a = find(to), *b = find(from);
    if (!a) return;
    if (!b || !b->state) return mark_defined(to, bytes);
    uint64_t at = reinterpret_cast<uint64_t>(to) - a->base, bt = reinterpret_cast<uint64_t>(from) - b->base;
    bytes = std::min<uint64_t>(bytes, std::min(a->size - at, b->size - bt));
    std::memmove(a->state + at, b->state + bt, bytes);
    if (a->kind != MemKind::device) set_state(a, to, bytes, kDefined);
}
size_t Memory::first_undefined(const void* p, size_t bytes) const {
    const Allocation* a = find(p);
    if (!a || !a->state) return bytes;
    uint64_t at = reinterpret_cast<uint64_t>(p) - a->base;
    size_t n = std::min<uint64_t>(bytes, a->size - at);
    for (size_t i = 0; i < n; ++i)
        if (!(a->state[at + i] & kDefined)) return i;
    return bytes;
}

std::vector<const Allocation*> Memory::live() const {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    std::vector<const Allocation*> all;
    for (const auto& [base, a] : impl_->by_base)
        if (!a->freed) all.push_back(a.get());
    std::sort(all.begin(), all.end(), [](auto* a, auto* b) { return a->id < b->id; });
    return all;
}

std::string Memory::describe(uint64_t address) const {
    const Allocation* a = find_any(reinterpret_cast<void*>(address));
    if (!a) {
        if (address < 4096) return "null pointer";
        a = impl_->nearest(address);
        if (!a && mapped_by_host(address)) return "ordinary host memory, not an allocation of this device";
        if (!a) return "no allocation there";
    }
    std::string s = "allocation " + std::to_string(a->id) + " (" + a->what + ", " + std::to_string(a->size) +
                    " bytes at " + number(a->base) + ")";
    if (a->freed) s += ", which was released";
    if (address < a->base) return s + ", " + std::to_string(a->base - address) + " bytes before its start";
    if (address >= a->base + a->size)
        return s + ", " + std::to_string(address - a->base - a->size) + " bytes past its end";
    return s + ", " + std::to_string(address - a->base) + " bytes into it";
}

}  // namespace vgpu
