// Region and entry headers. Every field is checked against the bytes there are before it is used.
#include <link.h>

#include <cstring>

#include "fatbin/elf.h"
#include "fatbin/fatbin.h"

namespace vgpu {
namespace {

constexpr uint32_t kRegionMagic = 0xBA55ED50, kWrapperMagic = 0x466243B1;
constexpr uint64_t kLz4 = 0x2000, kZstd = 0x8000, kArchSpecific = 0x100000;
constexpr size_t kRegionHeader = 16, kEntryHeader = 64;

FatImage read_entry(Bytes entry, size_t index, uint64_t& length) {
    const auto fail = [&](const std::string& problem) -> FatbinError {
        return FatbinError("fat binary: entry " + std::to_string(index) + ": " + problem);
    };
    if (entry.size() < kEntryHeader) throw fail("header cut off");
    FatImage image;
    const uint16_t kind = entry.u16(0);
    const uint32_t header = entry.u32(4);
    const uint64_t payload = entry.u64(8);
    image.kind = ImageKind(kind);
    image.compressed_size = entry.u32(16);
    image.arch = entry.u32(28);
    image.flags = entry.u64(40);
    image.uncompressed_size = entry.u64(56);
    image.arch_specific = image.flags & kArchSpecific;
    if (image.flags & kLz4) image.compression = Compression::lz4;
    if (image.flags & kZstd) image.compression = Compression::zstd;
    if (header < kEntryHeader || header > entry.size()) throw fail("header length " + std::to_string(header));
    if (payload > entry.size() - header)
        throw fail("payload of " + std::to_string(payload) + " bytes where " + std::to_string(entry.size() - header) +
                   " are left");
    const Bytes head = entry.part(0, header);
    image.payload = entry.text(header, payload);
    length = header + payload;
    if (kind != 1 && kind != 2) return image;  // other kinds (relocatable PTX, LTO) are passed over by their length
    if (image.compression != Compression::none && image.compressed_size > payload)
        throw fail("compressed size " + std::to_string(image.compressed_size) + " in " + std::to_string(payload) +
                   " bytes");
    const uint32_t name = entry.u32(32), name_length = entry.u32(36), options = entry.u32(20);
    if (name_length) image.identifier = std::string(head.text(name, name_length));
    if (options) {
        const uint32_t at = head.u32(options), size = head.u32(uint64_t(options) + 4);
        if (size) image.options = std::string(head.text(at, size));
    }
    while (!image.options.empty() && (image.options.back() == '\0' || image.options.back() == ' '))
        image.options.pop_back();
    while (!image.identifier.empty() && image.identifier.back() == '\0') image.identifier.pop_back();
    return image;
}

uint64_t region_size(Bytes bytes) {
    if (bytes.size() < kRegionHeader) throw FatbinError("fat binary: region header cut off");
    if (bytes.u32(0) != kRegionMagic) throw FatbinError("fat binary: no region magic BA55ED50");
    if (bytes.u16(4) != 1 || bytes.u16(6) != kRegionHeader)
        throw FatbinError("fat binary: region version " + std::to_string(bytes.u16(4)) + ", header of " +
                          std::to_string(bytes.u16(6)) + " bytes; known are version 1 and 16");
    const uint64_t size = bytes.u64(8);
    if (size > bytes.size() - kRegionHeader)
        throw FatbinError("fat binary: region of " + std::to_string(size) + " bytes where " +
                          std::to_string(bytes.size() - kRegionHeader) + " are left");
    return size;
}

void append_region(Bytes bytes, std::vector<FatImage>& images) {
    const uint64_t size = region_size(bytes);
    for (uint64_t at = 0; at < size;) {
        uint64_t length = 0;
        FatImage image = read_entry(bytes.part(kRegionHeader + at, size - at), images.size(), length);
        at += length;
        if (image.kind == ImageKind::ptx || image.kind == ImageKind::cubin) images.push_back(std::move(image));
    }
}

struct Mapping {
    uintptr_t address;
    size_t left;
};

int find_mapping(dl_phdr_info* info, size_t, void* data) {
    auto& mapping = *static_cast<Mapping*>(data);
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& header = info->dlpi_phdr[i];
        const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
        if (header.p_type != PT_LOAD || mapping.address < begin || mapping.address >= begin + header.p_memsz) continue;
        mapping.left = begin + header.p_memsz - mapping.address;
        return 1;
    }
    return 0;
}

size_t mapped_bytes_from(const void* pointer) {  // of the loaded library that holds it
    Mapping mapping{reinterpret_cast<uintptr_t>(pointer), SIZE_MAX};
    dl_iterate_phdr(find_mapping, &mapping);
    return mapping.left;  // not part of a library (a fat binary built in memory): its own sizes are all there is
}

}  // namespace

