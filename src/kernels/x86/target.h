/* target.h - compiles a stretch of a file for an instruction set, with gcc and clang. Include system headers before it. */
#ifndef NM_X86_TARGET_H
#define NM_X86_TARGET_H

#define NM_PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define NM_TARGET_PUSH(isa) NM_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define NM_TARGET_POP NM_PRAGMA(clang attribute pop)
#else
#define NM_TARGET_PUSH(isa) NM_PRAGMA(GCC push_options) NM_PRAGMA(GCC target(isa))
#define NM_TARGET_POP NM_PRAGMA(GCC pop_options)
#endif

#define NM_ISA_AVX2 "avx2,fma,f16c"
#define NM_ISA_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c"
#define NM_ISA_AVX512_BF16 "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c"

/* Loops over registers must be unrolled before arrays are looked at, or the accumulators live in memory. */
#ifdef __clang__
#define NM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define NM_UNROLL _Pragma("GCC unroll 16")
#endif

/* Before a loop of few steps whose arrays are to live in registers. */
#ifdef __clang__
#define UNROLL NM_PRAGMA(clang loop unroll(full))
#else
#define UNROLL NM_PRAGMA(GCC unroll 16)
#endif

#define NM_INLINE static inline __attribute__((always_inline))

#endif
