/* test_gemm_amx_emulated.c - the source of the tile-register products with each tile instruction written out in C, since few
 * machines have AMX: loops, tails, addresses and configurations are checked here, the instructions themselves are not. The
 * emulation follows the Intel SDM's pseudocode and refuses shapes that the processor would fault on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

#include "base/half.h"
#include "kernels/gemm_ref.h"
#include "kernels/x86/target.h"

static struct { bool on; int rows[8], row_bytes[8]; uint8_t data[8][16][64]; } amx;

static void emu_loadconfig(const void *p)
{
    const uint8_t *c = p;
    memset(&amx, 0, sizeof amx);
    assert_int_equal(c[0], 1);
    for (int i = 1; i < 16; i++)
        assert_int_equal(c[i], 0);
    for (int i = 0; i < 8; i++) {
        amx.row_bytes[i] = c[16 + 2 * i] | c[17 + 2 * i] << 8;
        amx.rows[i] = c[48 + i];
        assert_true(amx.row_bytes[i] <= 64 && amx.rows[i] <= 16 && !amx.rows[i] == !amx.row_bytes[i]);
    }
    amx.on = true;
}

static void emu_release(void) { amx.on = false; }

static void use(int t) { assert_true(amx.on && t < 8 && amx.rows[t] > 0); }

static void emu_zero(int t)
{
    use(t);
    memset(amx.data[t], 0, sizeof amx.data[t]);
}

static void emu_load(int t, const void *base, int64_t stride)
{
    use(t);
    memset(amx.data[t], 0, sizeof amx.data[t]);
    for (int r = 0; r < amx.rows[t]; r++)
        memcpy(amx.data[t][r], (const char *)base + r * stride, (size_t)amx.row_bytes[t]);
}

static void emu_store(int t, void *base, int64_t stride)
{
    use(t);
    for (int r = 0; r < amx.rows[t]; r++)
        memcpy((char *)base + r * stride, amx.data[t][r], (size_t)amx.row_bytes[t]);
}

static void check_product(int c, int a, int b)
{
    use(c), use(a), use(b);
    assert_true(c != a && c != b && a != b && amx.rows[c] == amx.rows[a] && amx.row_bytes[c] == amx.row_bytes[b] && amx.row_bytes[a] == 4 * amx.rows[b]);
}

static void emu_dpbf16(int c, int a, int b)
{
    check_product(c, a, b);
    for (int m = 0; m < amx.rows[c]; m++)
        for (int k = 0; k < amx.row_bytes[a] / 4; k++)
            for (int n = 0; n < amx.row_bytes[c] / 4; n++) {
                const nm_bf16 *x = (const nm_bf16 *)(const void *)amx.data[a][m] + 2 * k, *y = (const nm_bf16 *)(const void *)amx.data[b][k] + 2 * n;
                float *sum = (float *)(void *)amx.data[c][m] + n;
                *sum += nm_bf16_to_f32(x[0]) * nm_bf16_to_f32(y[0]);
                *sum += nm_bf16_to_f32(x[1]) * nm_bf16_to_f32(y[1]);
            }
}

static void emu_dpbssd(int c, int a, int b)
{
    check_product(c, a, b);
    for (int m = 0; m < amx.rows[c]; m++)
        for (int k = 0; k < amx.row_bytes[a]; k++)
            for (int n = 0; n < amx.row_bytes[c] / 4; n++)
                ((int32_t *)(void *)amx.data[c][m])[n] += (int8_t)amx.data[a][m][k] * (int8_t)amx.data[b][k / 4][4 * n + k % 4];
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#define _tile_loadconfig emu_loadconfig
#define _tile_release emu_release
#define _tile_zero emu_zero
#define _tile_loadd emu_load
#define _tile_stored emu_store
#define _tile_dpbf16ps emu_dpbf16
#define _tile_dpbssd emu_dpbssd
#include "kernels/x86/gemm_amx_impl.h"

static uint64_t seed = 7;
static float rnd(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((int64_t)(seed >> 33) - (1 << 30)) * 0x1p-30f;
}

/* One tile: rows x 32 over k. A's rows end where the block does, and the bytes between them are NaN. */
static void check(nm_dtype compute, int rows, int64_t k)
{
    int64_t size = compute == NM_BF16 ? 2 : 1, stride = compute == NM_BF16 ? k * 2 + 6 : (k + 63) / 64 * 64;
    float *w = malloc((size_t)k * 32 * sizeof *w), scale[32];
    int32_t sum[32];
    for (int64_t i = 0; i < k * 32; i++)
        w[i] = rnd();
    void *panel = aligned_alloc(64, (size_t)nm_gemm_units(compute, k) * 128);
    nm_gemm_pack_ref(&(nm_gemm_panel){ .w = w, .dtype = NM_F32, .row_step = k, .k_step = 1, .k = k, .cols = 32, .data = panel, .scale = scale, .sum = sum }, compute, 32);
    char *a = malloc((size_t)((rows - 1) * stride + k * size)), acc[32 * 128];
    memset(a, 0xFF, (size_t)((rows - 1) * stride + k * size));
    for (int r = 0; r < rows; r++)
        for (int64_t i = 0; i < k; i++)
            if (compute == NM_BF16)
                ((nm_bf16 *)(void *)(a + r * stride))[i] = nm_f32_to_bf16(rnd());
            else
                a[r * stride + i] = (char)(int)(rnd() * 127);
    memset(acc, 0x55, sizeof acc);
    amx_configure(rows);
    nm_gemm_tile t = { .rows = rows, .k = k, .a = a, .a_stride = stride, .panel = panel, .acc = acc, .next = panel, .next_step = 0 };
    (compute == NM_BF16 ? amx_tile_bf16 : amx_tile_i8)(&t);
    amx_release();
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 32; j++) {
            double want = 0, magnitude = 0;
            for (int64_t i = 0; i < k; i++) {
                double p = compute == NM_BF16 ? (double)nm_bf16_to_f32(((nm_bf16 *)(void *)(a + r * stride))[i]) * nm_bf16_to_f32(nm_f32_to_bf16(w[j * k + i]))
                                              : (double)(int8_t)a[r * stride + i] * ((int8_t *)panel)[(i / 4 * 32 + j) * 4 + i % 4];
                want += p;
                magnitude += fabs(p);
            }
            double got = compute == NM_BF16 ? ((float *)(void *)acc)[r * 32 + j] : ((int32_t *)(void *)acc)[r * 32 + j];
            if (!(fabs(got - want) <= (compute == NM_BF16 ? magnitude * (double)k * 0x1p-24 : 0)))
                fail_msg("%s rows=%d k=%d at (%d,%d): expected %g got %g", compute == NM_BF16 ? "bf16" : "int8", rows, (int)k, r, j, want, got);
        }
    for (int i = rows * 128; i < 32 * 128; i++)
        assert_int_equal(acc[i], 0x55);
    free(a);
    free(panel);
    free(w);
}

static void test_tiles(void **state)
{
    static const int ks[] = { 1, 2, 3, 31, 32, 33, 63, 64, 65, 96, 127, 128, 200 };
    (void)state;
    for (int rows = 1; rows <= 32; rows++)
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
            check(NM_BF16, rows, ks[i]);
            check(NM_I8, rows, ks[i]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_tiles) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void) { return 0; }
#endif
