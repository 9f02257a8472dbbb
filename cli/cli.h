/* cli.h - what every verb of the noema command shares: the option table, inputs, results on stdout, messages on stderr.
 *
 * A verb is one file with a `const cli_verb`; main.c lists it. The command uses only the public API (include/noema). */
#ifndef NOEMA_CLI_H
#define NOEMA_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "noema/context.h"
#include "noema/model.h"
#include "noema/status.h"

/* Exit codes of the contract; an interrupt ends with 130, as a shell would say it. */
enum { CLI_OK = 0, CLI_USAGE = 1, CLI_SOME_FAILED = 2, CLI_NOTHING_DONE = 3, CLI_INTERRUPTED = 130 };

typedef enum cli_kind {
    CLI_FLAG,   /* no value */
    CLI_STRING, /* the last one counts */
    CLI_LIST,   /* may be repeated; kept in order */
    CLI_INT,    /* a whole number >= 0 */
    CLI_NUMBER  /* a finite number */
} cli_kind;

/* One option. `arg` names the value in the help; FILE and DIR complete to paths, "a|b|c" are the only values allowed. */
typedef struct cli_option {
    const char *name; /* long name without the dashes */
    char letter;      /* short name or 0 */
    cli_kind kind;
    const char *arg;
    const char *help;
} cli_option;

struct cli;
enum {
    CLI_WITH_MODEL = 1, /* the help shows the model options (every verb accepts them) */
    CLI_NO_INPUTS = 2   /* positional arguments are a usage error */
};

typedef struct cli_verb {
    const char *name;    /* "embed", "inspect tokens" */
    const char *summary; /* one line of `noema --help` */
    const char *usage;   /* after the verb's name: "[options] IMAGE..." */
    const char *details; /* paragraphs of --help, or NULL */
    const char *example; /* a command line that works */
    const cli_option *options; /* ends with a name of NULL; may be NULL */
    unsigned flags;
    int (*run)(struct cli *c); /* returns the exit code, usually cli_exit(c) */
} cli_verb;

extern const cli_option cli_common_options[];
extern const cli_verb *const cli_verbs[]; /* main.c; NULL-terminated, in the order of the help */

typedef struct cli_value { const cli_option *option; const char *text; } cli_value;

typedef struct cli {
    const cli_verb *verb;
    cli_value *values; /* in the order given */
    size_t n_values;
    const char **inputs;
    size_t n_inputs;
    bool quiet, json;
    bool out_tty, err_tty;
    size_t n_done, n_failed; /* inputs; cli_exit() makes the exit code of them */
    noema_context *ctx;      /* cli_context() */
    const char *builtin;     /* the verb's model without -m; NULL: NOEMA_BUILTIN_MODEL */
} cli;

/* ---- options (options.c) ---- */

/* Parses argv[0..argc) into c; false: a usage error was printed. Numbers and choices are checked here. */
bool cli_parse(cli *c, int argc, char **argv);
void cli_free(cli *c);
bool cli_flag(const cli *c, const char *name);
const char *cli_str(const cli *c, const char *name, const char *dflt);
int64_t cli_int(const cli *c, const char *name, int64_t dflt);
int cli_small_int(const cli *c, const char *name, int dflt); /* a number of things: more than 2^20 is 2^20 */
double cli_num(const cli *c, const char *name, double dflt);
/* All values of a repeated option; the array is malloc'd (NULL when there is none), the strings are the command line's. */
const char **cli_list(const cli *c, const char *name, size_t *n);
/* "N" or "HxW"; false when it is neither. */
bool cli_parse_size(const char *text, int *height, int *width);

/* ---- help (help.c) ---- */
void cli_help_all(FILE *f);
void cli_help_verb(FILE *f, const cli_verb *v);
void cli_help_group(FILE *f, const char *group); /* the verbs that begin with "group " */

