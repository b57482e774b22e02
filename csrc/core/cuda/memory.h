// Device memory that the extension owns: one cudaMalloc, freed with its last user.
#pragma once

#include <cstdint>
#include <memory>

#include "core/stream.h"

namespace ivk {

class DeviceMemory {
  public:
    // On the current device. 0 bytes own nothing and have a null address.
    explicit DeviceMemory(int64_t bytes);
    ~DeviceMemory();
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;
    void* data() const { return data_; }

  private:
    void* data_ = nullptr;
    int device_;
};

struct Strided {  // rows of `width` bytes, `pitch` bytes apart
    void* data;
    int64_t pitch;
};

// Between them memory that is given up is kept and freed at the last release: while something is recorded.
void hold_memory();
void release_memory();

// Copies on the stream, between any two places; host memory that is read or written must stay until the stream gets
// there.
void copy_bytes(void* to, const void* from, int64_t bytes, Stream stream);
void copy_rows(Strided to, Strided from, int64_t width, int64_t rows, Stream stream);
void synchronize(Stream stream);
// Work that is put on `later` after this call waits for what `first` holds now.
void order(Stream first, Stream later);

}  // namespace ivk
