/* handle.h - what stands behind the public handles; for the other parts of the library and the tests. */
#ifndef NM_HANDLE_H
#define NM_HANDLE_H

#include "base/pool.h"
#include "models/model.h"
#include "noema/inspect.h"
#include "noema/noema.h"

struct noema_context {
    const nm_kernels *kn;
    nm_pool *pool;
    noema_log_fn *log;
    void *log_user;
};

/* printf-style message to the context's log callback, if any. */
void nm_log(const noema_context *ctx, noema_log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

struct noema_model {
    noema_context *ctx;
    nm_model *m;
    nm_weights *file;       /* views live in it */
    nm_dtype compute;
    bool mapped_weights;    /* see nm_run */
    noema_model_info info;
    char *name, *dir;
    char *tokenizer_path;   /* --tokenizer or what was found; NULL: none */
    pthread_mutex_t lock;   /* of the lazily opened tokenizer */
    nm_tokenizer *tokenizer;
    noema_error tokenizer_error;
    char identity[65], space[65], preprocess[512];
};

struct noema_session {
    noema_model *model;
    nm_run run;
    nm_arena *arena;
    nm_tok_scratch *tok;
    int32_t *ids;           /* of the texts of one batch */
    size_t n_ids, cap_ids;
    int64_t *offsets;
    size_t cap_offsets;
    struct nm_intake *intake; /* decode workers' memory */
    noema_observe_fn *observe; /* noema_session_observe */
    void *observe_user;
};

/* Where a name leads. Everything malloc'd; free with nm_located_free. */
typedef struct nm_located {
    char *path;             /* file or folder with the weights */
    char *dir;              /* companions */
    json_t *config;         /* or NULL */
    char *pretrained;       /* open_clip tag, or NULL */
} nm_located;
/* Where a built-in model lies, malloc'd; NULL: nowhere. */
char *nm_builtin_folder(const char *name);
bool nm_is_builtin(const char *name);
noema_status nm_locate(nm_located *l, const char *name, const noema_model_options *o, noema_error *err);
void nm_located_free(nm_located *l);
/* The tokenizer beside a checkpoint or in the known places; malloc'd or NULL. */
char *nm_locate_tokenizer(const char *dir, const nm_tok_options *tok);

/* Wraps a model made by a family's create(); takes it over. */
noema_status nm_model_adopt(noema_model **out, noema_context *ctx, nm_model *m, const char *name, const noema_model_options *o, noema_error *err);

/* The model's tokenizer, opened at the first call; NULL with err when there is none. */
const nm_tokenizer *nm_model_tokenizer(noema_model *model, noema_error *err);

/* The files that its tokenizer is made of, into a folder and under the names that are looked for beside a checkpoint (inspect_model.c). */
noema_status nm_model_copy_tokenizer(const noema_model *m, const char *folder, noema_error *err);

/* A public pipeline that does what `rule` says (inspect.c). */
noema_status nm_preprocess_wrap(noema_preprocess **out, const nm_preprocess *rule, noema_error *err);

nm_run *nm_session_run(noema_session *s); /* error cleared, arena reset */
/* Ids of texts as the model takes them, valid until the session's next call. */
noema_status nm_session_tokenize(noema_session *s, size_t n, const char *const *texts, const size_t *lengths, nm_texts *out, noema_error *err);
/* Copies [n, cols] f32 out of a run's result, normalised on demand; reports the run's error with the model's name. */
noema_status nm_session_take(noema_session *s, nm_tensor x, int64_t n, unsigned flags, float *out, noema_error *err);

/* intake.c: pictures decoded and preprocessed by workers while the caller computes. load(): fills one tensor. */
typedef struct nm_intake nm_intake;
typedef noema_status nm_intake_load_fn(void *arg, size_t i, nm_preprocess_scratch *s, nm_image *own, float *out, noema_error *err);
typedef noema_status nm_intake_batch_fn(void *arg, size_t first, size_t n, float *tensors, const bool *ok, noema_error *err);
nm_intake *nm_intake_new(int workers);
void nm_intake_free(nm_intake *in);
noema_status nm_intake_run(nm_intake *in, size_t n, size_t batch, size_t tensor_floats, nm_intake_load_fn *load, nm_intake_batch_fn *compute, void *arg,
                           noema_error *errors, noema_error *err);
/* noema_embed_image_files with tensors from load(), which is called by several threads at once (session.c). */
noema_status nm_embed_loaded(noema_session *s, size_t n, nm_intake_load_fn *load, void *arg, unsigned flags, float *out, noema_error *errors,
                             noema_error *err);

#endif
