// Every piece of device-visible memory: exact sizes, red zones, definedness of each byte, freed blocks kept for
// reports.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace vgpu {

enum class MemKind : uint8_t { device, pinned_host, managed, module_global, module_constant };

// State of one byte.
constexpr uint8_t kDefined = 1;  // written by a copy, a memset or a kernel
constexpr uint8_t kRead = 2;     // read by the launch in progress (unique bytes)
constexpr uint8_t kWritten = 4;  // written by the launch in progress

struct GlobalShadow;  // checks/race.h: last accesses of each 4-byte word

struct Allocation {
    uint64_t base = 0;
    uint64_t size = 0;
    uint64_t extent = 0;  // of the address range it holds, guards included
    MemKind kind = MemKind::device;
    std::string what;
    uint64_t id = 0;                           // 1, 2, 3 ... in order of allocation
    bool adopted = false;                      // host memory that the program owns (cudaHostRegister)
    bool freed = false;                        // memory is kept (filled with 0xFF) while in quarantine
    uint8_t* state = nullptr;                  // one byte of kDefined | kRead | kWritten per byte
    mutable std::atomic<bool> touched{false};  // by the launch in progress
    std::shared_ptr<GlobalShadow> shadow;
    ~Allocation();
    bool contains(uint64_t address, uint64_t bytes) const {
        return address >= base && bytes <= size && address - base <= size - bytes;
    }
};

// Allocations are 256-byte aligned and never more (base % 512 == 256), so that code which needs more is found; 256
// bytes on either side belong to no allocation. New device memory holds 0xFF bytes (NaN) and is undefined; pinned and
// managed memory is always defined, because the host writes it without telling us. Thread-safe.
class Memory {
  public:
    Memory();
    ~Memory();
    Memory(const Memory&) = delete;

    // Null if the budget (set_limit) would be passed or the host is out of memory. bytes == 0 gives null too.
    void* allocate(size_t bytes, MemKind kind, const char* what);
    // False if p is not the base of a live allocation.
    bool release(void* p);
    // Ordinary host memory becomes visible to kernels, and stops to be.
    bool adopt(void* p, size_t bytes, const char* what);
    bool disown(void* p);
    // Allocation that contains p (live ones only).
    const Allocation* find(const void* p) const;
    // Live or quarantined allocation that contains p, or the one whose red zone does.
    const Allocation* find_any(const void* p) const;

    void mark_defined(void* p, size_t bytes);
    void mark_undefined(void* p, size_t bytes);
    // Device-to-device copies carry definedness along.
    void copy_definedness(void* to, const void* from, size_t bytes);
    // Offset of the first undefined byte of [p, p + bytes), or bytes if there is none (also for memory we do not own).
    size_t first_undefined(const void* p, size_t bytes) const;

    void set_limit(uint64_t bytes) { limit_ = bytes; }
    uint64_t limit() const { return limit_; }
    uint64_t used() const { return used_; }  // device and managed bytes
    uint64_t peak() const { return peak_; }
    // Live allocations in order of allocation (those of modules are not leaks).
    std::vector<const Allocation*> live() const;
    // "allocation 12 (cudaMalloc, 4096 bytes at 0x7f..), 16 bytes past its end", or what else is known of an address.
    std::string describe(uint64_t address) const;
    // Grows with every allocate and release: caches of lookups are valid while it stands.
    uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
    uint64_t limit_ = ~0ull;
    std::atomic<uint64_t> used_{0}, peak_{0}, generation_{1};
};

}  // namespace vgpu
