/* attention_kernels.h - the table that x86/ fills; included by attention.h only. */
struct nm_attention_kernels {
    int placeholder;
};
