// The parser's state, shared by its parts: module level (parser.cpp), variables (variables.cpp), bodies (body.cpp).
#pragma once

#include <unordered_map>

#include "ptx/constant.h"
#include "ptx/ir.h"
#include "ptx/lexer.h"
#include "ptx/scope.h"

namespace vgpu {

std::vector<std::string> split_dots(
    std::string_view text);  // ".param.b64" -> {"param", "b64"}; a leading dot is dropped

// What a declaration says before its first name.
struct Declaration {
    Space space = Space::generic;
    bool is_register = false;
    Type type = Type::none;
    int vector = 1;
    uint32_t align = 0;
    bool managed = false;
    bool is_extern = false;
};

// Reads `.reg .v2 .b32`, `.param .align 8 .b8`, `.param .u64 .ptr .global .align 1`, … up to the first name.
Declaration parse_declaration(Lexer&);

// Reads `name`, `name[4][2]`, `name[] = {…}` and makes the variable. Array sizes may be left out where allowed.
Variable parse_variable(Lexer&, const Declaration&, bool initialiser_allowed);

class ModuleParser {
  public:
    ModuleParser(std::string_view text, std::string_view name);
    Module run();

  private:
    friend class BodyParser;
    struct Place {
        bool is_function = false;
        int32_t index = -1;
    };

    void parse_statement();
    void parse_file();
    void skip_section();
    void parse_alias();
    void parse_linked(bool is_extern);
    void parse_variables(bool is_extern);
    void parse_function(bool entry);
    void parse_function_directives(Function&);
    void parse_parameters(Function&, std::vector<Variable>&, const char* prefix);
    int32_t merge(Function&&);
    void check_relocations();
    const Place* find(std::string_view name) const;

    Lexer lexer_;
    Module module_;
    std::unordered_map<std::string, Place> names_;
};

class BodyParser {
  public:
    BodyParser(ModuleParser& module, Function& function);
    void run();  // from after `{` to after the matching `}`

  private:
    struct Pending {  // a name that is no register or variable: a label, branch targets, a function
        std::string_view name;
        int32_t block;
        uint32_t line;
    };

    void parse_statement();
    void parse_label(const Token& name);
    void parse_local();
    void parse_registers(const Declaration&);
    void parse_loc();
    void parse_instruction();
    void parse_call(Instruction&);
    Operand parse_operand();
    Operand parse_name();
    Operand parse_vector(std::string_view open, std::string_view close);
    Operand parse_address();
    void parse_offset(Operand&);
    int32_t parse_register();
    Operand pend(const Token& name);

    void resolve();
    void resolve_operand(Operand&);
    void resolve_call(Instruction&);
    void resolve_targets(Instruction&);

    ModuleParser& module_;
    Lexer& lexer_;
    Function& function_;
    Scopes scopes_;
    std::vector<Pending> pending_;
    uint32_t file_ = 0, source_line_ = 0;
};

}  // namespace vgpu
