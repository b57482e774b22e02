// Bounded reading of little-endian bytes, and the sections of a 64-bit ELF file.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "fatbin/fatbin.h"

namespace vgpu {

class Bytes {  // any access outside throws FatbinError
  public:
    Bytes(std::string_view data, const char* what) : data_(data), what_(what) {}
    uint64_t size() const { return data_.size(); }
    uint16_t u16(uint64_t at) const { return read<uint16_t>(at); }
    uint32_t u32(uint64_t at) const { return read<uint32_t>(at); }
    uint64_t u64(uint64_t at) const { return read<uint64_t>(at); }
    uint8_t u8(uint64_t at) const { return read<uint8_t>(at); }
    std::string_view text(uint64_t at, uint64_t length) const {
        if (at > data_.size() || length > data_.size() - at)
            throw FatbinError(std::string(what_) + ": " + std::to_string(length) + " bytes at " + std::to_string(at) +
                              " are outside of its " + std::to_string(data_.size()));
        return data_.substr(size_t(at), size_t(length));
    }
    Bytes part(uint64_t at, uint64_t length) const { return Bytes(text(at, length), what_); }
    std::string_view c_string(uint64_t at) const {
        const std::string_view rest = text(at, at <= data_.size() ? data_.size() - at : 0);
        const size_t end = rest.find('\0');
        if (end == rest.npos) throw FatbinError(std::string(what_) + ": name without end");
        return rest.substr(0, end);
    }

  private:
    template <class T>
    T read(uint64_t at) const {
        T value;
        std::memcpy(&value, text(at, sizeof(T)).data(), sizeof(T));
        return value;
    }
    std::string_view data_;
    const char* what_;
};

struct ElfSection {
    std::string_view name, data;  // data is empty for a section without bytes in the file
    uint32_t type = 0, link = 0, info = 0;
    uint64_t size = 0, entry_size = 0;
};

std::vector<ElfSection> elf_sections(std::string_view file);

}  // namespace vgpu
