// vgpu_ptx [--code] [--arch 80] FILE     what the virtual GPU reads from FILE, as JSON
// vgpu_ptx --unpack N FILE               image N of a fat binary, as it is
//
// FILE is PTX text, a cubin, a fat binary, or a shared library with fat binaries.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "fatbin/elf.h"
#include "fatbin/fatbin.h"
#include "ptx/ir.h"
#include "tools/json.h"

namespace vgpu {
namespace {

const char* name_of(Space space) {
    static const char* const kNames[] = {"generic", "param", "shared", "global", "local", "const"};
    return kNames[int(space)];
}

const char* name_of(OperandKind kind) {
    static const char* const kNames[] = {"none",  "reg",    "imm",    "special", "address",
                                         "label", "vector", "symbol", "sink"};
    return kNames[int(kind)];
}

std::string hex(const std::vector<uint8_t>& bytes) {
    std::string text;
    for (uint8_t byte : bytes) {
        char two[3];
        std::snprintf(two, sizeof two, "%02x", byte);
        text += two;
    }
    return text;
}

void write(Json& json, const Variable& variable) {
    json.object().field("name", variable.name).field("space", name_of(variable.space));
    json.field("type", vgpu::name_of(variable.type)).field("size", variable.size).field("align", variable.align);
    json.field("unsized", variable.external_unsized)
        .field("extern", variable.is_extern)
        .field("managed", variable.managed);
    json.field("init", hex(variable.init.size() <= 4096 ? variable.init : std::vector<uint8_t>()));
    json.key("relocations").array();
    for (const Relocation& relocation : variable.relocations) {
        json.object().field("offset", relocation.offset).field("symbol", relocation.symbol);
        json.field("addend", relocation.addend).field("generic", relocation.generic);
        json.field("size", uint32_t(relocation.size)).field("shift", uint32_t(relocation.shift)).end();
    }
    json.end().end();
}

void write(Json& json, const std::vector<Variable>& variables) {
    json.array();
    for (const Variable& variable : variables) write(json, variable);
    json.end();
}

void write(Json& json, const Operand& operand) {
    json.object().field("kind", name_of(operand.kind));
    if (operand.reg >= 0) json.field("reg", operand.reg);
    if (operand.reg2 >= 0) json.field("reg2", operand.reg2);
    if (operand.negated) json.field("negated", true);
    if (operand.kind == OperandKind::imm) {
        json.field("imm", operand.imm).field("float", operand.imm_is_float).field("f64", operand.imm_is_f64);
    }
    if (operand.kind == OperandKind::address || operand.kind == OperandKind::symbol)
        json.field("offset", int64_t(operand.imm));
    if (operand.symbol >= 0) json.field("symbol", operand.symbol).field("scope", uint32_t(operand.symbol_scope));
    if (operand.label >= 0) json.field("label", operand.label);
    if (!operand.special.empty()) json.field("special", operand.special);
    if (operand.kind == OperandKind::vector || !operand.elements.empty()) {
        json.key("elements").array();
        for (const Operand& element : operand.elements) write(json, element);
        json.end();
    }
    json.end();
}

void write(Json& json, const uint32_t (&values)[3]) {
    json.array().value(values[0]).value(values[1]).value(values[2]).end();
}

void write_code(Json& json, const Function& function) {
    json.key("register_names").array();
    for (const Register& reg : function.registers) json.value(reg.name);
    json.end().key("register_types").array();
    for (const Register& reg : function.registers) json.value(vgpu::name_of(reg.type));
    json.end().key("row_of").array();
    for (int32_t row : function.row_of) json.value(row);
    json.end().key("code").array();
    for (const Instruction& instruction : function.code) {
        json.object().field("opcode", instruction.opcode).field("line", instruction.line);
        if (instruction.guard >= 0)
            json.field("guard", instruction.guard).field("guard_negated", instruction.guard_negated);
        if (instruction.callee >= 0) json.field("callee", instruction.callee);
        if (instruction.prototype >= 0) json.field("prototype", instruction.prototype);
        if (instruction.file) json.field("file", instruction.file).field("source_line", instruction.source_line);
        json.field("writes", destination_count(instruction)).key("operands").array();
        for (const Operand& operand : instruction.operands) write(json, operand);
        json.end().end();
    }
    json.end();
}

void write_module(Json& json, std::string_view text, const std::string& name, bool with_code) {
    Module module = parse(text, name);
    json.object().field("version", module.version).field("target", module.target);
    json.key("files").array();
    for (const std::string& file : module.files) json.value(file);
    json.end().key("variables");
    write(json, module.variables);
    json.key("functions").array();
    for (Function& function : module.functions) {
        if (function.defined) allocate_registers(function);
        json.object().field("name", function.name).field("entry", function.entry).field("defined", function.defined);
        json.field("noreturn", function.noreturn).field("instructions", uint64_t(function.code.size()));
        json.field("registers", uint64_t(function.registers.size())).field("pressure", function.pressure);
        json.field("pressure_pred", function.pressure_pred).field("rows32", function.rows32);
        json.field("rows64", function.rows64).field("rows_pred", function.rows_pred);
        json.key("maxntid");
        write(json, function.maxntid);
        json.key("reqntid");
        write(json, function.reqntid);
        json.key("reqnctapercluster");
        write(json, function.reqnctapercluster);
        json.field("minnctapersm", function.minnctapersm).field("maxnreg", function.maxnreg);
        json.key("params");
        write(json, function.params);
        json.key("returns");
        write(json, function.returns);
        json.key("locals");
        write(json, function.locals);
        std::map<std::string, int32_t> opcodes;
        for (const Instruction& instruction : function.code) ++opcodes[instruction.opcode];
        json.key("opcodes").object();
        for (const auto& opcode : opcodes) json.field(opcode.first, opcode.second);
        json.end();
        if (with_code) write_code(json, function);
        json.end();
    }
    json.end().end();
}

void write_facts(Json& json, std::string_view cubin) {
    json.object();
    for (const auto& [name, facts] : cubin_facts(cubin)) {
        json.key(name).object().field("registers", facts.registers).field("static_shared", facts.static_shared);
        json.field("max_threads", facts.max_threads).field("frame_bytes", facts.frame_bytes);
        json.field("stack_bytes", facts.stack_bytes).field("param_bytes", facts.param_bytes);
        json.field("barriers", facts.barriers).field("code_bytes", facts.code_bytes).end();
    }
    json.end();
}

bool is_cubin(std::string_view file) {
    constexpr uint16_t kMachineCuda = 190;
    return file.substr(0, 4) ==
               "\x7f"
               "ELF" &&
           Bytes(file, "ELF file").u16(18) == kMachineCuda;
}

void write_images(Json& json, const std::vector<FatImage>& images, const std::string& file, int arch, bool with_code) {
    const FatImage* ptx = arch ? choose_ptx(images, arch / 10, arch % 10) : nullptr;
    const FatImage* cubin = arch ? choose_cubin(images, arch / 10, arch % 10) : nullptr;
    if (arch && !ptx)
        throw FatbinError(file + ": no PTX for compute capability " + std::to_string(arch / 10) + "." +
                          std::to_string(arch % 10) + " among " + describe(images));
    json.field("summary", describe(images));
    if (arch) json.field("ptx_choice", int64_t(ptx - images.data()));
    if (arch) json.field("cubin_choice", cubin ? int64_t(cubin - images.data()) : -1);
    static const char* const kCompression[] = {"none", "lz4", "zstd"};
    json.key("images").array();
    for (const FatImage& image : images) {
        json.object().field("kind", image.kind == ImageKind::ptx ? "ptx" : "cubin").field("arch", image.arch);
        json.field("arch_specific", image.arch_specific).field("compression", kCompression[int(image.compression)]);
        json.field("identifier", image.identifier).field("options", image.options).field("flags", image.flags);
        const std::string bytes = unpack(image);
        json.field("size", uint64_t(bytes.size()));
        if (image.kind == ImageKind::cubin) {
            json.key("facts");
            write_facts(json, bytes);
        } else {
            json.key("module");
            write_module(json, bytes, image.identifier.empty() ? file : image.identifier, with_code);
        }
        json.end();
    }
    json.end();
}

int run(int argc, char** argv) {
    bool with_code = false;
    long arch = 0, image = -1;
    std::string path;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "--code")
            with_code = true;
        else if (argument == "--arch" && i + 1 < argc)
            arch = std::strtol(argv[++i], nullptr, 10);
        else if (argument == "--unpack" && i + 1 < argc)
            image = std::strtol(argv[++i], nullptr, 10);
        else if (path.empty())
            path = argument;
        else
            path.clear(), i = argc;
    }
    if (path.empty() || arch < 0 || arch > 1000) {
        std::cerr << "usage: vgpu_ptx [--code] [--arch 80] [--unpack N] FILE\n";
        return 2;
    }
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error(path + ": cannot be read");
    const std::string file((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    if (image >= 0) {
        const std::vector<FatImage> images = list_images_in_file(file);
        if (size_t(image) >= images.size())
            throw std::runtime_error(path + ": has " + std::to_string(images.size()) + " images");
        const std::string bytes = unpack(images[size_t(image)]);
        std::cout.write(bytes.data(), std::streamsize(bytes.size()));
        return 0;
    }
    Json json;
    json.object().field("file", path);
    if (is_cubin(file)) {
        json.key("facts");
        write_facts(json, file);
    } else if (file.substr(0, 4) ==
                   "\x7f"
                   "ELF" ||
               file.substr(0, 4) == "\x50\xED\x55\xBA") {
        write_images(json, list_images_in_file(file), path, int(arch), with_code);
    } else {
        json.key("module");
        write_module(json, file, path, with_code);
    }
    std::cout << json.end().text() << '\n';
    return 0;
}

}  // namespace
}  // namespace vgpu

int main(int argc, char** argv) {
    try {
        return vgpu::run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
