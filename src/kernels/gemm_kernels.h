/* gemm_kernels.h - the table of micro-kernels that x86/ fills; included by gemm.h only. */
struct nm_gemm_kernels {
    int placeholder;
};