/* ---- messages (message.c) ---- */
void cli_say(const cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));  /* stderr; silent with --quiet */
void cli_warn(const cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* stderr, always */
/* "noema VERB: MESSAGE" and where the help is; returns CLI_USAGE. */
int cli_usage(const cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Nothing could be done: prints err's message, returns CLI_NOTHING_DONE. */
int cli_fatal(const cli *c, const noema_error *err);
/* One input failed: names it on stderr and counts it. The message is not repeated when it names the input itself. */
void cli_failed(cli *c, const char *input, const noema_error *err);
void cli_failed_msg(cli *c, const char *input, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int cli_exit(const cli *c);
/* True after SIGINT or SIGTERM: finish what is open and return cli_exit(). A second signal kills. */
bool cli_interrupted(void);
void cli_catch_signals(void);

/* A bar on stderr with rate and time left, only on a terminal and without --quiet; total < 0: unknown. */
typedef struct cli_progress { const cli *c; const char *unit; int64_t done, total; double start, shown; bool on; } cli_progress;
void cli_progress_begin(cli_progress *p, const cli *c, const char *unit, int64_t total);
void cli_progress_set(cli_progress *p, int64_t done);
void cli_progress_end(cli_progress *p); /* wipes the bar */
double cli_now(void);                   /* seconds, monotonic */

/* ---- results (out.c) ---- */

/* A line of results under construction. The command ends with a message when memory does. */
typedef struct cli_buf { char *data; size_t len, cap; } cli_buf;
void cli_puts(cli_buf *b, const char *s);
void cli_putn(cli_buf *b, const char *s, size_t n);
void cli_printf(cli_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_put_json(cli_buf *b, const char *s);              /* quoted; invalid UTF-8 becomes U+FFFD */
void cli_put_jsonn(cli_buf *b, const char *s, size_t n);
void cli_put_f32(cli_buf *b, float v);                     /* reads back as the same f32; NaN: null */
void cli_put_f32s(cli_buf *b, const float *v, size_t n);   /* [..] */
void cli_buf_free(cli_buf *b);
/* Writes the buffer and a newline to stdout, flushes when it is a terminal, empties the buffer. A closed pipe ends the
 * command quietly, a full disk with a message. */
void cli_emit(cli_buf *b);
void cli_flush(void);
/* True: print a table for people; false (a pipe, a file, --json): JSON lines. */
bool cli_tables(const cli *c);
void *cli_alloc(size_t n, size_t size);               /* zeroed; never NULL */
void *cli_grow(void *p, size_t *cap, size_t need, size_t size); /* realloc that doubles; never NULL */
char *cli_dup(const char *s);
char *cli_text(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* malloc'd */

/* ---- inputs (inputs.c) ---- */

/* One input: a file, or row `row` of the tensors in an .npy file (then name is "F.npy#row"; row is -1 for plain files). */
typedef struct cli_input { char *name, *path; int64_t row; } cli_input;
typedef struct cli_inputs cli_inputs;
enum { CLI_IN_ROWS = 1 /* .npy files give their rows */ };

/* Files, folders (with -r, in the order of their names), "-" (one path per line on stdin). A folder's files are taken by their
 * extension. What cannot be listed fails through cli_failed(). */
cli_inputs *cli_inputs_open(cli *c, const char *const *args, size_t n, bool recursive, unsigned flags);
bool cli_inputs_next(cli_inputs *in, cli_input *out); /* false at the end or after an interrupt */
void cli_inputs_close(cli_inputs *in);
void cli_input_free(cli_input *i);
/* How many there will be, by listing folders once; -1 when stdin decides. */
int64_t cli_inputs_count(const cli *c, const char *const *args, size_t n, bool recursive, unsigned flags);
/* The lines of a file: each ends at "\n" and at nothing else (a last empty one is no line) and is NUL-terminated in place; len counts
 * bytes, since a text may contain NUL. cli_lines_trim() drops a "\r" at the end of each and a byte order
 * mark at the beginning. */
typedef struct cli_lines { char *data; char **line; size_t *len; size_t n; } cli_lines;
bool cli_lines_read(cli_lines *l, const char *path, noema_error *err);
void cli_lines_trim(cli_lines *l);
void cli_lines_free(cli_lines *l);

/* --text and --text-file in the order given (texts.c). A line of a file is kept as it is: only its "\n" goes. */
typedef struct cli_texts { const char **text; size_t *len, n, cap, cap_len; cli_lines *files; size_t n_files; } cli_texts;
bool cli_texts_read(cli *c, cli_texts *t); /* false: a message was printed; exit with CLI_NOTHING_DONE */
void cli_texts_free(cli_texts *t);

/* --labels and --templates (names.c): strings of the command line or of a file, whose blank ends and empty lines go. */
typedef struct cli_names { const char **item; size_t n; cli_lines lines; char *text; } cli_names;
bool cli_names_labels(cli_names *l, const char *arg, noema_error *err);    /* "a,b", or a file with one per line */
bool cli_names_templates(cli_names *l, const char *arg, noema_error *err); /* "none" (n 0), "openai", or a file with one per line */
void cli_names_free(cli_names *l);

/* ---- .npy (npy.c) ---- */
typedef struct cli_npy { const float *data; int ndim; int64_t shape[8]; size_t row; /* elements per row */ void *map; size_t map_size; } cli_npy;
bool cli_npy_open(cli_npy *a, const char *path, noema_error *err); /* little-endian f32, C order */
void cli_npy_close(cli_npy *a);
/* A file that is a valid .npy after every cli_npy_rows(); dims are those of a row. */
typedef struct cli_npy_out { FILE *f; char *path; int64_t n; int ndim; int64_t dims[7]; char type[4]; size_t row_bytes; } cli_npy_out;
bool cli_npy_create(cli_npy_out *o, const char *path, const char *type, int ndim, const int64_t *dims, noema_error *err);
bool cli_npy_append_open(cli_npy_out *o, const char *path, const char *type, int ndim, const int64_t *dims, int64_t keep_rows, noema_error *err);
bool cli_npy_rows(cli_npy_out *o, const void *rows, size_t n, noema_error *err);
bool cli_npy_finish(cli_npy_out *o, noema_error *err); /* fsync and close */

/* ---- .csv (csv.c) ---- */

/* Results as records (RFC 4180), each flushed when it is complete. A file that is there already is gone on with: a half written last
 * record is cut off, and cli_csv_has() tells whether a record begins with that field. */
typedef struct cli_csv { FILE *f; const char *path; char **done; size_t n_done; } cli_csv;
bool cli_csv_open(cli_csv *csv, cli *c, const char *path, const char *header); /* false: a message was printed */
bool cli_csv_has(const cli_csv *csv, const char *first);
void cli_csv_row(cli_csv *csv, const char *const *fields, size_t n);
bool cli_csv_close(cli_csv *csv); /* false: something could not be written */

/* ---- models (model.c) ---- */

/* The context with --threads; NULL after a message. Freed by cli_free(). */
noema_context *cli_context(cli *c);
/* The common options as the library takes them. false: a usage error was printed. */
bool cli_model_options(const cli *c, noema_model_options *o);
/* Opens -m MODEL and a session. Returns 0, or the exit code after a message. */
/* -m, or the built-in model. */
const char *cli_model_name(const cli *c);
int cli_open_model(cli *c, noema_model **m, noema_session **s);
int cli_batch(const cli *c, int dflt); /* --batch */
void cli_context_free(cli *c);

/* ---- vectors (vectors.c) ---- */

/* Numbers of one picture: its vectors, one after another. */
size_t cli_image_floats(const noema_model_info *info);

/* Gets each result in the order of the inputs: v is NULL for one that failed (and has been reported). `name` is NULL for texts.
 * false: stop; err is filled. */
typedef bool cli_vector_fn(void *user, const char *name, const float *v, noema_error *err);
/* All files and .npy rows that args name (with the -r of the command line). false: fn stopped the work. */
bool cli_embed_images(cli *c, noema_session *s, const noema_model_info *info, unsigned flags, const char *const *args, size_t n, cli_vector_fn *fn,
                      void *user, noema_error *err);
/* The same for what is left of an opened list (CLI_IN_ROWS); total for the progress bar, -1: unknown. */
bool cli_embed_rest(cli *c, noema_session *s, const noema_model_info *info, unsigned flags, cli_inputs *in, int64_t total, cli_vector_fn *fn, void *user,
                    noema_error *err);
/* Texts from number `skip` on. */
bool cli_embed_texts(cli *c, noema_session *s, const noema_model_info *info, unsigned flags, const cli_texts *t, size_t skip, cli_vector_fn *fn, void *user,
                     noema_error *err);

#endif
