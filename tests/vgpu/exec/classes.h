// The decode functions of every opcode class, one file each; opcodes.cpp puts them into the one table.
#pragma once

#include "exec/decode.h"

namespace vgpu {

bool is_integer_type(Type);
bool is_half_type(Type);

// integer.cpp
void decode_integer_add(Decoder&);
void decode_integer_mul(Decoder&);
void decode_integer_unary(Decoder&);
void decode_logic(Decoder&);
void decode_shift(Decoder&);
void decode_lop3(Decoder&);
void decode_bitfield(Decoder&);
void decode_dot(Decoder&);
// float.cpp
void decode_float(Decoder&);
void decode_float_sign(Decoder&);
void decode_float_extreme(Decoder&);
void decode_copysign(Decoder&);
void decode_testp(Decoder&);
// half.cpp
void decode_half(Decoder&);
// convert.cpp
void decode_cvt(Decoder&);
// compare.cpp
void decode_setp(Decoder&);
void decode_set(Decoder&);
void decode_selp(Decoder&);
void decode_slct(Decoder&);
void decode_predicate_logic(Decoder&);
// move.cpp
void decode_mov(Decoder&);
void decode_prmt(Decoder&);
void decode_cvta(Decoder&);
void decode_isspacep(Decoder&);
// memory.cpp
void decode_ld(Decoder&);
void decode_st(Decoder&);
void decode_prefetch(Decoder&);
void decode_createpolicy(Decoder&);
// atomic.cpp
void decode_atom(Decoder&);
void decode_fence(Decoder&);
// collectives.cpp
void decode_shfl(Decoder&);
void decode_vote(Decoder&);
void decode_match(Decoder&);
void decode_redux(Decoder&);
void decode_activemask(Decoder&);
void decode_elect(Decoder&);
// barrier.cpp
void decode_barrier(Decoder&);
// async_copy.cpp
void decode_cp(Decoder&);
// matrix.cpp
void decode_ldmatrix(Decoder&);
void decode_movmatrix(Decoder&);
// mma.cpp
void decode_mma(Decoder&);
// control.cpp
void decode_bra(Decoder&);
void decode_brx(Decoder&);
void decode_call(Decoder&);
void decode_ret(Decoder&);
void decode_exit(Decoder&);
void decode_trap(Decoder&);
void decode_nop(Decoder&);
void decode_nanosleep(Decoder&);

}  // namespace vgpu
