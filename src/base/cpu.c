/* cpu.c - see cpu.h. CPUID leaves after the Intel SDM, volume 2A; AMX permission after Linux' arch_prctl(2). */
#define _GNU_SOURCE
#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

static uint64_t xgetbv0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

uint32_t nm_cpu_detect(void)
{
    uint32_t a, b, c, d, f = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    uint64_t os = xgetbv0();
    int fma = (c & bit_FMA) && (c & bit_F16C) && (c & bit_AVX);
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (os & 6) != 6)
        return 0;
    uint32_t b7 = b, c7 = c, d7 = d;
    if (fma && (b7 & bit_AVX2))
        f |= NM_CPU_AVX2;
    uint32_t need = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD;
    if ((f & NM_CPU_AVX2) && (os & 0xE6) == 0xE6 && (b7 & need) == need) {
        f |= NM_CPU_AVX512;
        if (c7 & (1u << 11))
            f |= NM_CPU_AVX512_VNNI;
        if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5)))
            f |= NM_CPU_AVX512_BF16;
        if ((d7 & (1u << 24)) && (os & 0x60000) == 0x60000 && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0) {
            if (d7 & (1u << 22))
                f |= NM_CPU_AMX_BF16;
            if (d7 & (1u << 25))
                f |= NM_CPU_AMX_INT8;
        }
    }
    return f;
}

const char *nm_cpu_model_name(char buf[64])
{
    uint32_t r[12];
    memset(buf, 0, 64);
    for (uint32_t i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]))
            return strcpy(buf, "x86-64");
    memcpy(buf, r, 48);
    char *s = buf;
    while (*s == ' ')
        s++;
    memmove(buf, s, strlen(s) + 1);
    return buf;
}
#else
uint32_t nm_cpu_detect(void) { return 0; }
const char *nm_cpu_model_name(char buf[64]) { return strcpy(buf, "unknown"); }
#endif

uint32_t nm_cpu_mask(const char *level)
{
    static const struct { const char *name; uint32_t mask; } levels[] = {
        { "ref", 0 },
        { "avx2", NM_CPU_AVX2 },
        { "avx512", NM_CPU_AVX2 | NM_CPU_AVX512 | NM_CPU_AVX512_VNNI },
        { "avx512_bf16", NM_CPU_AVX2 | NM_CPU_AVX512 | NM_CPU_AVX512_VNNI | NM_CPU_AVX512_BF16 },
        { "amx", ~0u },
    };
    for (size_t i = 0; level && i < sizeof levels / sizeof *levels; i++)
        if (strcmp(level, levels[i].name) == 0)
            return levels[i].mask;
    return ~0u;
}

static uint32_t g_features;
static void detect_once(void) { g_features = nm_cpu_detect() & nm_cpu_mask(getenv("NOEMA_CPU")); }

uint32_t nm_cpu_features(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, detect_once);
    return g_features;
}

const char *nm_cpu_level_name(uint32_t f)
{
    return f & NM_CPU_AMX_BF16 ? "amx" : f & NM_CPU_AVX512_BF16 ? "avx512_bf16" : f & NM_CPU_AVX512 ? "avx512" : f & NM_CPU_AVX2 ? "avx2" : "ref";
}

/* cgroup v2 quota in whole processors, rounded up; 0 when there is none. */
static int cgroup_quota(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    long long quota, period;
    int n = 0;
    if (f && fscanf(f, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0)
        n = (int)((quota + period - 1) / period);
    if (f)
        fclose(f);
    return n;
}

int nm_cpu_count(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    const char *ranks = getenv("OMPI_COMM_WORLD_LOCAL_SIZE"); /* processes of mpirun here; those it did not bind share the processors */
    if (ranks && atoi(ranks) > 1 && n == (int)sysconf(_SC_NPROCESSORS_ONLN))
        n = n / atoi(ranks);
    int quota = cgroup_quota();
    if (quota > 0 && quota < n)
        n = quota;
    return n > 0 ? n : 1;
}