std::vector<FatImage> list_images(const void* region, size_t available) {
    std::vector<FatImage> images;
    append_region(Bytes(std::string_view(static_cast<const char*>(region), available), "fat binary"), images);
    return images;
}

std::vector<FatImage> list_images_of_wrapper(const void* wrapper) {
    struct {
        uint32_t magic, version;
        const void* data;
    } fields;
    if (!wrapper) throw FatbinError("fat binary: null wrapper");
    std::memcpy(&fields, wrapper, sizeof fields);
    if (fields.magic != kWrapperMagic) throw FatbinError("fat binary: no wrapper magic 466243B1");
    if (!fields.data) throw FatbinError("fat binary: wrapper without data");
    size_t available = mapped_bytes_from(fields.data);
    // A string_view may not wrap around the end of the address space.
    available = std::min<size_t>(available, SIZE_MAX / 4);
    return list_images(fields.data, available);
}

std::vector<FatImage> list_images_in_file(std::string_view file) {
    std::vector<FatImage> images;
    std::string_view section = file;
    if (file.substr(0, 4) ==
        "\x7f"
        "ELF") {
        section = {};
        for (const ElfSection& found : elf_sections(file))
            if (found.name == ".nv_fatbin") section = found.data;
        if (section.empty()) return images;  // host code only
    }
    const Bytes bytes(section, "fat binary");
    for (uint64_t at = 0; at < bytes.size();) {
        if (bytes.size() - at < 8) break;
        if (at != 0 && bytes.u32(at) == 0) {  // between regions of several translation units
            at += 4;
            continue;
        }
        const Bytes rest = bytes.part(at, bytes.size() - at);
        append_region(rest, images);
        at += kRegionHeader + region_size(rest);
    }
    return images;
}

std::string unpack(const FatImage& image) {
    constexpr uint64_t kLargest = uint64_t(1) << 28;
    const std::string_view packed = image.payload.substr(0, image.compressed_size);
    std::string text;
    if (image.compression == Compression::none) {
        text = std::string(image.payload);
    } else {
        if (image.uncompressed_size > kLargest)
            throw FatbinError("fat binary: image of " + std::to_string(image.uncompressed_size) + " bytes");
        text = image.compression == Compression::lz4 ? lz4_block(packed, image.uncompressed_size)
                                                     : zstd_frame(packed, image.uncompressed_size);
    }
    if (image.kind == ImageKind::ptx) {
        const size_t begin = text.find_first_not_of('\n'), end = text.find('\0');
        if (end != text.npos) text.resize(end);
        if (begin != 0 && begin != text.npos) text.erase(0, std::min(begin, text.size()));
    }
    return text;
}

const FatImage* choose_ptx(const std::vector<FatImage>& images, int major, int minor) {
    const uint32_t device = uint32_t(major * 10 + minor);
    const FatImage* best = nullptr;
    for (const FatImage& image : images) {
        if (image.kind != ImageKind::ptx) continue;
        if (image.arch_specific && image.arch == device) return &image;
        if (!image.arch_specific && image.arch <= device && (!best || image.arch > best->arch)) best = &image;
    }
    return best;
}

const FatImage* choose_cubin(const std::vector<FatImage>& images, int major, int minor) {
    const uint32_t device = uint32_t(major * 10 + minor);
    const FatImage* best = nullptr;
    for (const FatImage& image : images) {
        if (image.kind != ImageKind::cubin) continue;
        if (image.arch_specific && image.arch == device) return &image;
        if (!image.arch_specific && image.arch / 10 == uint32_t(major) && image.arch <= device &&
            (!best || image.arch > best->arch))
            best = &image;
    }
    return best;
}

std::string describe(const std::vector<FatImage>& images) {
    static const char* const kCompression[] = {"", " lz4", " zstd"};
    std::string text;
    for (const FatImage& image : images) {
        if (!text.empty()) text += ", ";
        text += image.kind == ImageKind::ptx ? "PTX compute_" : "cubin sm_";
        text += std::to_string(image.arch) + (image.arch_specific ? "a" : "") + kCompression[int(image.compression)];
    }
    return text.empty() ? "no images" : text;
}

}  // namespace vgpu
