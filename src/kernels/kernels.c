/* kernels.c - fills the dispatch table of kernels.h. */
#include "kernels/kernels.h"

#include <pthread.h>
#include <string.h>

#include "base/cpu.h"

void nm_kernels_init(nm_kernels *k, uint32_t features)
{
    memset(k, 0, sizeof *k);
    k->features = features;
    nm_gemm_kernels_init(&k->gemm, features);
    nm_attention_kernels_init(&k->attention, features);
    nm_channel_kernels_init(&k->channels, features);
    nm_elementwise_kernels_init(&k->elementwise, features);
    nm_norm_kernels_init(&k->norm, features);
    nm_gradient_kernels_init(&k->gradient, features);
    nm_scan_kernels_init(&k->scan, features);
}

static nm_kernels table; /* written once, below */
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void fill_table(void) { nm_kernels_init(&table, nm_cpu_features()); }

const nm_kernels *nm_kernels_get(void)
{
    pthread_once(&table_once, fill_table);
    return &table;
}
