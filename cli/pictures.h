/* pictures.h - inputs as pictures for the verbs that write text or match, and the options that caption and ask share. */
#ifndef NOEMA_CLI_PICTURES_H
#define NOEMA_CLI_PICTURES_H

#include "cli.h"
#include "noema/generate.h"

/* Gets up to `batch` pictures at a time: files, or rows of .npy tensors. false: stop. */
typedef bool cli_pictures_fn(void *user, size_t n, const noema_picture *pictures, const char *const *names, noema_error *err);
/* Inputs that are no pictures at all (a tensor of another shape) are reported and left out. */
bool cli_each_picture(cli *c, const noema_model_info *info, const char *const *args, size_t n, size_t batch, cli_pictures_fn *fn, void *user,
                      noema_error *err);

#define CLI_TEXT_OPTIONS \
    { "prompt", 0, CLI_STRING, "P", "caption: how the text begins; ask: a template, {} is the question (default: the model's own)" }, \
    { "beams", 0, CLI_INT, "N", "beam search with N beams (default: the model's own)" }, \
    { "greedy", 0, CLI_FLAG, NULL, "the likeliest id at each step" }, \
    { "sample", 0, CLI_FLAG, NULL, "draw from the likeliest ids (--top-p, --top-k, --temperature, --seed)" }, \
    { "top-p", 0, CLI_NUMBER, "P", "with --sample: the likeliest ids that together have probability P (0.9; a folder's own, else 1)" }, \
    { "top-k", 0, CLI_INT, "K", "with --sample: at most K ids (50; 0: all)" }, \
    { "temperature", 0, CLI_NUMBER, "T", "with --sample: divides the logits (1; a folder's own)" }, \
    { "max-length", 0, CLI_INT, "N", "ids of start, prompt and text together, at most" }, \
    { "min-length", 0, CLI_INT, "N", "ids of start, prompt and text together, at least" }, \
    { "max-new", 0, CLI_INT, "N", "new ids, at most" }, \
    { "min-new", 0, CLI_INT, "N", "new ids, at least" }, \
    { "repetition-penalty", 0, CLI_NUMBER, "R", "ids that occurred count less (1: no difference)" }, \
    { "length-penalty", 0, CLI_NUMBER, "P", "beam scores are divided by length to the power P" }, \
    { "early-stopping", 0, CLI_FLAG, NULL, "end a beam search as soon as N texts are finished" }, \
    { "n-best", 0, CLI_INT, "N", "print the N best texts too" }, \
    { "beam-rule", 0, CLI_STRING, "4.15|4.33|5", "whose transformers release counts lengths and stops the search" }
#define CLI_GENERATE_OPTIONS CLI_TEXT_OPTIONS, { "recursive", 'r', CLI_FLAG, NULL, "take the files in folders" }

/* false: a usage error was printed. */
bool cli_generate_options(const cli *c, noema_generate_options *o);
/* "key":[{"what":text,"score":s}...] */
void cli_put_scored(cli_buf *b, const char *key, const char *what, const noema_scored_text *t, size_t n);
/* Exit code for a model without that task, after a message; CLI_OK when it has it. */
int cli_need_task(const cli *c, const noema_model *m, unsigned task, const char *what);

#endif
