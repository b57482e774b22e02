// Module level: directives, functions' headers, and what belongs together by name.
#include "ptx/parser.h"

#include <algorithm>

namespace vgpu {

ModuleParser::ModuleParser(std::string_view text, std::string_view name) : lexer_(text, name) {
    module_.name = std::string(name);
    module_.files.emplace_back();
}

Module ModuleParser::run() {
    while (lexer_.peek().kind != TokenKind::end) parse_statement();
    if (module_.version.empty() || module_.target.empty()) lexer_.fail("no .version and .target: this is not PTX");
    check_relocations();
    return std::move(module_);
}

void ModuleParser::parse_statement() {
    const Token token = lexer_.peek();
    if (token.kind != TokenKind::directive) {
        if (lexer_.take("@") && lexer_.take("@")) {  // @@DWARF lines of old debug listings
            while (lexer_.peek().kind != TokenKind::end && lexer_.peek().line == token.line) lexer_.next();
            return;
        }
        if (lexer_.take(";")) return;
        lexer_.fail("expected a directive before '" + std::string(token.text.substr(0, 80)) + "'", token.line);
    }
    const std::vector<std::string> parts = split_dots(token.text);
    const std::string& first = parts[0];
    if (first == "version") {
        lexer_.next();
        module_.version = std::string(lexer_.next().text);
    } else if (first == "target") {
        lexer_.next();
        module_.target = std::string(lexer_.next().text);
        while (lexer_.take(",")) {
            const Token option = lexer_.next();
            if (option.kind != TokenKind::word) lexer_.fail("expected a .target option", option.line);
        }
        if (module_.target.substr(0, 3) != "sm_") lexer_.fail(".target must be sm_<number>", token.line);
    } else if (first == "address_size") {
        lexer_.next();
        if (parse_integer(lexer_, ".address_size", 64) != 64)
            lexer_.fail("only .address_size 64 is supported", token.line);
    } else if (first == "file") {
        parse_file();
    } else if (first == "section") {
        skip_section();
    } else if (first == "alias") {
        parse_alias();
    } else if (first == "pragma") {
        lexer_.next();
        while (lexer_.peek().kind == TokenKind::string) {
            lexer_.next();
            if (!lexer_.take(",")) break;
        }
        lexer_.expect(";");
    } else if (first == "extern" || first == "visible" || first == "weak" || first == "common") {
        lexer_.next();
        if (parts.size() != 1) lexer_.fail("expected a space after ." + first, token.line);
        parse_linked(first == "extern");
    } else {
        parse_linked(false);
    }
}

void ModuleParser::parse_linked(bool is_extern) {
    const Token& token = lexer_.peek();
    if (token.is(".func") || token.is(".entry")) {
        const bool entry = lexer_.next().text == ".entry";
        return parse_function(entry);
    }
    if (token.kind != TokenKind::directive) lexer_.fail("expected .func, .entry or a variable");
    parse_variables(is_extern);
}

void ModuleParser::parse_file() {
    lexer_.next();
    const uint64_t index = parse_integer(lexer_, "a .file number", 1 << 16);
    const Token name = lexer_.next();
    if (name.kind != TokenKind::string) lexer_.fail("expected a file name in quotes", name.line);
    if (module_.files.size() <= index) module_.files.resize(index + 1);
    module_.files[index] = std::string(name.text);
    while (lexer_.take(",")) parse_constant(lexer_);  // time stamp, size
}

void ModuleParser::skip_section() {
    lexer_.next();
    while (!lexer_.peek().is("{")) {
        if (lexer_.peek().kind == TokenKind::end) lexer_.fail(".section without a body");
        lexer_.next();
    }
    int depth = 0;
    do {
        const Token token = lexer_.next();
        if (token.kind == TokenKind::end) lexer_.fail(".section without end");
        depth += token.is("{") - token.is("}");
    } while (depth > 0);
}

void ModuleParser::parse_alias() {
    lexer_.next();
    const Token name = lexer_.next();
    lexer_.expect(",");
    const Token target = lexer_.next();
    if (name.kind != TokenKind::word || target.kind != TokenKind::word) lexer_.fail("expected two names", name.line);
    lexer_.expect(";");
    const Place* place = find(target.text);
    if (!place || !place->is_function) lexer_.fail("alias of an unknown function", target.line);
    module_.aliases[std::string(name.text)] = std::string(target.text);
    names_[std::string(name.text)] = *place;
}

void ModuleParser::parse_variables(bool is_extern) {
    Declaration declaration = parse_declaration(lexer_);
    declaration.is_extern = is_extern;
    if (declaration.is_register || declaration.space == Space::generic || declaration.space == Space::param)
        lexer_.fail("a module variable must be .global, .const, .shared or .local");
    do {
        const uint32_t line = lexer_.peek().line;
        Variable variable = parse_variable(lexer_, declaration, true);
        const auto found = names_.find(variable.name);
        if (found == names_.end()) {
            names_[variable.name] = {false, int32_t(module_.variables.size())};
            module_.variables.push_back(std::move(variable));
            continue;
        }
        Variable* before = found->second.is_function ? nullptr : &module_.variables[size_t(found->second.index)];
        if (!before || before->space != variable.space || !(before->is_extern || variable.is_extern))
            lexer_.fail("declared twice", line);
        if (before->is_extern) *before = std::move(variable);  // the definition says more than the declaration
    } while (lexer_.take(","));
    lexer_.expect(";");
}

void ModuleParser::parse_parameters(Function& function, std::vector<Variable>& list, const char* prefix) {
    lexer_.expect("(");
    while (!lexer_.peek().is(")")) {
        const uint32_t line = lexer_.peek().line;
        const Declaration declaration = parse_declaration(lexer_);
        if (declaration.is_register || declaration.space != Space::param)
            lexer_.fail("a parameter must be in .param space", line);
        if (lexer_.peek().kind == TokenKind::word) {
            list.push_back(parse_variable(lexer_, declaration, false));
        } else {  // prototypes may leave the name out
            Variable variable;
            variable.name = prefix + std::to_string(list.size());
            variable.space = Space::param;
            variable.type = declaration.type;
            variable.size = uint64_t(size_of(declaration.type)) * uint64_t(declaration.vector);
            variable.align = std::max(declaration.align, uint32_t(variable.size));
            list.push_back(std::move(variable));
        }
        Variable& made = list.back();
        if (made.size > 32764) lexer_.fail("parameter of more than 32764 bytes", line);
        if (made.external_unsized && function.entry) lexer_.fail("array without a size", line);
        if (!lexer_.take(",")) break;
    }
    lexer_.expect(")");
}

void ModuleParser::parse_function_directives(Function& function) {
    while (lexer_.peek().kind == TokenKind::directive) {
        const Token token = lexer_.next();
        const auto three = [&](uint32_t* values) {
            values[0] = values[1] = values[2] = 1;
            for (int i = 0; i < 3; ++i) {
                values[i] = uint32_t(parse_integer(lexer_, token.text.data() ? "a launch bound" : "", 1u << 31));
                if (!lexer_.take(",")) break;
            }
        };
        if (token.text == ".maxntid")
            three(function.maxntid);
        else if (token.text == ".reqntid")
            three(function.reqntid);
        else if (token.text == ".reqnctapercluster")
            three(function.reqnctapercluster);
        else if (token.text == ".minnctapersm" || token.text == ".maxnctapersm")
            function.minnctapersm = uint32_t(parse_integer(lexer_, ".minnctapersm", 1024));
        else if (token.text == ".maxnreg")
            function.maxnreg = uint32_t(parse_integer(lexer_, ".maxnreg", 1024));
        else if (token.text == ".maxclusterrank")
            function.maxclusterrank = uint32_t(parse_integer(lexer_, ".maxclusterrank", 1024));
        else if (token.text == ".explicitcluster")
            function.explicitcluster = true;
        else if (token.text == ".blocksareclusters")
            function.explicitcluster = true;
        else if (token.text == ".noreturn")
            function.noreturn = true;
        else if (token.text == ".pragma") {
            do {
                const Token text = lexer_.next();
                if (text.kind != TokenKind::string) lexer_.fail("expected a pragma in quotes", text.line);
                function.pragmas.emplace_back(text.text);
            } while (lexer_.take(","));
            lexer_.expect(";");
        } else if (token.text == ".attribute") {
            lexer_.expect("(");
            for (int depth = 1; depth > 0;) {
                const Token part = lexer_.next();
                if (part.kind == TokenKind::end) lexer_.fail("attribute without end");
                depth += part.is("(") - part.is(")");
            }
        } else {
            lexer_.fail("unknown directive '" + std::string(token.text.substr(0, 80)) + "'", token.line);
        }
    }
}

void ModuleParser::parse_function(bool entry) {
    Function function;
    function.entry = entry;
    function.line = lexer_.peek().line;
    while (lexer_.peek().is(".attribute") || lexer_.peek().is(".noreturn")) parse_function_directives(function);
    if (!entry && lexer_.peek().is("(")) parse_parameters(function, function.returns, "retval");
    const Token name = lexer_.next();
    if (name.kind != TokenKind::word) lexer_.fail("expected the name of a function", name.line);
    function.name = std::string(name.text);
    if (lexer_.peek().is("(")) parse_parameters(function, function.params, "param");
    parse_function_directives(function);
    function.defined = lexer_.peek().is("{");
    if (!function.defined) {
        lexer_.expect(";");
        merge(std::move(function));
        return;
    }
    const int32_t index = merge(std::move(function));  // known by name inside its own body
    lexer_.expect("{");
    // The list may move while the body is parsed (it does not today), so the body is built outside of it.
    Function body = std::move(module_.functions[size_t(index)]);
    module_.functions[size_t(index)].name = body.name;
    BodyParser(*this, body).run();
    module_.functions[size_t(index)] = std::move(body);
}

int32_t ModuleParser::merge(Function&& function) {
    const auto found = names_.find(function.name);
    if (found == names_.end()) {
        const int32_t index = int32_t(module_.functions.size());
        names_[function.name] = {true, index};
        module_.functions.push_back(std::move(function));
        return index;
    }
    if (!found->second.is_function) lexer_.fail("declared as a variable before", function.line);
    Function& before = module_.functions[size_t(found->second.index)];
    if (before.entry != function.entry || before.params.size() != function.params.size() ||
        before.returns.size() != function.returns.size())
        lexer_.fail("declared differently before", function.line);
    if (before.defined && function.defined) lexer_.fail("defined twice", function.line);
    function.noreturn |= before.noreturn;
    if (!before.defined) before = std::move(function);
    return found->second.index;
}

const ModuleParser::Place* ModuleParser::find(std::string_view name) const {
    const auto found = names_.find(std::string(name));
    return found == names_.end() ? nullptr : &found->second;
}

void ModuleParser::check_relocations() {
    for (const Variable& variable : module_.variables)
        for (const Relocation& relocation : variable.relocations)
            if (!find(relocation.symbol))
                lexer_.fail("initialiser of " + variable.name + " names the unknown symbol " + relocation.symbol);
}

Module parse(std::string_view ptx, std::string_view name) { return ModuleParser(ptx, name).run(); }

}  // namespace vgpu
