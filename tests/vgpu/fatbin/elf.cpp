// ELF sections, and what ptxas says about kernels in the .nv.info sections of a cubin.
#include "fatbin/elf.h"

#include <algorithm>

namespace vgpu {
namespace {

constexpr uint32_t kSymbolTable = 2, kNoBits = 8;
// Attributes of .nv.info: one byte format, one byte attribute, two bytes value or length.
constexpr uint8_t kFormatSized = 4;
constexpr uint8_t kMaxThreads = 0x05, kRequiredThreads = 0x10, kFrameSize = 0x11, kMinStackSize = 0x12,
                  kParamSize = 0x19, kRegisterCount = 0x2f, kBarriers = 0x4c;

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

template <class Visit>  // visit(attribute, value bytes): sized ones carry bytes, the others a number of 16 bits
void for_each_attribute(std::string_view section, Visit visit) {
    const Bytes bytes(section, "cubin: .nv.info");
    for (uint64_t at = 0; at + 4 <= bytes.size();) {
        const uint8_t format = bytes.u8(at), attribute = bytes.u8(at + 1);
        const uint16_t value = bytes.u16(at + 2);
        at += 4;
        if (format != kFormatSized) {
            visit(attribute, value, Bytes({}, "cubin: attribute"));
            continue;
        }
        visit(attribute, value, bytes.part(at, value));
        at += value;
    }
}

uint32_t saturate(uint64_t value) { return uint32_t(std::min<uint64_t>(value, UINT32_MAX)); }

}  // namespace

std::vector<ElfSection> elf_sections(std::string_view file) {
    const Bytes bytes(file, "ELF file");
    if (file.substr(0, 4) !=
            "\x7f"
            "ELF" ||
        bytes.u8(4) != 2 || bytes.u8(5) != 1)
        throw FatbinError("ELF file: not a little-endian 64-bit one");
    const uint64_t table = bytes.u64(40);
    const uint16_t entry = bytes.u16(58);
    uint64_t count = bytes.u16(60), names = bytes.u16(62);
    if (table == 0) return {};
    if (entry < 64) throw FatbinError("ELF file: section headers of " + std::to_string(entry) + " bytes");
    if (count == 0) count = bytes.u64(table + 32);  // more than 65279 sections
    if (names == 0xFFFF) names = bytes.u32(table + 40);
    if (count > file.size() / entry) throw FatbinError("ELF file: " + std::to_string(count) + " sections");
    std::vector<ElfSection> sections(count);
    std::vector<uint32_t> name_at(count);
    for (uint64_t i = 0; i < count; ++i) {
        const Bytes head = bytes.part(table + i * entry, 64);
        ElfSection& section = sections[i];
        name_at[i] = head.u32(0);
        section.type = head.u32(4);
        section.size = head.u64(32);
        section.link = head.u32(40);
        section.info = head.u32(44);
        section.entry_size = head.u64(56);
        if (section.type != kNoBits && section.type != 0) section.data = bytes.text(head.u64(24), section.size);
    }
    if (names >= count) throw FatbinError("ELF file: no section names");
    const Bytes table_of_names(sections[names].data, "ELF file: section names");
    for (uint64_t i = 0; i < count; ++i) sections[i].name = table_of_names.c_string(name_at[i]);
    return sections;
}

std::map<std::string, KernelFacts> cubin_facts(std::string_view cubin) {
    const std::vector<ElfSection> sections = elf_sections(cubin);
    std::vector<std::string> symbols;  // names, by index
    for (const ElfSection& section : sections) {
        if (section.type != kSymbolTable || !symbols.empty()) continue;
        if (section.link >= sections.size()) throw FatbinError("cubin: symbols without names");
        const Bytes table(section.data, "cubin: symbols"), names(sections[section.link].data, "cubin: symbol names");
        for (uint64_t at = 0; at + 24 <= table.size(); at += 24) symbols.emplace_back(names.c_string(table.u32(at)));
    }
    std::map<std::string, KernelFacts> facts;
    for (const ElfSection& section : sections) {
        if (!starts_with(section.name, ".text.")) continue;
        KernelFacts& kernel = facts[std::string(section.name.substr(6))];
        kernel.code_bytes = saturate(section.size);
        kernel.registers = section.info >> 24;  // older cubins; newer ones have an attribute
    }
    const auto kernel_of = [&](const Bytes& value) -> KernelFacts* {
        const uint32_t symbol = value.u32(0);
        if (symbol >= symbols.size()) throw FatbinError("cubin: attribute of an unknown symbol");
        const auto found = facts.find(symbols[symbol]);
        return found == facts.end() ? nullptr : &found->second;
    };
    for (const ElfSection& section : sections) {
        if (section.name == ".nv.info") {
            for_each_attribute(section.data, [&](uint8_t attribute, uint16_t, const Bytes& value) {
                uint32_t KernelFacts::* field = attribute == kRegisterCount  ? &KernelFacts::registers
                                                : attribute == kFrameSize    ? &KernelFacts::frame_bytes
                                                : attribute == kMinStackSize ? &KernelFacts::stack_bytes
                                                                             : nullptr;
                if (!field) return;
                if (KernelFacts* kernel = kernel_of(value)) kernel->*field = value.u32(4);
            });
        } else if (starts_with(section.name, ".nv.info.")) {
            const auto found = facts.find(std::string(section.name.substr(9)));
            if (found == facts.end()) continue;
            KernelFacts& kernel = found->second;
            for_each_attribute(section.data, [&](uint8_t attribute, uint16_t number, const Bytes& value) {
                if (attribute == kMaxThreads || attribute == kRequiredThreads)
                    kernel.max_threads = saturate(uint64_t(value.u32(0)) * value.u32(4) * value.u32(8));
                else if (attribute == kParamSize)
                    kernel.param_bytes = number;
                else if (attribute == kBarriers)
                    kernel.barriers = number & 0xFF;
            });
        } else if (starts_with(section.name, ".nv.shared.")) {
            const auto found = facts.find(std::string(section.name.substr(11)));
            if (found != facts.end()) found->second.static_shared = saturate(section.size);
        }
    }
    return facts;
}

}  // namespace vgpu
