// Function bodies: statements and operands; labels and callees once the body is complete.
#include <algorithm>

#include "ptx/parser.h"

namespace vgpu {

BodyParser::BodyParser(ModuleParser& module, Function& function)
    : module_(module), lexer_(module.lexer_), function_(function) {
    for (size_t i = 0; i < function.params.size() + function.returns.size(); ++i) {
        const bool param = i < function.params.size();
        const Variable& variable = param ? function.params[i] : function.returns[i - function.params.size()];
        Name name;
        name.kind = Name::variable;
        name.symbol_scope = scope_param;
        name.index = int32_t(i);
        if (!scopes_.declare(variable.name, name)) lexer_.fail("parameter declared twice", function.line);
    }
}

void BodyParser::run() {
    for (;;) {
        if (lexer_.peek().kind == TokenKind::end) lexer_.fail("function " + function_.name + " without end");
        if (!lexer_.peek().is("}")) {
            parse_statement();
            continue;
        }
        const uint32_t line = lexer_.next().line;
        if (scopes_.close()) continue;
        // No path may run past the last instruction, and a label may stand behind it.
        const bool ends = !function_.code.empty() && function_.code.back().guard < 0 &&
                          (function_.code.back().parts[0] == "ret" || function_.code.back().parts[0] == "exit" ||
                           function_.code.back().parts[0] == "bra" || function_.code.back().parts[0] == "brx");
        bool label_behind = false;
        for (int32_t i = 0; i < scopes_.size(); ++i)
            for (const auto& label : scopes_.block(i).labels)
                label_behind |= label.second == int32_t(function_.code.size());
        if (!ends || label_behind) {
            Instruction ret;
            ret.opcode = "ret";
            ret.parts = {"ret"};
            ret.line = line;
            ret.file = file_;
            ret.source_line = source_line_;
            function_.code.push_back(std::move(ret));
        }
        return resolve();
    }
}

void BodyParser::parse_statement() {
    const Token token = lexer_.peek();
    if (lexer_.take(";")) return;
    if (lexer_.take("{")) {
        if (!scopes_.open()) lexer_.fail("blocks nested more than 256 deep", token.line);
        return;
    }
    if (token.kind == TokenKind::word && lexer_.peek_second().is(":")) {
        lexer_.next();
        lexer_.next();
        return parse_label(token);
    }
    if (token.kind == TokenKind::directive) {
        if (token.text == ".loc") return parse_loc();
        if (token.text == ".pragma") {
            lexer_.next();
            do {
                const Token text = lexer_.next();
                if (text.kind != TokenKind::string) lexer_.fail("expected a pragma in quotes", text.line);
                function_.pragmas.emplace_back(text.text);
            } while (lexer_.take(","));
            return lexer_.expect(";");
        }
        if (token.text == ".file") return module_.parse_file();
        return parse_local();
    }
    parse_instruction();
}

void BodyParser::parse_label(const Token& name) {
    BlockScope& block = scopes_.block();
    if (lexer_.take(".branchtargets") || lexer_.peek().is(".calltargets")) {
        lexer_.take(".calltargets");
        std::vector<std::string_view> targets;
        do {
            const Token target = lexer_.next();
            if (target.kind != TokenKind::word) lexer_.fail("expected a label", target.line);
            targets.push_back(target.text);
        } while (lexer_.take(","));
        lexer_.expect(";");
        if (!block.targets.emplace(name.text, std::move(targets)).second)
            lexer_.fail("label declared twice", name.line);
        return;
    }
    if (lexer_.take(".callprototype")) {
        Function prototype;
        prototype.name = std::string(name.text);
        prototype.line = name.line;
        if (lexer_.peek().is("(")) module_.parse_parameters(prototype, prototype.returns, "retval");
        if (lexer_.next().text != "_") lexer_.fail("expected _ in a call prototype", name.line);
        if (lexer_.peek().is("(")) module_.parse_parameters(prototype, prototype.params, "param");
        module_.parse_function_directives(prototype);
        lexer_.expect(";");
        if (!block.prototypes.emplace(name.text, int32_t(module_.module_.prototypes.size())).second)
            lexer_.fail("label declared twice", name.line);
        module_.module_.prototypes.push_back(std::move(prototype));
        return;
    }
    if (!block.labels.emplace(name.text, int32_t(function_.code.size())).second)
        lexer_.fail("label declared twice", name.line);
}

void BodyParser::parse_local() {
    const uint32_t line = lexer_.peek().line;
    const Declaration declaration = parse_declaration(lexer_);
    if (declaration.is_register) return parse_registers(declaration);
    if (declaration.space != Space::param && declaration.space != Space::local && declaration.space != Space::shared)
        lexer_.fail("a body declares .reg, .local, .shared and .param only", line);
    do {
        const Token token = lexer_.peek();
        Name name;
        name.kind = Name::variable;
        name.index = int32_t(function_.locals.size());
        function_.locals.push_back(parse_variable(lexer_, declaration, false));
        if (function_.locals.back().external_unsized) lexer_.fail("array without a size", token.line);
        if (!scopes_.declare(token.text, name)) lexer_.fail("declared twice in one block", token.line);
    } while (lexer_.take(","));
    lexer_.expect(";");
}

void BodyParser::parse_registers(const Declaration& declaration) {
    do {
        const Token token = lexer_.next();
        if (token.kind != TokenKind::word || token.text.find('.') != token.text.npos)
            lexer_.fail("expected the name of a register", token.line);
        bool is_new;
        if (lexer_.take("<")) {
            if (declaration.vector > 1) lexer_.fail("a range of vector registers", token.line);
            // Not a whole expression: `>` would be its comparison.
            const Constant count = parse_constant_operand(lexer_);
            if (count.is_float || count.bits > (1u << 30))
                lexer_.fail("a range of more than 2^30 registers", token.line);
            lexer_.expect(">");
            is_new = scopes_.declare_range(token.text, {count.bits, declaration.type});
        } else {
            Name name;
            name.kind = declaration.vector > 1 ? Name::vector_reg : Name::reg;
            name.width = uint8_t(declaration.vector);
            name.index = int32_t(function_.registers.size());
            for (int i = 0; i < declaration.vector; ++i) {
                std::string full(token.text);
                if (declaration.vector > 1) full += std::string(".") + "xyzw"[i];
                function_.registers.push_back({std::move(full), declaration.type});
            }
            is_new = scopes_.declare(token.text, name);
        }
        if (!is_new) lexer_.fail("register declared twice in one block", token.line);
    } while (lexer_.take(","));
    lexer_.expect(";");
}

// .loc file line column [, function_name label [+ n], inlined_at file line column]: the innermost place counts.
void BodyParser::parse_loc() {
    lexer_.next();
    const auto number = [&] { return uint32_t(parse_constant_operand(lexer_).bits); };
    file_ = number();
    source_line_ = number();
    number();
    while (lexer_.take(",")) {
        const Token what = lexer_.next();
        if (what.text == "function_name") {
            if (lexer_.next().kind != TokenKind::word) lexer_.fail("expected a label", what.line);
            if (lexer_.take("+")) number();
        } else if (what.text == "inlined_at") {
            for (int i = 0; i < 3; ++i) number();
        } else {
            lexer_.fail("expected function_name or inlined_at", what.line);
        }
    }
    while (lexer_.peek().kind == TokenKind::word &&
           lexer_.peek().text == "is_stmt") {  // is_stmt, prologue_end: for debuggers
        lexer_.next();
        number();
    }
}

void BodyParser::parse_instruction() {
    Instruction instruction;
    if (lexer_.take("@")) {
        instruction.guard_negated = lexer_.take("!");
        const Token guard = lexer_.peek();
        instruction.guard = parse_register();
        if (function_.registers[size_t(instruction.guard)].type != Type::pred)
            lexer_.fail("a guard must be a predicate", guard.line);
    }
    const Token opcode = lexer_.next();
    if (opcode.kind != TokenKind::word) {
        const std::string shown(opcode.text.substr(0, 80));
        lexer_.fail("expected an instruction before '" + shown + "'", opcode.line);
    }
    instruction.opcode = std::string(opcode.text);
    instruction.parts = split_dots(opcode.text);
    instruction.line = opcode.line;
    instruction.file = file_;
    instruction.source_line = source_line_;
    if (instruction.parts[0] == "call") {
        parse_call(instruction);
    } else if (!lexer_.peek().is(";")) {
        do instruction.operands.push_back(parse_operand());
        while (lexer_.take(","));
    }
    if (!lexer_.take(";")) lexer_.fail("expected ';' after " + instruction.opcode.substr(0, 80), opcode.line);
    function_.code.push_back(std::move(instruction));
}

// call (returns), target, (arguments), prototype; all but the target may be missing.
void BodyParser::parse_call(Instruction& instruction) {
    Operand returns, arguments;
    returns.kind = arguments.kind = OperandKind::vector;
    if (lexer_.peek().is("(")) {
        returns = parse_vector("(", ")");
        lexer_.expect(",");
    }
    const Operand target = parse_operand();
    Operand prototype;
    if (lexer_.take(",")) {
        const bool has_arguments = lexer_.peek().is("(");
        if (has_arguments) arguments = parse_vector("(", ")");
        if (!has_arguments || lexer_.take(",")) prototype = parse_operand();
    }
    instruction.operands = {std::move(returns), std::move(arguments), target};
    if (prototype.kind != OperandKind::none) instruction.operands.push_back(std::move(prototype));
}

void BodyParser::resolve() {
    for (Instruction& instruction : function_.code) {
        if (instruction.parts[0] == "call")
            resolve_call(instruction);
        else if (instruction.parts[0] == "brx")
            resolve_targets(instruction);
        else
            for (Operand& operand : instruction.operands) {
                resolve_operand(operand);
                for (Operand& element : operand.elements) resolve_operand(element);
            }
    }
}

void BodyParser::resolve_operand(Operand& operand) {
    if (operand.kind != OperandKind::label) return;
    const Pending& pending = pending_[size_t(operand.label)];
    if (const int32_t* index = scopes_.find_in(pending.block, &BlockScope::labels, pending.name)) {
        operand.label = *index;
        return;
    }
    const ModuleParser::Place* place = module_.find(pending.name);
    if (!place) lexer_.fail("unknown name '" + std::string(pending.name.substr(0, 80)) + "'", pending.line);
    operand.kind = OperandKind::symbol;  // a function declared after its mention is found here too
    operand.label = -1;
    operand.symbol = place->index;
    operand.symbol_scope = place->is_function ? scope_function : scope_module;
}

void BodyParser::resolve_call(Instruction& instruction) {
    for (int i = 0; i < 2; ++i)
        for (Operand& element : instruction.operands[size_t(i)].elements) resolve_operand(element);
    Operand target = instruction.operands[2];
    const bool has_prototype = instruction.operands.size() > 3;
    if (has_prototype) {
        const Operand& operand = instruction.operands[3];
        const int32_t* found = nullptr;
        bool known = false;
        if (operand.kind == OperandKind::label) {
            const Pending& pending = pending_[size_t(operand.label)];
            found = scopes_.find_in(pending.block, &BlockScope::prototypes, pending.name);
            known = found || scopes_.find_in(pending.block, &BlockScope::targets, pending.name);
        }
        if (!known) lexer_.fail("unknown call prototype or target list", instruction.line);
        if (found) instruction.prototype = *found;
    }
    if (target.kind == OperandKind::reg) {
        instruction.operands.resize(3);
        return;
    }
    if (target.kind == OperandKind::label) {
        const ModuleParser::Place* place = module_.find(pending_[size_t(target.label)].name);
        if (place && place->is_function) instruction.callee = place->index;
    } else if (target.kind == OperandKind::symbol && target.symbol_scope == scope_function) {
        instruction.callee = target.symbol;
    }
    if (instruction.callee < 0) lexer_.fail("call of an unknown function", instruction.line);
    const Function& callee = module_.module_.functions[size_t(instruction.callee)];
    const bool self = callee.name == function_.name;
    const Function& signature = self ? function_ : callee;
    if (signature.entry) lexer_.fail("call of a kernel", instruction.line);
    if (instruction.operands[0].elements.size() != signature.returns.size() ||
        instruction.operands[1].elements.size() < signature.params.size())  // variadic functions may take more
        lexer_.fail("call of " + signature.name + " with the wrong number of arguments", instruction.line);
    instruction.operands.resize(2);
}

void BodyParser::resolve_targets(Instruction& instruction) {
    if (instruction.operands.size() != 2 || instruction.operands[1].kind != OperandKind::label)
        lexer_.fail("brx.idx needs an index and a target list", instruction.line);
    const Pending pending = pending_[size_t(instruction.operands[1].label)];
    const auto* targets = scopes_.find_in(pending.block, &BlockScope::targets, pending.name);
    if (!targets) lexer_.fail("unknown target list", pending.line);
    Operand labels;
    labels.kind = OperandKind::vector;
    for (std::string_view name : *targets) {
        const int32_t* index = scopes_.find_in(pending.block, &BlockScope::labels, name);
        if (!index) lexer_.fail("unknown label '" + std::string(name.substr(0, 80)) + "'", pending.line);
        Operand label;
        label.kind = OperandKind::label;
        label.label = *index;
        labels.elements.push_back(std::move(label));
    }
    instruction.operands[1] = std::move(labels);
}

}  // namespace vgpu
