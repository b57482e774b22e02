"""Combinations of modifiers and types of every opcode, legal or not: what ptxas and the engine are asked about."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Slot = tuple[str, ...]  # a modifier or one of several; "" where it may be absent

INTEGERS = ("u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64")
BITS = ("b8", "b16", "b32", "b64", "b128", "pred")
FLOATS = ("f16", "f16x2", "bf16", "bf16x2", "tf32", "f32", "f64")
FP8 = ("e4m3x2", "e5m2x2")
TYPES = (*INTEGERS, *BITS, *FLOATS, *FP8, "u16x2", "s16x2")
SINGLE = tuple((t,) for t in TYPES)
PAIRS = tuple(itertools.product((*INTEGERS, "b8", "b16", "b32", "b64", "pred", *FLOATS, *FP8), repeat=2))
FEW_PAIRS = tuple(itertools.product(("u8", "s32", "u64", "b16", *FLOATS, "e4m3x2"), repeat=2))
REGISTERS = ".reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<17>; .reg .b64 %q<17>; .reg .b128 %o<5>;"


def optional(words: str) -> Slot:
    return ("", *words.split())


def one(words: str) -> Slot:
    return tuple(words.split())


ROUND, INTEGRAL = "rn rz rm rp", "rni rzi rmi rpi"
FTZ, SAT, CC, RELU = optional("ftz"), optional("sat satfinite"), optional("cc"), optional("relu")
COMPARE = "eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan"
SCOPE, SPACE = (
    "cta cluster gpu sys",
    "global shared shared::cta shared::cluster local param param::entry param::func const",
)
STRENGTH = optional("weak volatile relaxed acquire release mmio.relaxed mmio " + " ".join(
    f"{order}.{scope}" for order in ("weak", "volatile", "relaxed", "acquire", "release", "mmio.relaxed")
    for scope in SCOPE.split()))  # fmt: skip
L1 = optional("L1::evict_normal L1::evict_unchanged L1::evict_first L1::evict_last L1::no_allocate")
L2 = optional("L2::64B L2::128B L2::256B L2::evict_last L2::evict_normal L2::evict_first")
VECTOR = optional("v2 v4 v8")


@dataclass(frozen=True)
class Family:
    """Opcodes with the same modifiers. Operands: r q h o are registers of 32, 64, 16, 128 bits, p predicates; t and u
    those of the first and the last type, w of twice the first type; {r4} a vector, [q] an address, p|p a pair."""

    opcodes: str
    slots: tuple[Slot, ...]
    types: tuple[tuple[str, ...], ...]
    operands: str  # several ways with a slash between them: a form is legal if one is
    depth: int = 9  # how many of the optional slots are set at once


def bits(kind: str) -> int:
    if kind == "tf32" or kind.endswith("6x2"):
        return 32
    if kind == "pred":
        return 1
    return int(re.sub(r"\D", "", kind.replace("e4m3x2", "16").replace("e5m2x2", "16").replace("e4m3", "8")
                      .replace("e5m2", "8")))  # fmt: skip


def register(size: int) -> str:
    return "p" if size == 1 else "h" if size <= 16 else "r" if size == 32 else "q" if size == 64 else "o"


def operands(pattern: str, types: tuple[str, ...]) -> str:
    """The operands of an instruction, by a pattern of Family.operands."""
    first, last = (bits(types[0]), bits(types[-1])) if types else (32, 32)
    letters = {"t": register(first), "u": register(last), "w": register(max(16, first) * 2)}
    number = itertools.count()

    def name(letter: str) -> str:
        letter = letters.get(letter, letter)
        return f"%{letter}{next(number) % (5 if letter == 'o' else 9 if letter in 'ph' else 17)}"

    def place(token: str) -> str:
        if vector := re.fullmatch(r"\{(\w)(\d+)\}", token):
            return "{" + ", ".join(name(vector[1]) for _ in range(int(vector[2]))) + "}"
        return re.sub(r"(?<![\w])([a-z])(?!\w)", lambda m: name(m[1]), token)

    return ", ".join(place(token) for token in pattern.split())


def assignments(slots: Iterable[Slot], depth: int) -> Iterator[tuple[str, ...]]:
    """Every choice of one word of each slot, with at most `depth` of the optional ones set."""
    slots = tuple(slots)
    free = [i for i, slot in enumerate(slots) if "" in slot]
    for count in range(min(depth, len(free)) + 1):
        for chosen in itertools.combinations(free, count):
            words = [("",) if i in free and i not in chosen else tuple(w for w in s if w) for i, s in enumerate(slots)]
            yield from itertools.product(*words)


def spell(opcode: str, modifiers: Iterable[str], types: Iterable[str]) -> str:
    return ".".join([opcode, *(m for m in modifiers if m), *types])


FLOAT = (optional(f"{ROUND} rna"), FTZ, SAT, optional("approx"))
MANY = (*FLOAT, RELU, optional("NaN"), optional("xorsign.abs xorsign abs"), CC)
PART = optional("lo hi wide")
SHAPES = one("m16n8k4 m16n8k8 m16n8k16 m16n8k32 m8n8k16 m8n8k4")
FAMILIES = (
    Family("add sub mul div", FLOAT, SINGLE, "t t t", 3),
    Family("add sub addc subc", (PART, *MANY), SINGLE, "t t t", 2),
    Family("mul mul24", (PART, *FLOAT, RELU, CC), SINGLE, "t t t/w t t", 2),
    Family("fma mad", (*FLOAT, RELU), SINGLE, "t t t t", 3),
    Family("fma mad madc mad24", (PART, *FLOAT, RELU, CC), SINGLE, "t t t t/w t t w", 2),
    Family("div rem min max", (optional("full"), *MANY), SINGLE, "t t t", 2),
    Family("min max", (FTZ, RELU, optional("NaN"), optional("xorsign.abs")), SINGLE, "t t t"),
    Family("abs neg rcp sqrt rsqrt ex2 lg2 sin cos tanh", (*FLOAT, RELU), SINGLE, "t t", 3),
    Family("copysign", (FTZ, SAT, optional(ROUND)), SINGLE, "t t t"),
    Family("testp", (optional("finite infinite number notanumber normal subnormal"), FTZ), SINGLE, "p t"),
    Family("sad", (FTZ, SAT, CC, PART), SINGLE, "t t t t"),
    Family("cnot brev not", (FTZ, SAT, PART), SINGLE, "t t"),
    Family("popc clz bfind", (FTZ, SAT, optional("shiftamt")), SINGLE, "r t"),
    Family("and or xor", (FTZ, SAT, optional("popc")), SINGLE, "t t t"),
    Family("shl shr", (optional("l r"), optional("wrap clamp"), SAT), SINGLE, "t t r"),
    Family("shf", (optional("l r"), optional("wrap clamp"), SAT), SINGLE, "t t t r"),
    Family("lop3", (optional("and or xor"), SAT), SINGLE, "t t t t 1/p|p t t t 1 p/t|p t t t 1 p"),
    Family("bfe", (optional("wrap clamp"), SAT), SINGLE, "t t r r"),
    Family("bfi", (optional("wrap clamp"), SAT), SINGLE, "t t t r r"),
    Family("bmsk szext", (optional("wrap clamp"), SAT), SINGLE, "t t t"),
    Family("fns", (optional("wrap clamp"), SAT), SINGLE, "t t t t"),
    Family("dp4a dp2a", (PART, SAT), FEW_PAIRS + tuple(itertools.product(("u32", "s32", "b32"), repeat=2)), "r r r r"),
    Family("cvt", (optional(f"{ROUND} rna {INTEGRAL}"), FTZ, SAT, RELU), PAIRS, "t u", 2),
    Family("cvt", (optional(f"{ROUND} rna {INTEGRAL}"), FTZ, SAT, RELU), FEW_PAIRS, "t u/t u u"),
    Family("cvt", (optional("pack"), SAT), tuple(itertools.product(INTEGERS, INTEGERS, ("b32",))), "r r r r"),
    Family("setp", (optional(COMPARE), optional("and or xor"), FTZ), SINGLE, "p t t/p t t p/p|p t t/p|p t t p"),
    Family("set", (optional(COMPARE), FTZ), PAIRS, "t u u"),
    Family("set", (optional("ne hs nan"), optional("and or xor"), FTZ), FEW_PAIRS, "t u u/t u u p"),
    Family("selp", (FTZ, SAT), SINGLE, "t t t p"),
    Family("slct", (FTZ, SAT), PAIRS, "t t t u"),
    Family("mov", (FTZ, SAT, VECTOR), SINGLE,
           "t t/t {h2}/t {h4}/t {r2}/t {r4}/t {q2}/{h2} t/{r2} t/{h4} t/{r4} t/{q2} t"),
    Family("prmt", (optional("f4e b4e rc8 ecl ecr rc16"), SAT), SINGLE, "t t t t"),
    Family("cvta", (optional("to"), optional(SPACE)), tuple(t for t in SINGLE if t != ("u32",)), "t t"),
    Family("isspacep", (optional(SPACE),), ((), *SINGLE), "p q"),
    Family("ld st", (STRENGTH, optional(SPACE), VECTOR, optional("ca cg cs cv lu wb wt"), optional("nc"), L1, L2,
           optional("L2::cache_hint")), (("u32",),), "v", 3),
    Family("ldu", (STRENGTH, optional(SPACE), optional("ca nc"), L1, L2), (("u32",),), "v", 2),
    Family("ld ldu st", (optional(SPACE), VECTOR, optional("weak volatile relaxed.gpu nc")), SINGLE, "v"),
    Family("prefetch prefetchu applypriority discard", (optional(SPACE), optional("L1 L2 tensormap"), L2), ((),
           ("u32",)),
           "[q]/[q] 128"),
    Family("createpolicy", (optional("fractional range cvt"), optional("global"), optional(
        "L2 L2::evict_last L2::evict_normal L2::evict_first L2::evict_unchanged"),
        optional("L2::evict_first L2::evict_unchanged L2::evict_last")), (("b64",), ("b32",), ()),
        "q 0f3F800000/q/q [q] r r/q q"),
    Family("atom red", (optional("relaxed acquire release acq_rel seq_cst weak volatile"), optional(SCOPE),
           optional(SPACE),
           one("and or xor cas exch add inc dec min max"), optional("noftz")), (("b32",), ("u32",), ("f16x2",)), "a",
           2),
    Family("atom red", (optional("shared"), one("and or xor cas exch add inc dec min max"), optional("noftz ftz"),
           VECTOR),
           SINGLE, "a"),
    Family("atom red", (optional("sat relu"), optional("global shared"), one("add cas exch max"),
           optional("L2::cache_hint"),
           optional("async")), (("u32",), ("f32",)), "a"),
    Family("membar fence", (optional("sc acq_rel acquire release relaxed proxy mbarrier_init"), optional(f"gl {SCOPE}"),
           optional("alias async uni level")), ((), ("u32",)), ""),
    Family("shfl", (optional("sync"), optional("up down bfly idx"), optional("aligned")), SINGLE,
           "t t r r r/t|p t r r r/t t r r"),
    Family("vote", (optional("sync"), optional("all any uni ballot"), optional("aligned")), SINGLE, "t p r/t p"),
    Family("match", (optional("sync"), optional("all any"), optional("aligned")), SINGLE, "r t r/r|p t r/r t"),
    Family("redux", (optional("sync"), optional("add min max and or xor inc"), optional("abs NaN")), SINGLE, "t t r"),
    Family("activemask elect", (optional("sync"),), ((), *SINGLE), "t/t|p r/r|p r"),
    Family("bar barrier", (optional("cta warp cluster"), optional("sync arrive red wait"), optional("popc and or xor"),
           optional("aligned")), ((), ("u32",), ("pred",)), "1/1 64/r r/r/p r p/r r p/r r r p/p r r p/"),
    Family("cp", (one("async"), one("ca cg"), one(SPACE), one("global shared::cta"),
           optional("L2::64B L2::128B L2::256B"), optional("L2::cache_hint")), ((), ("b32",)),
           "[r] [q] 16/[r] [q] 4/1//[r] [q] 16 r/[r] [q] 16 p/[r] [q] 16 q/[r] [q] 16 r q"),
    Family("cp", (optional("async bulk"), optional("ca commit_group wait_group wait_all"), optional("shared")), ((),
           ("b32",)),
        "[r] [q] 16/[r] [q] 4/1//[r] [q] 16 r/[r] [q] 16 p/[r] [q] 16 q"),
    Family("ldmatrix", (optional("sync"), optional("aligned"), optional("m8n8 m16n16 m8n16"), optional("x1 x2 x3 x4"),
           optional("trans"), optional("shared shared::cta global")), (("b16",), ("b8",), ("b32",)),
           "{r1} [r]/{r2} [r]/{r4} [r]/r [r]"),
    Family("stmatrix", (optional("sync"), optional("aligned"), optional("m8n8 m16n8"), optional("x1 x2 x3 x4"),
           optional("trans"), optional("shared shared::cta global")), (("b16",), ("b8",), ("b32",)),
           "[r] {r1}/[r] {r2}/[r] {r4}/[r] r"),
    Family("movmatrix", (optional("sync"), optional("aligned"), optional("m8n8"), optional("trans")), SINGLE, "r r"),
    Family("bra", (optional("uni"),), ((), ("u32",)), "END"),
    Family("ret exit trap brkpt", (optional("uni"),), ((), ("u32",)), ""),
    Family("nanosleep", (optional("uni"),), ((), *SINGLE), "r"),
    Family("pmevent", (optional("mask"),), ((), *SINGLE), "1"),
    Family("griddepcontrol", (optional("launch_dependents wait"),), ((), ("u32",)), ""),
)  # fmt: skip


def memory(opcode: str, form: str) -> str:
    """Operand patterns of ld, ldu, st, atom and red, whose vectors go by a modifier."""
    vector = re.search(r"\.v(\d)", form)
    value = f"{{t{vector[1]}}}" if vector else "t"
    hint = " q" if "L2::cache_hint" in form else ""
    if opcode in ("atom", "red"):
        values = f"{value} {value}" if ".cas." in form else value
        return f"[q] {values}{hint}" if opcode == "red" else f"{value} [q] {values}{hint}"
    return f"[q] {value}{hint}" if opcode == "st" else f"{value} [q]{hint}"


def instructions() -> dict[str, str]:
    """Instruction -> its form, of all families."""
    found = {}
    for family in FAMILIES:
        for opcode in family.opcodes.split():
            for chosen in assignments(family.slots, family.depth):
                for types in family.types:
                    form = spell(opcode, chosen, types)
                    patterns = memory(opcode, form) if family.operands in ("v", "a") else family.operands
                    for pattern in patterns.split("/"):
                        found[f"{form} {operands(pattern, types)};"] = form
    return found


def words() -> list[str]:
    """Every modifier of every family."""
    return sorted({word for family in FAMILIES for slot in family.slots for word in slot if word})


def disturbed(taken: list[str]) -> list[str]:
    """Legal instructions with one modifier more, in turn, so that each opcode meets each one; and in another order."""
    more, found = itertools.cycle(words()), []
    for text in taken:
        form, _, rest = text.partition(" ")
        opcode, *parts = form.split(".")
        kinds = [p for p in parts if p in TYPES]
        modifiers = [p for p in parts if p not in TYPES]
        one_more = [word for word in itertools.islice(more, 3) if kinds or word != "cc"]  # a crash of ptxas
        found += [f"{spell(opcode, [*modifiers, word], kinds)} {rest}" for word in one_more]
        found.append(f"{spell(opcode, modifiers[::-1], kinds)} {rest}")
    return found
